"""How far a board's order depends on the axis and on the horizon: Kendall's tau between any two of them.

An order is that of AUC over the rows that are ranked on both sides; ``scores.agreement`` says what tau and its interval
are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anytime_bench.leaderboard.board import Agreement
from anytime_bench.leaderboard.ranking import ONE, AxisRanking
from anytime_bench.leaderboard.standing import estimate
from anytime_bench.scores.agreement import kendall
from anytime_bench.scores.horizons import GRID

Floats = NDArray[np.float64]

#: Horizons whose order is compared with that at 1.
HORIZONS = (0.5, 2.0, 4.0)


def between_axes(axes: Sequence[AxisRanking]) -> list[Agreement]:
    """AUC@1 of every pair of axes of one board, over the rows that are ranked on both."""
    result = []
    for j, second in enumerate(axes):
        for first in axes[:j]:
            both = [r for r in first.ranked if r in second.ranked]
            result += _agreement([(first, ONE), (second, ONE)], both, [(first.axis, second.axis)])
    return result


def between_horizons(axis: AxisRanking) -> list[Agreement]:
    """AUC@1 against AUC at each of ``HORIZONS``, on one axis."""
    views = [(axis, ONE), *((axis, GRID.index(horizon)) for horizon in HORIZONS)]
    names = [(f"{axis.axis} at 1", f"{axis.axis} at {horizon:g}") for horizon in HORIZONS]
    return _agreement(views, axis.ranked, names)


def _agreement(
    views: Sequence[tuple[AxisRanking, int]], rows: Sequence[int], names: Sequence[tuple[str, str]]
) -> list[Agreement]:
    """The first view against each of the others, on the same draws."""
    if len(rows) < 2:
        return []
    values, draws = _draws(views, rows)
    return [
        Agreement(
            first=first,
            second=second,
            tau=estimate(kendall(values[0], values[v], draws[:, 0], draws[:, v])),
            rows=len(rows),
        )
        for v, (first, second) in enumerate(names, start=1)
    ]


def _draws(views: Sequence[tuple[AxisRanking, int]], rows: Sequence[int]) -> tuple[Floats, Floats]:
    """Values ``(V, K)`` of ``rows`` in every view, an axis at a horizon, and their draws ``(R, V, K)``."""
    board = views[0][0].board
    joint = board.joint.select(rows)
    weights = [np.stack([axis.weights[r][h] for axis, h in views]) for r in rows]
    constant = np.stack([table[:, 0] for table in weights], axis=1) * views[0][0].chance
    values = np.stack([board.joint.rows[r].value(table[:, 1:]) for r, table in zip(rows, weights, strict=True)], axis=1)
    clock = np.array([[axis.clock[r][0][h] for r in rows] for axis, h in views])
    df = np.array([[axis.clock[r][1] for r in rows] for axis, _ in views])
    draws = joint.draws([table[:, 1:] for table in weights], constant, clock, df)
    return values + constant, draws
