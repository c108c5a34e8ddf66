"""Names to objects: entry points, plugin files and classes of the same process, in one typed registry.

Resolution order: a Python object registered in this process, then a plugin (``--plugin file.py`` or
``package.module``), then the entry-point group. Nothing is imported until it is asked for, so listing names is
instant. Two origins for one name are an error that names both; a later plugin file may not shadow an installed one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from anytime_bench.errors import UserError, describe, did_you_mean

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
            raise UserError(f"{self.kind} '{name}' of {_origin(entry)} fails to import: {describe(error)}") from error

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
