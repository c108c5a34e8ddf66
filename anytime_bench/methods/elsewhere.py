"""Make what this process has imported importable in a process that it starts: plugin files lie on no path, and the
script that runs is no module.

By itself ``multiprocessing`` runs that script again in every process it spawns, and so whatever stands in it outside
``if __name__ == "__main__"``: a script of one line would train again in each process that is to time it.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

#: How ``plugins`` names the modules of plugin files.
PLUGIN_PREFIX = "anytime_bench_plugin_"


def source_files(*objects: object) -> dict[str, str]:
    """The plugin files that this process has imported, and those of the classes of ``objects``, by module name."""
    classes = {type(each).__module__ for each in objects} - {"__main__"}
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    wanted = [name for name in files if name in classes or name.startswith(PLUGIN_PREFIX)]
    return {name: file for name in wanted if (file := files[name])}


@contextmanager
def without_script() -> Iterator[None]:
    """Processes that are spawned within do not run the script again that runs here."""
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def script_of(payload: bytes) -> dict[str, str]:
    """The script that runs here, by its module name, where pickled ``payload`` has classes of it."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return {"__main__": file} if file and b"__main__" in payload else {}


def import_files(files: Mapping[str, str]) -> None:
    """Import modules by name from the files that ``source_files`` and ``script_of`` named elsewhere."""
    for name, file in files.items():
        if name == "__main__":
            vars(sys.modules[name]).update(runpy.run_path(file, run_name="__mp_main__"))
        else:
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
