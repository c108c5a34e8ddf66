"""Records with their traces, as all of this room reads them: ``load_answers``. Bad input raises ``UserError``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.axes import exit_costs
from anytime_bench.records.entries import row_key, superseded
from anytime_bench.records.record import Record
from anytime_bench.records.verify import record_paths
from anytime_bench.scores.stopping_budgets import PREFIX, learned_from
from anytime_bench.scores.trace_gru import PARTS, TraceGru
from anytime_bench.trace.answers import STORED, Trace, TraceError
from anytime_bench.trace.axes import counted

#: The arrays of a record's file that are read.
TEST, VAL = ([f"{split}_{name}" for name in STORED] for split in ("test", "val"))
LEARNED = [f"{PREFIX}{TraceGru.name}.{part}" for part in PARTS]


@dataclass(frozen=True)
class Answers:
    """A record with its traces and the cost of each exit ``(E,)`` in multiples of the reference's full answer."""

    path: Path
    record: Record
    test: Trace
    val: Trace
    cost: NDArray[np.float64]
    #: What the record stored of its trace GRU; empty where it learned none.
    gru: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        assert self.record.training is not None
        return self.record.training.seed


def load_answers(places: Sequence[Path], axis: str = "macs") -> list[Answers]:
    """The records among files and folders, without failed and superseded ones, by method and seed."""
    if axis not in counted():
        raise UserError(f"--axis '{axis}': expected {' or '.join(counted())}.")
    loaded = {path.resolve(): (path, store.load(path)) for path in record_paths(places)}
    replaced = superseded(record for _, record in loaded.values())
    usable = [
        (path, record)
        for path, record in loaded.values()
        if record.status == "ok" and record.training is not None and record.record_id not in replaced
    ]
    if not usable:
        raise UserError(f"'{', '.join(map(str, places))}' holds no record with results.")
    answers = [read_answers(path, record, axis) for path, record in usable]
    return sorted(answers, key=lambda a: (a.record.task.name, a.record.method.name, row_key(a.record), a.seed))


def read_answers(path: Path, record: Record, axis: str = "macs") -> Answers:
    """The traces of the ``record`` at ``path``."""
    arrays = store.load_arrays(path, record, [*TEST, *VAL, *LEARNED])
    costs = exit_costs(record, axis)
    if costs is None:
        raise UserError(f"record '{path}' has no cost of its reference in {axis}.")
    with naming(path):
        test, val = Trace.from_arrays(arrays, "test"), Trace.from_arrays(arrays, "val")
    gru = learned_from(arrays).get(TraceGru.name, {})
    return Answers(path, record, test, val, np.asarray(costs.relative), gru)


def trace_on_test(path: Path, record: Record) -> Trace:
    """A record's answers on the test split alone."""
    with naming(path):
        return Trace.from_arrays(store.load_arrays(path, record, TEST), "test")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A ``TraceError`` inside becomes the user's, with the record's path."""
    try:
        yield
    except TraceError as error:
        raise UserError(f"record '{path}': {error}.") from error
