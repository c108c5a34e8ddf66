"""The store: write-once, content-addressed files under ``<root>/<task>/<device>/<method>/<record id>.json``.

A record and its ``.npz`` appear whole or not at all: both are written to temporary files in the same folder,
flushed to disk and renamed, the record last, so that a reader who sees a record finds its trace. Writers never
overwrite, so any number of processes may write into one store at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from anytime_bench.errors import UserError
from anytime_bench.files import file_sha256, is_record_file, npz_bytes, safe_name, write_atomically
from anytime_bench.records.record import SCHEMA_VERSION, Artifact, Record, content_hash


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
    sealed = Record.model_validate({**record.model_dump(), "artifacts": artifacts}).sealed()
    path = folder / f"{sealed.record_id}.json"
    try:
        if arrays and not path.with_suffix(".npz").exists():
            write_atomically(path.with_suffix(".npz"), data)
        if not path.exists():
            # On one line: indentation made up a third of a record with noise, and nobody edits one.
            content = sealed.model_dump(mode="json")
            text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            write_atomically(path, text.encode() + b"\n")
    except OSError as error:
        raise UserError(
            f"cannot write the record to '{folder}': {error.strerror or error}. "
            "Free some space or give another folder with --out; the checkpoint is kept, so --resume goes on from there."
        ) from error
    return path


def load(path: Path) -> Record:
    """Read and validate one record; wrong schema, unknown keys or a wrong id raise ``UserError``."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"record '{path}' does not exist.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"record '{path}' is not readable JSON ({error}). It may be truncated; remove it.") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"record '{path}' has schema version {version}; this suite reads version {SCHEMA_VERSION}.")
    try:
        record = Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"record '{path}' breaks the schema at '{field}': {first['msg']}.") from error
    if record.record_id != content_hash(data):
        raise UserError(f"record '{path}' was altered: its content does not hash to its record id.")
    if path.stem != record.record_id:
        raise UserError(f"record '{path}' is not named by its record id {record.record_id}.")
    record._path = path
    return record


def load_arrays(path: Path, record: Record, names: Collection[str] | None = None) -> dict[str, NDArray[np.generic]]:
    """The arrays of the record at ``path``, after their hash was checked; only ``names`` where given."""
    if "trace" not in record.artifacts:
        raise UserError(f"record '{path}' has status {record.status} and no trace.")
    artifact = record.artifacts["trace"]
    npz = path.parent / artifact.path if artifact.path else path.with_suffix(".npz")
    if not npz.is_file():
        raise UserError(f"'{npz}', the trace of record '{path.name}', is missing.")
    if file_sha256(npz) != artifact.sha256:
        raise UserError(f"'{npz}' was altered: it does not have the SHA-256 that record '{path.name}' names.")
    with np.load(npz, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if names is None or name in names}


def find(root: Path) -> Iterator[Path]:
    """Paths of all records below ``root``, in a stable order."""
    yield from sorted(filter(is_record_file, root.glob("*/*/*/*.json")))
