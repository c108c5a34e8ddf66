"""Names to objects in one typed registry per kind: entry points, plugin files and objects of this process.

Resolution order: an object registered in this process, then a plugin (``--plugin file.py`` or ``package.module``),
then the suite's own table, then the entry-point group. Nothing is imported until it is asked for, so listing names is
instant. Two origins for one name are an error that names both; a plugin may not shadow what is installed.

This module is generic: it knows no kind. Each kind makes its own ``Registry`` in the room it belongs to.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from anytime_bench.errors import UserError, describe, did_you_mean

METHODS = "anytime_bench.methods"
TASKS = "anytime_bench.tasks"
#: Names become folders, whose names a file system limits.
MAX_NAME = 120


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


#: File and SHA-256 of the plugin that is being imported; what registers meanwhile comes from it.
_importing: ContextVar[Mapping[str, str]] = ContextVar("importing", default={})  # noqa: B039


@contextmanager
def registering_from(file: str, sha256: str) -> Iterator[None]:
    """Whatever registers inside the block has this plugin file as its origin."""
    token = _importing.set({"file": file, "sha256": sha256})
    try:
        yield
    finally:
        _importing.reset(token)


class Registry:
    """All names of one kind: the suite's own table, one entry-point group, and what plugins and this process add."""

    #: Every registry of this process by group, so that a plugin can be asked what it added to any of them.
    all: dict[str, Registry] = {}  # noqa: RUF012

    def __init__(self, group: str, kind: str, builtin: Mapping[str, Any] | None = None) -> None:
        self.group = group
        self.kind = kind
        self._builtin = dict(builtin or {})
        self._added: dict[str, tuple[Any, Origin]] = {}
        Registry.all[group] = self

    def add(self, name: str, target: Any, origin: Origin | None = None) -> None:
        """Register ``target`` under ``name``; a name that is taken by another object raises ``UserError``."""
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            raise UserError(f"a {self.kind}'s name must be 1 to {MAX_NAME} printable characters, got {name!a:.60}.")
        if origin is None:
            path = f"{getattr(target, '__module__', type(target).__module__)}:{getattr(target, '__name__', name)}"
            origin = Origin(name, target=path, **_importing.get())
        taken = self._added.get(name)
        # A plugin file that was edited and loaded again replaces its former self.
        edited = taken is not None and bool(origin.file) and taken[1].file == origin.file
        if taken is not None and taken[0] is not target and taken[1] != origin and not edited:
            raise UserError(f"{self.kind} '{name}' is registered twice: by {taken[1]} and by {origin}. Rename one.")
        if name in self._builtin and target is not self._builtin[name]:
            raise UserError(f"{self.kind} '{name}' is taken by the suite. Rename yours.")
        installed = self._installed().get(name)
        if installed is not None and installed.value != origin.target:
            raise UserError(f"{self.kind} '{name}' of {origin} is taken by {_origin(installed)}. Rename yours.")
        self._added[name] = (target, origin)

    def names(self) -> list[str]:
        """The suite's own names in the order of their table, then all others by name."""
        return [*self._builtin, *sorted({*self._added, *self._installed()} - {*self._builtin})]

    def added(self) -> dict[str, Origin]:
        """What plugins and this process added, by name."""
        return {name: origin for name, (_, origin) in self._added.items()}

    def origins(self) -> Iterator[Origin]:
        """One origin per name, without importing anything."""
        for name in self.names():
            if name in self._added:
                yield self._added[name][1]
            elif name in self._builtin:
                yield Origin(name, "anytime_bench")
            else:
                yield _origin(self._installed()[name])

    def resolve(self, name: str) -> tuple[Any, Origin]:
        """The object and its origin. Unknown names raise ``UserError`` with the nearest ones."""
        if name in self._added:
            return self._added[name]
        if name in self._builtin:
            return self._builtin[name], Origin(name, "anytime_bench")
        entry = self._installed().get(name)
        if entry is None:
            near = did_you_mean(name, self.names())
            raise UserError(f"unknown {self.kind} '{name}'.{near} One of your own comes with --plugin FILE.")
        try:
            return entry.load(), _origin(entry)
        except Exception as error:
            raise UserError(f"{self.kind} '{name}' of {_origin(entry)} fails to import: {describe(error)}") from error

    @contextmanager
    def temporary(self, *, empty: bool = False) -> Iterator[None]:
        """Forget, at the end of the block, what was registered inside it; ``empty`` begins without anything added."""
        before = dict(self._added)
        if empty:
            self._added = {}
        try:
            yield
        finally:
            self._added = before

    def _installed(self) -> dict[str, EntryPoint]:
        return _entries(self.group, self.kind, tuple(sys.path))


@cache
def _entries(group: str, kind: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points of a group; ``path`` is in the key because an extended ``sys.path`` may hold more of them."""
    entries: dict[str, EntryPoint] = {}
    for entry in installed(group):
        before = entries.get(entry.name)
        if before is not None and before.value != entry.value:
            raise UserError(
                f"{kind} '{entry.name}' is registered twice: by {_origin(before)} and by {_origin(entry)}. "
                "Uninstall one."
            )
        entries[entry.name] = entry
    return entries


@cache
def _select(path: tuple[str, ...]) -> Callable[..., EntryPoints]:
    return entry_points().select


def installed(group: str) -> EntryPoints:
    """Entry points of a group. All groups are read at once, since each reading opens every installed package."""
    return _select(tuple(sys.path))(group=group)


def _origin(entry: EntryPoint) -> Origin:
    dist = entry.dist
    return Origin(entry.name, dist.name if dist else "", dist.version if dist else "", entry.value)


methods = Registry(METHODS, "method")
tasks = Registry(TASKS, "task")
