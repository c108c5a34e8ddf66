"""The sources of a plugin file: itself and every module it imports that belongs to nobody else.

A module belongs to a plugin when it lies outside the standard library, outside ``site-packages`` and outside this
suite. Imports are read from the syntax tree, so those inside functions count too. The hash is taken over the syntax
trees in the order of module names: a comment, a blank line or another folder changes nothing, an edited line does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_SUITE = Path(__file__).resolve().parents[1]


def plugin_sources(file: Path) -> dict[str, Path]:
    """Files by module name: ``__main__`` is the plugin file, the others what it imports from beside it or elsewhere."""
    sources = {"__main__": file.resolve()}
    search = [str(file.resolve().parent), *sys.path]
    waiting = [("__main__", file.resolve())]
    while waiting:
        name, path = waiting.pop()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for imported in _imports(path, "" if name == "__main__" else package):
            for module, location in _locate(imported, search):
                if module not in sources and _is_own(location):
                    sources[module] = location
                    waiting.append((module, location))
    return dict(sorted(sources.items()))


def sources_sha256(sources: dict[str, Path]) -> str:
    """SHA-256 over what Python compiles of each source. A file that does not parse counts by its bytes."""
    digest = hashlib.sha256()
    for name, path in sources.items():
        content = path.read_bytes()
        try:
            tree = ast.dump(ast.parse(content))
        except (SyntaxError, ValueError):
            tree = content.hex()
        digest.update(f"{name}\n{tree}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _imports(path: Path, package: str) -> Iterator[str]:
    """Absolute dotted names that ``path`` imports; ``from a import b`` gives both ``a`` and ``a.b``."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _locate(name: str, search: list[str]) -> Iterator[tuple[str, Path]]:
    """The module ``name`` and the packages around it with their files, without importing anything."""
    places: list[str] | None = search
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        module = ".".join(parts[:depth])
        try:
            spec = importlib.machinery.PathFinder.find_spec(module, places)
        except (ImportError, ValueError):
            return
        if spec is None:
            return
        if spec.origin and spec.origin.endswith(".py"):
            yield module, Path(spec.origin).resolve()
        if spec.submodule_search_locations is None:
            return
        places = list(spec.submodule_search_locations)


def _is_own(path: Path) -> bool:
    paths = sysconfig.get_paths()
    library = [Path(paths[key]).resolve() for key in ("stdlib", "platstdlib")]
    if any(part in ("site-packages", "dist-packages") for part in path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in [_SUITE, _SUITE.with_name("baselines"), *library])
