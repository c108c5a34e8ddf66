"""Under what conditions the times on which a board ranks were taken: those of other conditions have another board.

Threads count on a CPU alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, fields

from anytime_bench.records.record import Record


@dataclass(frozen=True, order=True)
class Conditions:
    """Of the first batch size, the headline. ``engine`` is the one asked for, ``threads`` 0 where none count."""

    batch: int = 1
    precision: str = "fp32"
    cache: str = "warm"
    engine: str = "auto"
    threads: int = 0

    @property
    def usual(self) -> bool:
        """Whether these are the conditions of a headline: one image, full precision, nothing flushed."""
        return (self.batch, self.precision, self.cache) == (1, "fp32", "warm")

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"batch {self.batch}, {self.precision}, {self.cache} cache, engine {self.engine}{threads}"

    def unlike(self, others: Collection[Conditions]) -> list[str]:
        """What tells these from ``others``, as parts of a file's name such as ``batch-64`` and ``threads-16``."""
        names = [field.name for field in fields(self)]
        return [
            f"{name}-{getattr(self, name)}"
            for name in names
            if any(getattr(other, name) != getattr(self, name) for other in others)
        ]


def conditions_of(record: Record) -> Conditions | None:
    """Those in force while the clock ran; None for a record without times."""
    if record.timing is None:
        return None
    meta = record.timing.meta
    return Conditions(
        batch=meta.batch_sizes[0],
        precision=meta.precision,
        cache=meta.cache,
        engine=meta.engine_requested or "auto",
        threads=0 if meta.device.startswith("cuda") else meta.threads,
    )


def placed(records: Iterable[tuple[Hashable, Hashable, Record]]) -> dict[str, Conditions]:
    """The conditions among which each record stands, by id, of ``(group, row, record)``.

    A record without times can be compared to all: it stands where most of its row's seeds with times do, else where
    most of its group's records do.
    """
    listed = [(group, row, record, conditions_of(record)) for group, row, record in records]
    known: dict[Hashable, Counter[Conditions]] = defaultdict(Counter)
    for group, row, _, conditions in listed:
        if conditions is not None:
            known[group][conditions] += 1
            known[group, row][conditions] += 1

    def most(group: Hashable, row: Hashable) -> Conditions:
        counts = known.get((group, row)) or known.get(group) or Counter([Conditions()])
        return max(counts, key=lambda each: (counts[each], each.usual, each))

    return {
        record.record_id: most(group, row) if conditions is None else conditions
        for group, row, record, conditions in listed
    }
