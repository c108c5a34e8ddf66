"""A against B from their records: which records may be compared, and the paired differences of all their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.axes import comparable, exit_costs
from anytime_bench.records.conditions import conditions_of
from anytime_bench.records.entries import group_key, row_key, superseded
from anytime_bench.records.record import Record
from anytime_bench.records.verify import record_paths
from anytime_bench.scores.compare import Row, compare, score_matrices
from anytime_bench.scores.robustness import FairRow, fair_comparison
from anytime_bench.trace.answers import Trace, TraceError
from anytime_bench.trace.axes import counted, measured


@dataclass(frozen=True)
class Comparison:
    """Paired differences A - B, who they are, and why an axis is missing."""

    a: str
    b: str
    rows: list[Row]
    notes: list[str]
    #: Under transient noise: A's stateful policies against B pipelined and averaged, the same parallel hardware.
    noise: list[FairRow] = field(default_factory=list)


def compare_records(a: Path, b: Path) -> Comparison:
    """Compare two records, or two folders that each hold the seeds of one method.

    Raises ``UserError`` where the two are of different tasks, protocols or references, or answered other images.
    """
    sides = [_side(a), _side(b)]
    records = [record for side in sides for _, record in side]
    keys = {(record.task.name, group_key(record)) for record in records}
    if len(keys) > 1:
        listed = "; ".join(sorted(f"{task}, {key}" for task, key in keys))
        raise UserError(f"'{a}' and '{b}' cannot be compared, they belong to different groups: {listed}.")
    axes, notes = _axes(records)
    try:
        first, second = (_matrices(side, axes) for side in sides)
        rows = compare(first, second, by_seed=_same_trainings(*sides))
    except TraceError as error:
        raise UserError(f"'{a}' and '{b}' cannot be compared: {error}.") from error
    names = [f"{side[0][1].method.name}, {len(side)} seed{'s' if len(side) > 1 else ''}" for side in sides]
    return Comparison(names[0], names[1], rows, notes, _under_noise(*sides))


def _under_noise(a: Sequence[tuple[Path, Record]], b: Sequence[tuple[Path, Record]]) -> list[FairRow]:
    """Fair comparisons under a fresh frame per tick, where one record on each side was examined under noise."""
    if len(a) > 1 or len(b) > 1 or not all(record.robustness for _, record in (*a, *b)):
        return []
    ours, theirs = (store.load_arrays(*side[0]) for side in (a, b))
    followed = set(ours["noise_policy"].tolist())
    modes = set(ours["noise_mode"].tolist()) & set(theirs["noise_mode"].tolist())
    if "transient_1" not in modes:
        return []
    return [
        row
        for policy in ("watch", "watch_mean")
        if policy in followed
        for row in fair_comparison(ours, theirs, policy=policy)
    ]


def _side(path: Path) -> list[tuple[Path, Record]]:
    loaded = [(each, store.load(each)) for each in record_paths([path])]
    replaced = superseded(record for _, record in loaded)
    usable = [each for each in loaded if each[1].status == "ok" and each[1].record_id not in replaced]
    if not usable:
        raise UserError(f"'{path}' holds no record with results.")
    if len({row_key(record) for _, record in usable}) > 1:
        rows = {row_key(record): record.method for _, record in usable}
        names = sorted(f"{method.name} {method.options}" for method in rows.values())
        raise UserError(
            f"'{path}' holds records of {len(names)} methods, option sets or recipes: {'; '.join(names)}. "
            "Give one record, or a folder with the seeds of one method."
        )
    seeds = [record.training.seed for _, record in usable if record.training]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"'{path}' holds several records of one seed. Give the one record you mean.")
    return sorted(usable, key=lambda each: each[1].training.seed if each[1].training else 0)


def _same_trainings(a: Sequence[tuple[Path, Record]], b: Sequence[tuple[Path, Record]]) -> bool:
    """Whether seed by seed both sides have the same weights: what a seed does to one it then does to the other."""
    first, second = ([record.training.weights_sha256 for _, record in side if record.training] for side in (a, b))
    return first == second and all(first) and len(first) == len(a) == len(b)


def _axes(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Axes on which all records may be compared, and a note for each that is left out."""
    devices = sorted({record.device for record in records})
    if len(devices) > 1:
        return counted(), [f"times are left out: they come from different devices, {' and '.join(devices)}"]
    conditions = sorted({each for record in records if (each := conditions_of(record)) is not None})
    if len(conditions) > 1:
        return counted(), [f"times are left out: they were taken in several ways, {'; '.join(map(str, conditions))}"]
    unfair = {record.method.name: why for record in records for fair, why in [comparable(record)] if not fair}
    if unfair:
        listed = "; ".join(f"{name}: {why}" for name, why in unfair.items())
        return counted(), [f"times are left out: {listed}"]
    timed = [axis for axis in measured() if all(exit_costs(record, axis) for record in records)]
    return [*counted(), *timed], []


def _matrices(side: Sequence[tuple[Path, Record]], axes: Sequence[str]) -> Mapping[str, NDArray[np.float64]]:
    traces = [Trace.from_arrays(store.load_arrays(path, record), "test") for path, record in side]
    costs = [{axis: cost.relative for axis in axes if (cost := exit_costs(record, axis))} for _, record in side]
    return score_matrices(traces, costs, [dict.fromkeys(axes, 1.0)] * len(side))
