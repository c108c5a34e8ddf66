"""Plugins: import a file or module and register what it defines; methods by name with checked options.

Six kinds plug in, alone or together in one file: methods (classes derived from ``Method`` register themselves), and
tasks, corruptions, recipes, scores and stopping rules, which a plugin registers by a call (``register_task``, ...).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from anytime_bench.errors import UserError, describe, did_you_mean
from anytime_bench.methods.contract import Method
from anytime_bench.methods.elsewhere import PLUGIN_PREFIX
from anytime_bench.methods.options import build_options
from anytime_bench.methods.sources import plugin_sources, sources_sha256
from anytime_bench.registry import Origin, Registry, methods, registering_from

#: What each plugin of this process registered, by the plugin's module: registry, name, object and origin.
_registered: dict[str, list[tuple[Registry, str, Any, Origin]]] = {}


def load_plugin(plugin: str) -> dict[str, list[str]]:
    """Import a plugin file or module and register what it defines; returns the names by kind.

    A method's name is its ``name`` attribute if it has one, else its class name in snake case. Raises ``UserError``
    for a file that is missing, fails to import or registers nothing.
    """
    before = {group: set(registry.added()) for group, registry in Registry.all.items()}
    path = Path(plugin)
    if plugin.endswith(".py") or path.exists():
        module, origin = _import_file(plugin)
    else:
        origin = {}
        try:
            module = importlib.import_module(plugin)
        except Exception as error:
            raise UserError(f"plugin '{plugin}' fails to import: {describe(error)}") from error
    for value in vars(module).values():
        defined_here = inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
        if defined_here and not inspect.isabstract(value):
            name = getattr(value, "name", None) or snake_case(value.__name__)
            try:
                methods.add(name, value, Origin(name, target=f"{module.__name__}:{value.__name__}", **origin))
            except UserError as error:
                raise UserError(f"plugin '{plugin}': {error}") from error
    # A module that was imported before does not run again: what was forgotten or replaced since is registered anew.
    for registry, name, target, source in _registered.get(module.__name__, ()):
        registry.add(name, target, replace(source, **origin))
    own = [
        (registry, name, registry.resolve(name)[0], source)
        for group, registry in Registry.all.items()
        for name, source in sorted(registry.added().items())
        if name not in before.get(group, ()) or (origin and source.sha256 == origin["sha256"])
    ] or _registered.get(module.__name__, [])
    names: dict[str, list[str]] = {}
    for registry, name, *_ in own:
        names.setdefault(registry.kind, []).append(name)
    abstract = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Method)
                and value.__module__ == module.__name__ and inspect.isabstract(value)]  # fmt: skip
    if not names and abstract:
        raise UserError(
            f"plugin '{plugin}': class {abstract[0].__name__} lacks "
            f"{' and '.join(sorted(abstract[0].__abstractmethods__))}, so it is no method yet. Define it."
        )
    if not names:
        raise UserError(
            f"plugin '{plugin}' registers nothing. Expected a class derived from anytime_bench.Method, or a call of "
            "register_task, register_corruption, register_recipe, register_score or register_stopping_rule."
        )
    _registered[module.__name__] = own
    return names


def _import_file(plugin: str) -> tuple[ModuleType, dict[str, str]]:
    """The module of a plugin file and its origin; a file that was loaded and not edited since is not run again."""
    path = Path(plugin)
    if not path.is_file():
        raise UserError(f"plugin file '{plugin}' does not exist. Give the path of a .py file or a module name.")
    sources = plugin_sources(path)
    origin = {"file": str(path), "sha256": sources_sha256(sources)}
    # The hash in the module's name keeps two files of one name apart, and pickles need it in sys.modules.
    name = f"{PLUGIN_PREFIX}{path.stem}_{origin['sha256'][:8]}"
    if name in sys.modules:
        return sys.modules[name], origin
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin file '{plugin}' is not a Python file (expected a name ending in .py).")
    if any(loaded.startswith(f"{PLUGIN_PREFIX}{path.stem}_") for loaded in sys.modules):
        # Edited since it was loaded: modules beside it may have been edited too.
        for module_name, source in sources.items():
            if getattr(sys.modules.get(module_name), "__file__", None) == str(source):
                del sys.modules[module_name]
    _refuse_shadowed(plugin, sources)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _registered.pop(name, None)
    with _first_on_path(path.resolve().parent), registering_from(**origin):
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, KeyboardInterrupt):
                raise
            raise UserError(f"plugin '{plugin}' fails to import: {describe(error)}") from error
    return module, origin


def _refuse_shadowed(plugin: str, sources: dict[str, Path]) -> None:
    """A module that another plugin already imported from elsewhere under the same name would silently be taken."""
    for name, path in sources.items():
        other = getattr(sys.modules.get(name), "__file__", None) if name != "__main__" else None
        if other is not None and Path(other).resolve() != path:
            raise UserError(
                f"plugin '{plugin}' imports '{name}' from '{path}', but another '{name}' was imported from '{other}'. "
                "Rename one of the two, or load the plugins in separate runs."
            )


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Modules beside the plugin are importable while it is imported, and afterwards for imports inside functions."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        yield
        sys.path.remove(str(folder))
        sys.path.append(str(folder))
    else:
        yield


def snake_case(name: str) -> str:
    """``TwoExits`` -> ``two_exits``, ``SDNLike`` -> ``sdn_like``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def method_class(name: str) -> tuple[type[Method], Origin, str | None]:
    """The class, its origin and the variant (the part behind the slash of ``family/variant``), if any."""
    family, slash, variant = name.partition("/")
    target, origin = methods.resolve(name if not slash or name in methods.names() else family)
    if not (inspect.isclass(target) and issubclass(target, Method)):
        raise UserError(f"method '{name}' of {origin} is not a class derived from anytime_bench.Method.")
    if slash and family == origin.name and target.variant_option is None:
        raise UserError(
            f"method '{family}' has no variants, so '{name}' does not exist.{did_you_mean(name, methods.names())}"
        )
    return target, origin, variant if slash and name != origin.name else None


def load_method(name: str, **config: Any) -> Method:
    """A method by name with its options, checked: ``load_method("two_exits", width=32)``."""
    target, _, variant = method_class(name)
    return target(build_options(name, target, config, variant))
