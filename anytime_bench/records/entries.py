"""From a store to groups: which records may stand in one ranking, and which count.

A *group* holds records of one task (name, version and data hash), one device class, one protocol version and one
reference model; nothing is ever compared across groups. Within a group records of one method with the same options,
origin, weights source and training recipe are seeds of one row.

Superseded records do not count; a correction says ``supersedes``, and the group's notes name both. That a store holds
no seed twice is for ``consistency`` to see; where a report shows such records all the same, a note says which counts.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.files import canonical_json
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.registry import origin_identity


@dataclass(frozen=True)
class Entry:
    """A record and where it lies."""

    path: Path
    record: Record

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def diverged(self) -> bool:
        """Whether this seed's training ended in NaN: it is a result of the row, whose answers are guesses."""
        return self.record.status == "failed" and self.record.training is not None

    def correct(self) -> NDArray[np.bool_]:
        """Whether exit k is right about test image n, ``(E, N)``, read from the ``.npz`` after its hash was checked."""
        names = ("test_labels", "test_predictions")
        arrays = store.load_arrays(self.path, self.record, names)
        shapes = [arrays[name].shape if name in arrays else () for name in names]
        if len(shapes[1]) != 2 or shapes[0] != shapes[1][1:]:
            raise UserError(f"the trace of record '{self.path}' cannot be scored: labels and predictions are {shapes}.")
        return np.asarray(arrays["test_predictions"] == arrays["test_labels"][None])


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
    rows: dict[str, list[Entry]] = field(default_factory=dict)
    absent: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """Of all rows."""
        return [entry for entries in self.rows.values() for entry in entries]


def superseded(records: Iterable[Record]) -> set[str]:
    """Ids of the records that another of them corrects. Only results replace results."""
    return {record.supersedes for record in records if record.supersedes and record.status == "ok"}


def group_key(record: Record) -> GroupKey:
    name = ""
    if record.reference:
        full = record.reference.costs
        name = f"{record.reference.method} of {full['macs']} MACs and {full['ticks']} ticks"
    return GroupKey(record.protocol_version, record.task.version, record.task.sha256, name)


def row_key(record: Record) -> str:
    """Records with the same key are seeds of one row."""
    parts = [
        record.method.name,
        origin_identity(record.method.origin),
        record.method.options,
        record.method.weights_from,
        record.method.starts_from,
        record.training.recipe_sha256 if record.training else "",
    ]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def groups(entries: Sequence[Entry]) -> list[Group]:
    """Entries by (task, device, key), in a stable order; the current group of a task and device comes last."""
    replaced = superseded(entry.record for entry in entries)
    by_key: dict[tuple[str, str, GroupKey], Group] = {}
    count: dict[tuple[str, str, GroupKey], int] = defaultdict(int)
    absent: list[Entry] = []
    for entry in sorted(entries, key=lambda e: (e.record.created, e.record.record_id)):
        record = entry.record
        if record.record_id in replaced:
            continue
        if record.status != "ok":
            absent.append(entry)
            continue
        place = (record.task.name, record.device, group_key(record))
        group = by_key.setdefault(place, Group(*place))
        if record.supersedes:
            group.notes.append(
                f"Record {record.record_id[:12]} supersedes {record.supersedes[:12]}, seed {entry.seed} of "
                f"{record.method.name}; both are kept."
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
                                               count[place], place[2]))  # fmt: skip
    result = [by_key[place] for place in ordered]
    for entry in absent:
        if entry.diverged:
            _count_diverged(entry, result)
        same = [g for g in result if (g.task, g.device) == (entry.record.task.name, entry.record.device)]
        for group in same[-1:]:
            group.absent.append(entry)
    for group in result:
        for seeds in group.rows.values():
            seeds.sort(key=lambda entry: entry.seed)
    return result


def _count_diverged(entry: Entry, groups: Sequence[Group]) -> None:
    """Make a diverged training a seed of its row: it is what a user would get, whatever a later attempt gave.

    Nothing was measured of it, so its reference is unknown: it counts in every group of its task, device and protocol.
    """
    record = entry.record
    key = (record.protocol_version, record.task.version, record.task.sha256)
    for group in groups:
        own = (group.key.protocol_version, group.key.task_version, group.key.task_sha256)
        seeds = group.rows.get(row_key(record))
        if (group.task, group.device, own) != (record.task.name, record.device, key) or seeds is None:
            continue
        other = next((each for each in seeds if each.seed == entry.seed), None)
        if other is None:
            seeds.append(entry)
        elif record.created < other.record.created and len(seeds) > 1:
            seeds[seeds.index(other)] = entry
            group.notes.append(
                f"Record {other.record.record_id[:12]} repeats seed {entry.seed} of {record.method.name}, which "
                f"diverged, and does not count: {record.record_id[:12]} does, with answers that are guesses."
            )


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
