"""The store: write-once, content-addressed files under ``<root>/<task>/<device>/<method>/<record id>.json``.

A record and its ``.npz`` appear whole or not at all: both are written to temporary files in the same folder,
flushed to disk and renamed, the record last, so that a reader who sees a record finds its trace. Writers never
overwrite, so any number of processes may write into one store at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from anytime_bench.errors import DiskError, UserError, make_room
from anytime_bench.files import is_record_file, npz_bytes, safe_name, write_all
from anytime_bench.records.archive import ArchiveError, read_npz
from anytime_bench.records.record import SCHEMA_VERSION, Artifact, Derived, Record, content_hash
from anytime_bench.records.schema1 import upgraded
from anytime_bench.records.scoring import from_plugins
from anytime_bench.records.stamp import now, suite_version

#: Levels of nested lists and dictionaries that a record may have; its own form has nine.
MAX_DEPTH = 32
#: Bytes of a record's JSON; those with noise take 0.3 MB.
MAX_RECORD = 64 * 2**20
_JSON = TypeAdapter(Any)


def record_folder(root: Path, record: Record) -> Path:
    """``<root>/<task>/<device>/<method>``, each name made safe for a path."""
    return root.joinpath(*map(safe_name, (record.task.name, record.device, record.method.name)))


def save(root: Path, record: Record, arrays: Mapping[str, NDArray[np.generic]]) -> Path:
    """Seal ``record``, write its ``.npz`` and then itself; returns the record's path. Existing files stay."""
    artifacts = dict(record.artifacts)
    data = npz_bytes(arrays) if arrays else b""
    folder = record_folder(root, record)
    if arrays:
        artifacts["trace"] = Artifact(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    # Validated again, because ``model_copy`` does not.
    sealed = Record.model_validate({**record.content(), "artifacts": artifacts}).sealed()
    path = folder / f"{sealed.record_id}.json"
    # The trace first, so that a reader who sees a record finds its trace.
    contents = {path.with_suffix(".npz"): data} if arrays else {}
    contents[path] = record_bytes(sealed.content())
    try:
        write_all({file: content for file, content in contents.items() if not file.exists()})
    except OSError as error:
        raise DiskError(
            f"cannot write the record to '{folder}': {error.strerror or error}. {make_room(error)} and repeat "
            "the command; run goes on with --resume from what was trained, or trains into another folder with --out."
        ) from error
    return path


def save_successor(
    root: Path, record: Record, derived: Derived, arrays: Mapping[str, NDArray[np.generic]], **changes: Any
) -> Path:
    """Store what ``record`` says with ``derived`` and ``arrays`` in place of its own, as a record that supersedes it.

    It names the suite and the plugins that derived it; ``changes`` replaces further fields. Returns its path.
    """
    made = {"supersedes": record.record_id, "created": now(), "suite_version": suite_version(), "added": from_plugins()}
    return save(root, Record.model_validate({**record.content(), **dict(derived), **made, **changes}), arrays)


class Superseded(UserError):
    """The record has a successor already; a second one would leave two for one seed."""


def refuse_superseded(path: Path, record: Record, root: Path | None = None) -> None:
    """Raise ``Superseded`` where a record beside the one at ``path``, or below ``root``, supersedes it already."""
    folders = {path.parent.absolute(): path.parent}
    if root is not None:
        folders.setdefault(record_folder(root, record).absolute(), record_folder(root, record))
    if other := next(filter(None, (successor(record, folder) for folder in folders.values())), None):
        raise Superseded(f"record '{path}' is superseded by '{other.name}' already. Give that one.")


def successor(record: Record, folder: Path) -> Path | None:
    """The record in ``folder`` that supersedes ``record``, if there is one."""
    for other in sorted(filter(is_record_file, folder.glob("*.json"))):
        # Most neighbours are others' seeds; reading them whole would take longer than what is asked.
        if record.record_id.encode() in other.read_bytes() and load(other).supersedes == record.record_id:
            return other
    return None


def record_bytes(content: Mapping[str, Any]) -> bytes:
    """A record's file. On one line: indentation made up a third of a record with noise, and nobody edits one."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def load(path: Path, *, judged: bool = False) -> Record:
    """Read and validate one record; whatever is not one raises ``UserError`` in one line.

    ``judged``: these bytes were read before by this suite, and only their form is looked at, in a third of the time.
    """
    text, data, record_id = _read_json(path, whole=not judged)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, bool) or version not in (1, SCHEMA_VERSION):
        raise UserError(f"record '{path}' has schema version {version!r:.20}; this suite reads 1 and {SCHEMA_VERSION}.")
    if not judged and data.get("record_id") != record_id:
        raise UserError(f"record '{path}' was altered: its content does not hash to its record id.")
    if path.stem != data.get("record_id"):
        raise UserError(f"record '{path}' is not named by its record id {data.get('record_id')}.")
    try:
        # By way of JSON, in which a strict reading takes lists for tuples; the order of keys is kept.
        record = Record.model_validate_json(json.dumps(upgraded(data)) if version == 1 else text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = _line(".".join(str(part) for part in first["loc"]))
        raise UserError(f"record '{path}' breaks the schema at '{field}': {_line(first['msg'])}.") from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"record '{path}' breaks schema 1: {type(error).__name__}, {_line(str(error))}.") from error
    record._path = path
    return record


def _read_json(path: Path, *, whole: bool = True) -> tuple[bytes, Any, str]:
    """A file, its JSON and the hash of that, if it is what a record may hold: no NaN or infinity, no lone surrogate, no
    key twice, no deep nesting. Without ``whole`` there is no hash and none of that is seen, in a fifth of the time."""
    try:
        if path.stat().st_size > MAX_RECORD:
            raise ValueError(f"larger than {MAX_RECORD // 2**20} MiB")
        text = path.read_bytes()
        if not whole:
            return text, _JSON.validate_json(text), ""
        data = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
        if _deeper(data, MAX_DEPTH):
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        return text, data, content_hash(data if isinstance(data, dict) else {"": data})
    except FileNotFoundError:
        raise UserError(f"record '{path}' does not exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        hint = "It may be truncated; remove it." if path.suffix == ".json" else "Expected a record, a file <id>.json."
        raise UserError(f"record '{path}' is not readable JSON ({error}). {hint}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two values for one key the reader sees the last, a person perhaps the first."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _line(text: str) -> str:
    """A quotation that fits a line."""
    return " ".join(text.split())[:200]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and dictionaries lie in one another more than ``levels`` deep."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels + 1):
        inner = [each.values() if type(each) is dict else each for each in layer]
        layer = [item for items in inner for item in items if type(item) is dict or type(item) is list]
        if not layer:
            return False
    return True


def load_arrays(path: Path, record: Record, names: Collection[str] | None = None) -> dict[str, NDArray[np.generic]]:
    """The arrays of the record at ``path``, after their hash was checked; only ``names`` where given."""
    if "trace" not in record.artifacts:
        raise UserError(f"record '{path}' has status {record.status} and no trace.")
    npz, artifact = path.with_suffix(".npz"), record.artifacts["trace"]
    try:
        data = npz.read_bytes()
    except FileNotFoundError:
        raise UserError(f"'{npz}', the trace of record '{path.name}', is missing.") from None
    except OSError as error:
        raise UserError(f"'{npz}', the trace of record '{path.name}', cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise UserError(f"'{npz}' was altered: it does not have the SHA-256 that record '{path.name}' names.")
    try:
        return read_npz(data, names)
    except ArchiveError as error:
        raise UserError(f"'{npz}', the trace of record '{path.name}', cannot be read: {error}.") from error


@dataclass(frozen=True)
class Stated:
    """What tells whether a record could be in conflict with another: test accuracy of every exit, id and seed."""

    record_id: str
    seed: int
    accuracies: tuple[float, ...]


def stated(path: Path) -> Stated:
    """What the record at ``path`` states of itself, without validation; nothing of what it does not."""
    _, content, _ = _read_json(path, whole=False)
    try:
        training, exits = content.get("training") or {}, content.get("exits") or ()
        accuracies = tuple(entry["accuracy"]["value"] for entry in exits)
        return Stated(content.get("record_id", ""), training.get("seed", 0), accuracies)
    except (AttributeError, KeyError, TypeError):
        return Stated("", 0, ())


def find(root: Path) -> Iterator[Path]:
    """Paths of all records below ``root``, in a stable order."""
    yield from sorted(filter(is_record_file, root.glob("*/*/*/*.json")))
