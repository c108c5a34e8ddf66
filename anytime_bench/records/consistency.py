"""Faults between the records of a store: one in the wrong place, one seed twice, one copied, a correction of another's.

No date decides anything: whoever writes a record writes its date. Where two records claim one seed of one row, both are
named and a person decides. Faults are one line each and begin with the record they are about.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.files import canonical_json
from anytime_bench.records import store
from anytime_bench.records.conditions import conditions_of
from anytime_bench.records.entries import Entry, group_key, row_key, superseded
from anytime_bench.records.judgements import Judgements
from anytime_bench.records.record import Record

#: Arrays of a split that hold what the exits answered; the labels are the task's.
ANSWERS = ("labels", "predictions", "true_log_probability", "true_rank")


def read_entries(root: Path) -> list[Entry]:
    """All records below ``root``, validated; raises ``UserError`` naming the first bad one or the first conflict."""
    judgements = Judgements()
    entries = [Entry(path, store.load(path, judged=judgements.of(path) is not None)) for path in store.find(root)]
    for fault in misplaced(root, entries) + conflicts(entries):
        raise UserError(fault)
    return entries


def conflicts(entries: Sequence[Entry], answers: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong between ``entries``. ``answers`` gives ``answers_sha256`` by record id, where it is known."""
    return [*duplicates(entries), *wrong_supersessions(entries), *repeated_seeds(entries)] + (
        same_answers(entries, answers) if answers else []
    )


def misplaced(root: Path, entries: Iterable[Entry]) -> list[str]:
    """One line per record that does not lie where its task, device and method say."""
    return [
        f"record '{entry.path}' belongs into '{folder}'; move it there with its .npz."
        for entry in entries
        if (folder := store.record_folder(root, entry.record)) != entry.path.parent
    ]


def duplicates(entries: Iterable[Entry]) -> list[str]:
    """One line per record whose trace another record already holds.

    A timed trace holds raw samples of a clock, so no two runs share one, whatever seed or options they claim. Untimed
    ones of one seed and one set of options are duplicates too.
    """
    seen: dict[tuple[str, ...], Entry] = {}
    faults = []
    for entry in _in_order(entries):
        record = entry.record
        if "trace" not in record.artifacts or record.status != "ok":
            continue
        untimed = () if record.timing else (str(entry.seed), canonical_json(record.method.options))
        key = (record.method.name, record.task.name, record.device, record.artifacts["trace"].sha256, *untimed)
        first = seen.get(key)
        if first is None or _corrects(entry, first):
            # A correction may be corrected in turn.
            seen[key] = entry
        else:
            faults.append(
                f"record '{entry.path}' is a duplicate of '{first.path.name}': same method, task, device and trace. "
                "Remove one."
            )
    return faults


def wrong_supersessions(entries: Sequence[Entry]) -> list[str]:
    """One line per record that supersedes a record of another row, seed or place, or that has no results itself."""
    by_id = {entry.record.record_id: entry for entry in entries}
    faults = []
    for entry in by_id.values():
        before = by_id.get(entry.record.supersedes or "")
        if before is None:
            continue
        line = f"record '{entry.path}' supersedes {before.path.name}, "
        if entry.record.status != "ok":
            faults.append(f"{line}but its own status is {entry.record.status}: only results replace results.")
        elif before.diverged:
            faults.append(
                f"{line}a training that diverged; a diverged seed counts and is never replaced. Publish the new one as "
                "another row, with other options or another recipe."
            )
        elif _row_and_seed(before) != _row_and_seed(entry):
            one, other = (" / ".join(map(str, _names(each))) for each in (before, entry))
            faults.append(
                f"{line}which is another row: {one} against {other}. A correction must be of the same method, options, "
                "recipe, task, device and seed."
            )
    return faults


def repeated_seeds(entries: Sequence[Entry]) -> list[str]:
    """One line per record of a row and seed that another record claims too, neither being a correction of the other.

    A training that diverged is a seed of its row, which older ones do not state, and knows no reference.
    """
    places: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
    replaced = superseded(entry.record for entry in entries)
    for entry in _in_order(entries):
        record = entry.record
        if record.record_id not in replaced and (record.status == "ok" or (entry.diverged and record.training)):
            places[_row_and_seed(entry)].append(entry)
    return [
        f"record '{later.path}' is seed {later.seed} of {later.record.method.name}, and so is '{first.path}'. A seed "
        "is run once: remove one of the two with its files (.json and .npz)."
        for same in places.values()
        for first, later in combinations(same, 2)
        if first.diverged or later.diverged or _alike(first.record, later.record)
    ]


def _alike(a: Record, b: Record) -> bool:
    """Whether one board would have to choose between two records of a seed, which may be timed in two ways."""
    timed = {conditions for record in (a, b) if (conditions := conditions_of(record)) is not None}
    return group_key(a) == group_key(b) and len(timed) < 2


def same_answers(entries: Iterable[Entry], answers: Mapping[str, str]) -> list[str]:
    """One line per record whose exits answer just as another's, with other weights or another seed.

    So a copy is seen whose times were altered. Rows that share weights and a seed may share answers: options may change
    only how a model is run.
    """
    seen: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    faults = []
    for entry in _in_order(entries):
        digest = answers.get(entry.record.record_id)
        if digest is None or entry.record.training is None:
            continue
        others = seen[entry.record.task.sha256, digest]
        copied = next((other for other in others if _cannot_agree(other, entry)), None)
        others.append(entry)
        if copied is not None:
            faults.append(
                f"record '{entry.path}' gives the very answers of '{copied.path}', which names another seed or other "
                "weights: one is a copy. Remove it."
            )
    return faults


def _cannot_agree(a: Entry, b: Entry) -> bool:
    """Whether two records with equal answers cannot both be true."""
    if _corrects(a, b) or _corrects(b, a) or a.record.training is None or b.record.training is None:
        return False
    if a.record.artifacts == b.record.artifacts and a.path.parent.parts[-3:] == b.path.parent.parts[-3:]:
        return False  # Reported as duplicates.
    return (a.seed, a.record.training.weights_sha256) != (b.seed, b.record.training.weights_sha256)


def answers_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """A hash of what the exits answered on both splits, whatever else a trace holds."""
    digest = hashlib.sha256()
    for split in ("val", "test"):
        for name in ANSWERS:
            array = arrays[f"{split}_{name}"]
            digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _corrects(a: Entry, b: Entry) -> bool:
    return a.record.supersedes == b.record.record_id


def _row_and_seed(entry: Entry) -> tuple[Any, ...]:
    record = entry.record
    return (
        record.protocol_version, record.task.name, record.task.version, record.task.sha256, record.device,
        row_key(record), entry.seed,
    )  # fmt: skip


def _names(entry: Entry) -> tuple[Any, ...]:
    record: Record = entry.record
    recipe = record.training.recipe_sha256[:8] if record.training else "no recipe"
    return (
        record.method.name, canonical_json(record.method.options), recipe, record.task.name, record.device, entry.seed,
    )  # fmt: skip


def _in_order(entries: Iterable[Entry]) -> list[Entry]:
    """By date; of one second, a correction after what it corrects."""
    listed = list(entries)
    by_id = {entry.record.record_id: entry for entry in listed}

    def corrections(entry: Entry) -> int:
        count = 0
        while (before := by_id.get(entry.record.supersedes or "")) is not None and count < len(listed):
            entry, count = before, count + 1
        return count

    return sorted(listed, key=lambda entry: (entry.record.created, corrections(entry), entry.record.record_id))
