"""Names to objects: entry points, plugin files and classes of the same process, in one typed registry.

Resolution order: a Python object registered in this process, then a plugin (``--plugin file.py`` or
``package.module``), then the entry-point group. Nothing is imported until it is asked for, so listing names is
instant. Two origins for one name are an error that names both; a later plugin file may not shadow an installed one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anytime_bench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from anytime_bench.method import Method

METHODS = "anytime_bench.methods"
TASKS = "anytime_bench.tasks"
CORRUPTIONS = "anytime_bench.corruptions"


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: a distribution with its version, or a file with its SHA-256."""

    name: str
    distribution: str = ""
    version: str = ""
    target: str = ""
    file: str = ""
    sha256: str = ""

    @property
    def identity(self) -> str:
        """What makes two rows the same method: a file's hash, or the distribution that provides it."""
        return origin_identity(dataclasses.asdict(self))

    def __str__(self) -> str:
        if self.file:
            return f"{self.file} (sha256 {self.sha256[:12]})"
        return f"{self.distribution or 'this process'} {self.version} ({self.target})".replace("  ", " ")


def origin_identity(origin: Mapping[str, str]) -> str:
    """Identity of a stored origin. Version and module path are provenance: a release or a moved file changes no row."""
    return origin.get("sha256") or origin.get("distribution") or origin.get("target", "")


class Registry:
    """All names of one entry-point group, plus what plugins and this process add."""

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind
        self._added: dict[str, tuple[Any, Origin]] = {}

    def add(self, name: str, target: Any, origin: Origin | None = None) -> None:
        """Register ``target`` under ``name``; a name that is taken by another object raises ``UserError``."""
        origin = origin or Origin(
            name, target=f"{getattr(target, '__module__', '?')}:{getattr(target, '__name__', '?')}"
        )
        taken = self._added.get(name)
        # A plugin file that was edited and loaded again replaces its former self.
        edited = taken is not None and bool(origin.file) and taken[1].file == origin.file
        if taken is not None and taken[0] is not target and taken[1] != origin and not edited:
            raise UserError(f"{self.kind} '{name}' is offered twice: by {taken[1]} and by {origin}. Rename one.")
        installed = self._installed().get(name)
        if installed is not None and installed.value != origin.target:
            raise UserError(f"{self.kind} '{name}' of {origin} is taken by {_origin(installed)}. Rename yours.")
        self._added[name] = (target, origin)

    def names(self) -> list[str]:
        return sorted({*self._added, *self._installed()})

    def origins(self) -> Iterator[Origin]:
        """One origin per name, without importing anything."""
        for name in self.names():
            yield self._added[name][1] if name in self._added else _origin(self._installed()[name])

    def get(self, name: str) -> tuple[Any, Origin]:
        """The object and its origin. Unknown names raise ``UserError`` with the nearest ones."""
        if name in self._added:
            return self._added[name]
        entry = self._installed().get(name)
        if entry is None:
            raise UserError(f"unknown {self.kind} '{name}'.{did_you_mean(name, self.names())}")
        try:
            return entry.load(), _origin(entry)
        except Exception as error:
            raise UserError(f"{self.kind} '{name}' of {_origin(entry)} fails to import: {last_line(error)}") from error

    def _installed(self) -> dict[str, EntryPoint]:
        return _entries(self.group, self.kind, tuple(sys.path))


@cache
def _entries(group: str, kind: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points of a group; ``path`` is in the key because an extended ``sys.path`` may hold more of them."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        before = found.get(entry.name)
        if before is not None and before.value != entry.value:
            raise UserError(
                f"{kind} '{entry.name}' is offered twice: by {_origin(before)} and by {_origin(entry)}. Uninstall one."
            )
        found[entry.name] = entry
    return found


def _origin(entry: EntryPoint) -> Origin:
    dist = entry.dist
    return Origin(entry.name, dist.name if dist else "", dist.version if dist else "", entry.value)


methods = Registry(METHODS, "method")
tasks = Registry(TASKS, "task")


def last_line(error: BaseException) -> str:
    """``file:line: Type: message`` of the innermost frame outside this package's import machinery."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}: "
    return f"{where}{type(error).__name__}: {error}"


def load_plugin(plugin: str) -> list[str]:
    """Import a plugin file or module and register each ``Method`` it defines; returns the names.

    A method's name is its ``name`` attribute if it has one, else its class name in snake case. A module may also
    call ``anytime_bench.registry.methods.add`` or ``tasks.add`` itself.
    """
    from anytime_bench.method import Method

    before = set(methods.names())
    path = Path(plugin)
    origin = {}
    if plugin.endswith(".py") or path.exists():
        if not path.is_file():
            raise UserError(f"plugin file '{plugin}' does not exist. Give the path of a .py file or a module name.")
        origin = {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        # The hash in the module's name keeps two files of one name apart, and pickles need it in sys.modules.
        module_name = f"anytime_bench_plugin_{path.stem}_{origin['sha256'][:8]}"
        if module_name in sys.modules:
            module = sys.modules[module_name]
        else:
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise UserError(f"plugin file '{plugin}' is not a Python file (expected a name ending in .py).")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException as error:
                del sys.modules[module_name]
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise UserError(f"plugin '{plugin}' fails to import: {last_line(error)}") from error
    else:
        try:
            module = importlib.import_module(plugin)
        except Exception as error:
            raise UserError(f"plugin '{plugin}' fails to import: {last_line(error)}") from error
    names = []
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__:
            if inspect.isabstract(value):
                continue
            name = getattr(value, "name", None) or snake_case(value.__name__)
            methods.add(name, value, Origin(name, target=f"{module.__name__}:{value.__name__}", **origin))
            names.append(name)
    names += sorted(set(methods.names()) - before - set(names))
    if not names:
        raise UserError(f"plugin '{plugin}' defines no Method. Expected a class derived from anytime_bench.Method.")
    return names


def snake_case(name: str) -> str:
    """``TwoExits`` -> ``two_exits``, ``SDNLike`` -> ``sdn_like``."""
    out = ""
    for i, letter in enumerate(name):
        starts_word = letter.isupper() and i > 0
        after_lower = starts_word and not name[i - 1].isupper()
        before_lower = starts_word and name[i - 1].isupper() and name[i + 1 : i + 2].islower()
        out += ("_" if after_lower or before_lower else "") + letter.lower()
    return out


def method_class(name: str) -> tuple[type[Method], Origin, str | None]:
    """The class, its origin and the variant (the part behind the slash of ``family/variant``), if any."""
    from anytime_bench.method import Method

    family, slash, variant = name.partition("/")
    target, origin = methods.get(name if not slash or name in methods.names() else family)
    if not (inspect.isclass(target) and issubclass(target, Method)):
        raise UserError(f"method '{name}' of {origin} is not a class derived from anytime_bench.Method.")
    if slash and family == origin.name and target.variant_option is None:
        raise UserError(
            f"method '{family}' has no variants, so '{name}' does not exist.{did_you_mean(name, methods.names())}"
        )
    return target, origin, variant if slash and name != origin.name else None


def load_method(name: str, **config: Any) -> Method:
    """A method by name with its options, checked: ``load_method("cascaded_td", lam=0.5)``."""
    from anytime_bench.config import build_options

    target, _, variant = method_class(name)
    return target(build_options(name, target, config, variant))
