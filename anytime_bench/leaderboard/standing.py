"""A row's scores on one axis, and every pair of ranked rows, rounded into the board's models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from anytime_bench.leaderboard.board import Pair
from anytime_bench.leaderboard.moments import Reached
from anytime_bench.leaderboard.ranking import ONE, AxisRanking
from anytime_bench.leaderboard.row_parts import AxisScores, Reach, digits, share
from anytime_bench.leaderboard.rows import AxisCosts, Row
from anytime_bench.records.record import Estimate
from anytime_bench.scores.horizons import GRID
from anytime_bench.scores.intervals import Interval
from anytime_bench.scores.ranks import Rank

#: Shares of the reference's final accuracy, in percent, whose costs are shown.
SHARES = (50, 90, 95, 99)


def axis_scores(row: Row, ranking: AxisRanking, number: int, reached: Sequence[Reached] | None) -> AxisScores:
    scores, costs = ranking.scores[number], row.costs[ranking.axis]
    areas = [estimate(area, 0.0, 1.0) for area in scores.areas]
    static = scores.gain_over_static
    return AxisScores(
        auc_1=areas[GRID.index(1.0)],
        auc_2=areas[GRID.index(2.0)],
        curve=areas,
        place=_place(ranking, number),
        unranked=row.unranked(ranking.axis),
        regret=None if scores.regret is None else estimate(scores.regret, 0.0, 1.0),
        time_to={} if reached is None else {
            str(percent): _reach(costs, exits) for percent, exits in zip(SHARES, reached, strict=True)
        },
        fixed_exit=scores.fixed_exit,
        gain_over_fixed_exit=estimate(scores.gain_over_fixed_exit),
        exit_set=scores.exit_set,
        exit_set_auc_1=estimate(scores.exit_set_area, 0.0, 1.0),
        gain_of_exit_set=estimate(scores.gain_of_exit_set),
        gain_over_static=None if static is None else estimate(static),
        cost=[digits(value) for value in costs.run_through],
        cost_by_seed=[[digits(value) for value in seed] for seed in costs.by_seed],
    )  # fmt: skip


def _place(ranking: AxisRanking, number: int) -> Rank | None:
    return ranking.verdicts.ranks[ranking.ranked.index(number)] if number in ranking.ranked else None


def _reach(costs: AxisCosts, reached: Reached) -> Reach:
    """From exits to costs, whose own error over timing processes widens the interval."""
    error = np.zeros(len(costs.run_through)) if costs.timing is None else costs.timing.half_width
    ends = (reached.exit, 0), (reached.earliest, -1), (reached.latest, 1)
    value, low, high = (None if k is None else digits(costs.run_through[k] + side * error[k]) for k, side in ends)
    return Reach(value=value, low=low, high=high)


def pairs(ranking: AxisRanking, names: Sequence[str]) -> list[Pair]:
    """Every pair of ranked rows once, the better one first."""
    table, pairs = ranking.verdicts.differences, []
    order = sorted(range(len(ranking.ranked)), key=lambda i: -ranking.scores[ranking.ranked[i]].areas[ONE].value)
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            gap = table[i][j]
            if gap is not None:
                a, b = ranking.ranked[i], ranking.ranked[j]
                pairs.append(
                    Pair(
                        a=names[a],
                        b=names[b],
                        gap=estimate(Interval(gap.value, gap.low, gap.high)),
                        p=digits(gap.p),
                        verdict=gap.verdict,
                        seeds_needed=gap.seeds_needed,
                        horizons=ranking.orders.get((a, b)) or ranking.orders.get((b, a)),
                    )
                )
    return pairs


def estimate(interval: Interval, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Bounds are cut off where no value can lie, as those of a Student-t interval over few seeds may be."""
    low, high = max(interval.low, least), min(interval.high, most)
    return Estimate(value=share(interval.value), low=share(low), high=share(high))
