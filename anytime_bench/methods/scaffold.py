"""``new NAME``: write a working plugin, as one file or as a package with entry point, test and README.

Everything is written beside its destination and moved there in one step, so that a crash leaves nothing half-written;
whatever exists already is never touched. No torch here.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

from anytime_bench.errors import UserError
from anytime_bench.registry import methods

KINDS = ("file", "package")


def new_plugin(name: str, target: Path, kind: str = "file") -> list[Path]:
    """Write the plugin ``name`` into the folder ``target`` and return the paths of its files, the method first.

    ``kind="file"`` writes ``target/NAME.py``, ``kind="package"`` the folder ``target/NAME``. Raises ``UserError`` for a
    name that is no snake-case identifier or is taken, for another ``kind``, and where the destination exists.
    """
    if kind not in KINDS:
        raise UserError(f"kind '{kind}': expected file or package.")
    check_name(name)
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise UserError(f"'{target}' is not a folder. Give the folder to write {name} into.")
    destination = target / (f"{name}.py" if kind == "file" else name)
    if destination.exists() or destination.is_symlink():
        raise UserError(f"'{destination}' exists already and is not overwritten. Choose another name or folder.")
    contents = plugin_files(name, kind)
    target.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target))
    try:
        for path, text in contents.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_text(text, encoding="utf-8")
        if kind == "package":
            draft.chmod(0o777 & ~_umask())
            draft.rename(destination)  # fails where a folder with content has appeared in the meantime
            return [destination / path for path in contents]
        (only,) = contents
        os.link(draft / only, destination)  # unlike a rename, a link never replaces a file
        return [destination]
    except OSError as error:
        raise UserError(f"'{destination}' cannot be written ({error.strerror}). Choose another folder.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_name(name: str) -> None:
    """Raise ``UserError`` unless ``name`` can be a new method's name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UserError(
            f"'{name}' cannot be a method's name: expected lower-case letters, digits and single underscores, "
            "beginning with a letter, such as two_exits."
        )
    if name in methods.names():
        origin = next(origin for origin in methods.origins() if origin.name == name)
        raise UserError(f"method '{name}' exists already in {origin}. Choose another name.")


def plugin_files(name: str, kind: str) -> dict[Path, str]:
    """The text of each file of the plugin, by its path in the destination, the method first."""
    words = name.split("_")
    values = {
        "name": name,
        "class_name": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "module": f"anytime_bench_{name}",
        "distribution": f"anytime-bench-{name.replace('_', '-')}",
    }
    if kind == "file":
        templates = {Path(f"{name}.py"): "method.py.txt"}
    else:
        templates = {
            Path(values["module"]) / "__init__.py": "method.py.txt",
            Path("pyproject.toml"): "pyproject.toml.txt",
            Path("tests") / f"test_{name}.py": "test_method.py.txt",
            Path("README.md"): "README.md.txt",
        }
    folder = files("anytime_bench.methods") / "templates"
    return {path: Template((folder / text).read_text("utf-8")).substitute(values) for path, text in templates.items()}


def _umask() -> int:
    # mkdtemp makes a folder for its owner alone; only setting the mask tells what it is.
    mask = os.umask(0)
    os.umask(mask)
    return mask
