"""Make what this process has imported importable in a process that it starts: plugin files lie on no path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType

#: How ``plugins`` names the modules of plugin files.
PLUGIN_PREFIX = "anytime_bench_plugin_"


def source_files(*objects: object) -> dict[str, str]:
    """The plugin files that this process has imported, and those of the classes of ``objects``, by module name."""
    classes = {type(each).__module__ for each in objects} - {"__main__"}
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    wanted = [name for name in files if name in classes or name.startswith(PLUGIN_PREFIX)]
    return {name: file for name in wanted if (file := files[name])}


def import_files(files: Mapping[str, str]) -> None:
    """Import modules by name from the files that ``source_files`` named elsewhere."""
    for name, file in files.items():
        make_importable(name, file)


def make_importable(name: str, source: str | None) -> None:
    """Import module ``name``, from the file ``source`` where it is a plugin file that no path leads to.

    Raises ModuleNotFoundError where there is no such file.
    """
    loaded = sys.modules.get(name)
    if name == "__main__" or (loaded is not None and getattr(loaded, "__file__", None) == source):
        return
    try:
        importlib.import_module(name)
        return
    except ModuleNotFoundError:
        pass
    spec = importlib.util.spec_from_file_location(name, source) if source else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"module {name!r} has no file to load it from")
    module = importlib.util.module_from_spec(spec)
    # Unpickling asks for the packages around a module too, which pytest's import mode names and nobody can import.
    for end, letter in enumerate(name):
        if letter == ".":
            sys.modules.setdefault(name[:end], ModuleType(name[:end]))
    sys.modules[name] = module
    spec.loader.exec_module(module)
