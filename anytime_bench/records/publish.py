"""From ``runs/`` to ``results/``: verified records are copied, never moved or changed, and git is told by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.entries import Entry, duplicates, wrong_supersessions
from anytime_bench.records.verify import verify_paths


@dataclass(frozen=True)
class Published:
    """Files written, records that were there already, and the faults for which nothing was written."""

    files: tuple[Path, ...] = ()
    present: tuple[Path, ...] = ()
    faults: tuple[str, ...] = ()


def publish(paths: Sequence[Path], results: Path) -> Published:
    """Copy each record and its ``.npz`` below ``results`` if all of them hold, else nothing at all.

    The trace is written before the record and both appear whole, so a reader of ``results`` never meets half a record.
    Raises ``UserError`` where a file cannot be written.
    """
    faults = [fault for _, found in verify_paths(paths) for fault in found]
    if faults:
        return Published(faults=tuple(faults))
    new = [Entry(path, store.load(path)) for path in paths]
    known = [Entry(path, store.load(path)) for path in store.find(results)]
    ids = {entry.record.record_id for entry in known}
    fresh = [entry for entry in new if entry.record.record_id not in ids]
    between = duplicates([*known, *fresh]) + wrong_supersessions([*known, *fresh])
    if between:
        return Published(faults=tuple(between))
    written = []
    for entry in fresh:
        folder = store.record_folder(results, entry.record)
        sources = [entry.path.with_suffix(".npz"), entry.path] if entry.record.artifacts else [entry.path]
        for source in sources:
            target = folder / source.name
            try:
                store.write_atomically(target, source.read_bytes())
            except OSError as error:
                raise UserError(
                    f"cannot write '{target}': {error.strerror or error}. Free some space and publish again; "
                    "what was written is whole."
                ) from error
            written.append(target)
    present = tuple(entry.path for entry in new if entry.record.record_id in ids)
    return Published(tuple(written), present)
