"""What came of interrupting a row's models at deadlines, over its seeds: the promise of the curve held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anytime_bench.harness.deadline_summary import MODES, DeadlineBlock, Delivered, DeliveredPoint, Mode, verdict
from anytime_bench.leaderboard.row_parts import Interrupted, Served, ServedPoint, digits, share
from anytime_bench.leaderboard.speed import over_seeds
from anytime_bench.records.record import Record
from anytime_bench.scores.results import Estimate


def interrupted(records: Sequence[Record]) -> Interrupted | None:
    """Uniform deadlines, per mode; None where no record of the row was interrupted."""
    blocks = [record.deadlines for record in records if record.deadlines]
    if not blocks:
        return None
    return Interrupted(
        horizon=_mean([block.horizon for block in blocks]),
        draws=sum(block.row().draws for block in blocks),
        disturbed=list(dict.fromkeys(reason for block in blocks for reason in block.reasons)),
        modes=[_served(blocks, mode) for mode in MODES],
    )


def _served(blocks: Sequence[DeadlineBlock], mode: Mode) -> Served:
    rows = [block.row(mode) for block in blocks]
    difference = _estimate([row.difference for row in rows])
    return Served(
        mode=mode,
        delivered=_estimate([row.accuracy for row in rows]),
        promised=share(float(np.mean([row.promised for row in rows]))),
        difference=difference,
        verdict=verdict(difference),
        misses=share(float(np.mean([row.misses.value for row in rows]))),
        **_times(rows),
        points=[_point(parts) for parts in zip(*(block.points[mode] for block in blocks), strict=False)],
    )


def _times(rows: Sequence[Delivered]) -> dict[str, float]:
    return {
        "late_p50": _mean([row.lateness.p50 for row in rows]),
        "late_p99": _mean([row.lateness.p99 for row in rows]),
        "late_max": digits(max(row.lateness.max for row in rows)),
        "free_p99": _mean([row.release.p99 for row in rows]),
    }


def _point(parts: Sequence[DeliveredPoint]) -> ServedPoint:
    accuracies = [part.accuracy for part in parts]
    return ServedPoint(
        deadline=_mean([part.deadline for part in parts]),
        delivered=Estimate(
            value=share(float(np.mean([each.value for each in accuracies]))),
            low=share(float(np.mean([each.low for each in accuracies]))),
            high=share(float(np.mean([each.high for each in accuracies]))),
        ),
        promised=share(float(np.mean([part.promised for part in parts]))),
    )


def _estimate(values: Sequence[Estimate]) -> Estimate:
    """Over seeds; one seed has its own interval, over draws."""
    if len(values) > 1:
        return over_seeds([each.value for each in values])
    return Estimate(value=share(values[0].value), low=share(values[0].low), high=share(values[0].high))


def _mean(values: Sequence[float]) -> float:
    return digits(float(np.mean(values)))
