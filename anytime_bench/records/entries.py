"""From a store to groups: which records may stand in one ranking, and which count.

A *group* holds records of one task (name, version and data hash), one device class, one protocol version, one
reference model and one set of conditions of timing; nothing is ever compared across groups. Within a group records of
one method with the same options, origin, weights source and training recipe are seeds of one row.

Superseded records do not count; a correction says ``supersedes``, and the group's notes name both. That a store holds
no seed twice is for ``consistency`` to see; where a report shows such records all the same, a note says which counts.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.files import canonical_json
from anytime_bench.records import store
from anytime_bench.records.conditions import Conditions, placed
from anytime_bench.records.record import Record
from anytime_bench.registry import origin_identity

#: How the reason of a training that ended in NaN begins, and where a command states its seed.
DIVERGED = "the loss became "
SEED = re.compile(r"(?:--seed[ =]|\bseed=)(\d+)")


@dataclass(frozen=True)
class Entry:
    """A record and where it lies."""

    path: Path
    record: Record

    @property
    def seed(self) -> int:
        """Failures of schema 1 hold no training and state their seed in the command alone."""
        stated = None if self.record.training else SEED.search(self.record.command)
        return int(stated[1]) if stated else self.record.seed

    @property
    def diverged(self) -> bool:
        """Whether this seed's training ended in NaN: it is a result of the row, whose answers are guesses."""
        record = self.record
        return record.status == "failed" and (record.training is not None or record.reason.startswith(DIVERGED))

    def correct(self, split: str = "test", arrays: Mapping[str, NDArray[Any]] | None = None) -> NDArray[np.bool_]:
        """Whether exit k is right about image n of a split, ``(E, N)``; by default the ``.npz`` is read for it."""
        names = f"{split}_labels", f"{split}_predictions"
        held = store.load_arrays(self.path, self.record, names) if arrays is None else arrays
        shapes = [held[name].shape if name in held else () for name in names]
        if len(shapes[1]) != 2 or shapes[0] != shapes[1][1:]:
            raise UserError(f"the trace of record '{self.path}' cannot be scored: labels and predictions are {shapes}.")
        return np.asarray(held[names[1]] == held[names[0]][None])


def with_guesses(
    entries: Sequence[Entry], right: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Correctness ``(S, E, N)`` of all seeds, from that of the ones which did not diverge, in order; and ``(S, E)``
    what a diverged seed's guesses are worth, chance, where its part of the first table is 0; NaN elsewhere."""
    diverged = np.array([entry.diverged for entry in entries])
    correct = np.zeros((len(entries), *right[0].shape), dtype=np.bool_)
    correct[~diverged] = right
    chance = 1 / entries[0].record.task.classes
    return correct, np.where(diverged[:, None], chance, np.nan) + np.zeros(right[0].shape[0])


@dataclass(frozen=True, order=True)
class GroupKey:
    """What all records of one ranking share. Ordered so that the last one is the current one."""

    protocol_version: str
    task_version: str
    task_sha256: str
    reference: str

    def __str__(self) -> str:
        return (
            f"protocol {self.protocol_version}, task version {self.task_version} (data {self.task_sha256[:8]}), "
            f"reference {self.reference or 'unknown'}"
        )


@dataclass
class Group:
    """All records of one task, device and key, split by whether they count."""

    task: str
    device: str
    key: GroupKey
    conditions: Conditions
    rows: dict[str, list[Entry]] = field(default_factory=dict)
    absent: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def differs_in_timing_alone(self, other: Group) -> bool:
        return self.conditions != other.conditions and (self.task, self.device, self.key) == (
            other.task, other.device, other.key,
        )  # fmt: skip

    @property
    def entries(self) -> list[Entry]:
        """Of all rows."""
        return [entry for entries in self.rows.values() for entry in entries]


def superseded(records: Iterable[Record]) -> set[str]:
    """Ids of the records that another of them corrects. Only results replace results."""
    return {record.supersedes for record in records if record.supersedes and record.status == "ok"}


#: Of a group: task, device, key and conditions of timing.
Place = tuple[str, str, GroupKey, Conditions]


def group_key(record: Record) -> GroupKey:
    name = ""
    if record.reference:
        full = record.reference.costs
        name = f"{record.reference.method} of {full['macs']} MACs and {full['ticks']} ticks"
    return GroupKey(record.protocol_version, record.task.version, record.task.sha256, name)


def row_key(record: Record) -> str:
    """Records with the same key are seeds of one row."""
    parts = [*_method_key(record), record.training.recipe_sha256 if record.training else ""]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _method_key(record: Record) -> list[Any]:
    """All that tells rows apart but how they were trained."""
    method = record.method
    return [
        method.name, origin_identity(method.origin), method.options, method.weights_from, method.starts_from,
    ]  # fmt: skip


def groups(entries: Sequence[Entry]) -> list[Group]:
    """Entries by (task, device, key), in a stable order; the current group of a task and device comes last."""
    replaced = superseded(entry.record for entry in entries)
    by_key: dict[Place, Group] = {}
    count: dict[Place, int] = defaultdict(int)
    absent: list[Entry] = []
    counted = [entry for entry in entries if entry.record.record_id not in replaced]
    conditions = placed(
        ((record.task.name, record.device, group_key(record)), row_key(record), record)
        for record in (entry.record for entry in counted if entry.record.status == "ok")
    )
    for entry in sorted(counted, key=lambda e: (e.record.created, e.record.record_id)):
        record = entry.record
        if record.status != "ok":
            absent.append(entry)
            continue
        place = (record.task.name, record.device, group_key(record), conditions[record.record_id])
        group = by_key.setdefault(place, Group(*place))
        if record.supersedes:
            group.notes.append(
                f"Record {record.record_id[:12]} supersedes {record.supersedes[:12]}, seed {entry.seed} of "
                f"{record.method.name}, and counts in its place."
            )
        count[place] += 1
        seeds = group.rows.setdefault(row_key(record), [])
        earlier = next((other for other in seeds if other.seed == entry.seed), None)
        if earlier is None:
            seeds.append(entry)
        else:
            group.notes.append(
                f"Record {record.record_id[:12]} repeats seed {entry.seed} of {record.method.name} and does not count: "
                f"the first published one, {earlier.record.record_id[:12]}, does."
            )
    ordered = sorted(by_key, key=lambda place: (place[0], place[1], place[2].protocol_version, place[2].task_version,
                                               place[3].usual, count[place], place[2:]))  # fmt: skip
    result = [by_key[place] for place in ordered]
    for entry in absent:
        same = [group for group in result if _may_stand_in(entry.record, group)]
        if entry.diverged:
            _count_diverged(entry, same)
        for group in same[-1:]:
            group.absent.append(entry)
    for group in result:
        if not group.conditions.usual or any(group.differs_in_timing_alone(other) for other in result):
            group.notes.append(f"All times of this board were taken in one way: {group.conditions}.")
        for seeds in group.rows.values():
            seeds.sort(key=lambda entry: entry.seed)
    return result


def _may_stand_in(record: Record, group: Group) -> bool:
    """Whether a record without results is of the group: its reference and conditions of timing are unknown."""
    key = group.key
    mine = (record.task.name, record.device, record.protocol_version, record.task.version, record.task.sha256)
    return mine == (group.task, group.device, key.protocol_version, key.task_version, key.task_sha256)


def _count_diverged(entry: Entry, groups: Sequence[Group]) -> None:
    """Make a diverged training a seed of its row: it is what a user would get, whatever a later attempt gave.

    Nothing was measured of it, so its reference is unknown: it counts in each of ``groups`` that has the row.
    """
    record = entry.record
    name = f"Record {record.record_id[:12]}, seed {entry.seed} of {record.method.name},"
    for group in groups:
        rows = [seeds for seeds in group.rows.values() if _is_seed_of(entry, seeds)]
        if len(rows) != 1:
            if record.training is None:
                group.notes.append(
                    f"{name} diverged and states no recipe, and no single row has its command: none counts it."
                )
            continue
        (seeds,) = rows
        other = next((each for each in seeds if each.seed == entry.seed), None)
        if other is None:
            seeds.append(entry)
            if record.training is None:
                group.notes.append(
                    f"{name} diverged and states no recipe: it counts in the row whose command it shares."
                )
        elif record.training is None:
            group.notes.append(
                f"{name} diverged and states no recipe; {other.record.record_id[:12]} counts in its place."
            )
        elif record.created < other.record.created and sum(not each.diverged for each in seeds) > 1:
            seeds[seeds.index(other)] = entry
            group.notes.append(
                f"Record {other.record.record_id[:12]} repeats seed {entry.seed} of {record.method.name}, which "
                f"diverged, and does not count: {record.record_id[:12]} does, with answers that are guesses."
            )


def _is_seed_of(entry: Entry, seeds: Sequence[Entry]) -> bool:
    """Whether a diverged training is of the row of ``seeds``. One that states no recipe has the row's method and
    options, and but for the seed the command of another of its seeds."""
    mine = entry.record
    if mine.training is not None:
        return any(row_key(mine) == row_key(each.record) for each in seeds)
    return any(
        _method_key(mine) == _method_key(each.record) and _without_seed(mine) == _without_seed(each.record)
        for each in seeds
    )


def _without_seed(record: Record) -> str:
    return SEED.sub("", record.command)


def labels(records: Sequence[Record]) -> list[str]:
    """A name per row, by one record of each: the method's, with the options in which it differs from namesakes."""
    settings = [_settings(record) for record in records]
    result = []
    for record, own in zip(records, settings, strict=True):
        name = record.method.name
        others = [each for other, each in zip(records, settings, strict=True) if other.method.name == name]
        differing = [f"{key}={value}" for key, value in own.items() if any(each.get(key) != value for each in others)]
        if differing:
            result.append(f"{name} ({', '.join(differing)})")
        else:
            result.append(name if len(others) == 1 else f"{name} ({record.record_id[:8]})")
    return result


def _settings(record: Record) -> dict[str, Any]:
    """What tells a row from its namesakes: options, recipe, origin."""
    settings: dict[str, Any] = dict(record.method.options)
    if record.training is not None:
        for part in record.training.recipe.values():
            settings |= part if isinstance(part, dict) else {}
        settings["epochs"] = record.training.epochs
    settings["version"] = record.method.origin.get("version", "")
    settings["file"] = record.method.origin.get("sha256", "")[:8]
    return settings
