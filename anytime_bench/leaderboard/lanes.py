"""How parallel must hardware be? AUC@1 of every row on 1 to unlimited lanes, and from how many lanes a row keeps up.

The horizon is the time of the reference's full answer on one lane, for every number of lanes. Costs are means over a
row's records, and what they scatter by enters each interval. A row breaks even with a rival that is ahead of it on one
lane at the first stated number of lanes from which on it is never behind again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anytime_bench.leaderboard.moments import BoardMoments, intervals
from anytime_bench.leaderboard.row_parts import BreakEven, LaneScore, Parallel, mean_digits, mean_share
from anytime_bench.leaderboard.standing import estimate
from anytime_bench.records.axes import span_disturbances, span_unit
from anytime_bench.scores.curve import exit_shares, settle
from anytime_bench.scores.intervals import Interval

Floats = NDArray[np.float64]


def parallel_rows(moments: BoardMoments, names: Sequence[str]) -> list[Parallel | None]:
    """Per row of the board; None for a row whose records do not all hold parallel time."""
    areas = [_areas(moments, number) for number in range(len(moments.rows))]
    return [None if found is None else _parallel(moments, number, names, areas) for number, found in enumerate(areas)]


def _areas(moments: BoardMoments, number: int) -> dict[tuple[str, int], Interval] | None:
    """AUC@1 by number of lanes and cost of an edge."""
    row = moments.rows[number]
    blocks = [record.span for record in row.records]
    if any(block is None or len(block.lanes) != len(blocks[0].lanes) for block in blocks):  # type: ignore[union-attr]
        return None
    keys = [(str(line.lanes), line.edge_us) for line in blocks[0].lanes]  # type: ignore[union-attr]
    units = np.array([span_unit(record) for record in row.records])[:, None, None]
    times = np.array([[line.ready for line in block.lanes] for block in blocks if block]) * units  # (S, V, E)
    weights = np.stack([exit_shares(settle(costs), 1.0) for costs in times.mean(axis=0)])  # (V, 1 + E)
    own = moments.joint.rows[number]
    value = own.value(weights[:, 1:], weights[:, 0] * row.chance)
    spread = own.spread(weights[:, 1:])
    if len(times) > 1:
        answers = np.concatenate([[row.chance], own.means])
        by_record = np.array([[exit_shares(settle(costs), 1.0) @ answers for costs in each] for each in times])
        spread = spread.plus(by_record.var(axis=0, ddof=1) / len(times), len(times) - 1.0)
    return dict(zip(keys, intervals(row, value, spread), strict=True))


def _parallel(
    moments: BoardMoments, number: int, names: Sequence[str], areas: Sequence[dict[tuple[str, int], Interval] | None]
) -> Parallel:
    blocks = [record.span for record in moments.rows[number].records if record.span]
    own = areas[number] or {}
    real = [block.real_lanes for block in blocks if block.real_lanes]
    return Parallel(
        parallelism=mean_digits([block.work[-1].value / block.span[-1].value for block in blocks]),
        model_error=mean_digits([block.model_error.value for block in blocks]),
        dispatch=mean_share([block.dispatch_share for block in blocks]),
        two_lanes=mean_digits([each.gain.value for each in real]) if real else None,
        two_lanes_modelled=mean_digits([each.modelled for each in real]) if real else None,
        lanes=[
            LaneScore(lanes=lanes, edge_us=edge, auc_1=estimate(found, 0.0, 1.0))
            for (lanes, edge), found in own.items()
        ],
        break_even=[
            BreakEven(rival=name, edge_us=edge, lanes=_break_even(own, other, edge))
            for name, other in zip(names, areas, strict=True)
            if other is not None and other.keys() == own.keys()
            for edge in dict.fromkeys(edge for _, edge in own)
            if own["1", edge].value < other["1", edge].value
        ],
        disturbed=span_disturbances(moments.rows[number].records),
    )


def _break_even(own: dict[tuple[str, int], Interval], other: dict[tuple[str, int], Interval], edge: int) -> str:
    """The first number of lanes from which on ``own`` is never behind; ``never`` where there is none."""
    counts = [lanes for lanes, cost in own if cost == edge]
    behind = [place for place, lanes in enumerate(counts) if own[lanes, edge].value < other[lanes, edge].value]
    after = behind[-1] + 1 if behind else 0
    return counts[after] if after < len(counts) else "never"
