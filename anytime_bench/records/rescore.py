"""A record derived anew from its own ``.npz`` by today's scores: a new record beside it, which supersedes it.

No model, no data and no device take part. What was measured, counted and trained stays as it was, and so does the
protocol: new scores do not turn old measurements into those of another protocol. What today's suite derives is replaced
as a whole, and ``suite_version`` says by which version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anytime_bench.errors import DiskError, UserError
from anytime_bench.records import store
from anytime_bench.records.protocol import PROTOCOLS
from anytime_bench.records.record import SCHEMA_VERSION, Derived, Record
from anytime_bench.records.scoring import Arrays, derive_again, from_plugins
from anytime_bench.records.verify import differences, missing_plugins
from anytime_bench.scores.stopping_budgets import learn_rules, learned_from
from anytime_bench.trace.answers import Trace, TraceError


@dataclass(frozen=True)
class Rescored:
    """What became of one record: the new one's path, or None and why there is none; ``fault`` if that is an error."""

    path: Path
    made: Path | None = None
    reason: str = ""
    fault: bool = False


def rescore_all(paths: Sequence[Path], learn: bool = False) -> Iterator[Rescored]:
    """Rescore each record; one that cannot be says why and does not keep the others from it.

    Raises ``DiskError`` where a new record cannot be written.
    """
    for path in paths:
        try:
            yield rescore(path, learn)
        except DiskError:
            raise
        except UserError as error:
            yield Rescored(path, reason=str(error), fault=True)


def rescore(path: Path, learn: bool = False) -> Rescored:
    """Derive the record at ``path`` anew and store it beside the old one, if today's scores say anything else.

    With ``learn`` the stopping rules that learn do so where the record does not hold what they learned: some seconds,
    from the stored answers on the validation split. Raises ``UserError`` for what is no record, whose arrays cannot be
    scored, or that holds scores of a plugin that is not loaded.
    """
    record = store.load(path)
    if record.status != "ok":
        return Rescored(path, reason=f"record '{path}' has status {record.status}, so it has no scores.")
    try:
        store.refuse_superseded(path, record)
    except store.Superseded as error:
        return Rescored(path, reason=str(error))
    _check(path, record)
    arrays: Arrays = store.load_arrays(path, record)
    try:
        if learn:
            arrays = {**_learned(record, arrays), **arrays}
        derived = derive_again(record, arrays)
    except (TraceError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"record '{path}' cannot be rescored, its arrays give no scores: {error}") from error
    if _stored_form(path) == SCHEMA_VERSION and not _differs(record, derived):
        return Rescored(path, reason=f"record '{path}' states already what today's scores give.")
    root = (path if len(path.parents) > 3 else path.resolve()).parents[3]
    return Rescored(path, store.save_successor(root, record, derived, arrays))


def _check(path: Path, record: Record) -> None:
    """Raise ``UserError`` where a new record could not stand beside this one, or would say less."""
    folder = store.record_folder(Path(), record)
    if path.resolve().parent.parts[-3:] != folder.parts:
        raise UserError(f"record '{path}' belongs into a folder {folder}; move it there with its .npz first.")
    if record.protocol_version not in PROTOCOLS:
        raise UserError(
            f"record '{path}' was made by protocol {record.protocol_version}, this suite knows {', '.join(PROTOCOLS)}. "
            "Rescore it with a suite that knows it."
        )
    for line in missing_plugins(record).values():
        raise UserError(f"record '{path}': {line}.")


def _learned(record: Record, arrays: Arrays) -> Arrays:
    """What the rules that learn make of the stored answers, without those that have learned already."""
    assert record.reference is not None  # as every record with results has one
    cost = np.array([entry.macs for entry in record.exits], dtype=np.float64) / record.reference.costs["macs"]
    return learn_rules(Trace.from_arrays(arrays, "val"), cost, known=learned_from(arrays))


def _stored_form(path: Path) -> int:
    return int(json.loads(path.read_bytes())["schema_version"])


def _differs(record: Record, derived: Derived) -> bool:
    """Whether today's scores are other ones, beyond the last decimal, or come from other plugins."""
    old = record.model_dump(mode="json", exclude_none=True, include=set(Derived.model_fields))
    new = derived.model_dump(mode="json", exclude_none=True)
    return bool(differences(old, new, "") or differences(new, old, "") or record.added != from_plugins())
