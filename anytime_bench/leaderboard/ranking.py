"""Every number of a board with its interval, and who is better than whom on which axis.

Every score is linear in the moments of the board (``leaderboard.moments``), so values, intervals, gaps and ranks at
every horizon follow in closed form. On measured axes the timing processes enter every
interval and every gap (``scores.measured``). Better and worse are corrected for all pairs of ranked rows of an axis
(``scores.verdicts``); ranks are intervals (``scores.ranks``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from anytime_bench.leaderboard.moments import BoardMoments, intervals
from anytime_bench.scores.curve import envelope, exit_shares
from anytime_bench.scores.exit_sets import best_exit_set, best_fixed_exit, set_weights
from anytime_bench.scores.horizons import GRID, holds_in
from anytime_bench.scores.intervals import Interval
from anytime_bench.scores.joint import JointMoments
from anytime_bench.scores.measured import clock_variance, clock_variance_along
from anytime_bench.scores.ranks import Standing, standing
from anytime_bench.scores.variance import Spread, half_width
from anytime_bench.scores.verdicts import apart

Floats = NDArray[np.float64]

ONE = GRID.index(1.0)


@dataclass(frozen=True)
class Uses:
    """How the exits of a row may be used on one axis, as validation would choose, and what each use is worth.

    ``weights (V, 1 + E)`` are of chance and of each exit: areas at the horizons of ``GRID``, then at horizon 1 the gain
    over the best fixed exit, the area of the best exit set, and its gain over asking for every exit.
    """

    fixed_exit: int
    exit_set: list[int]

    def weights(self, run_through: Floats, prefix: Floats) -> Floats:
        areas = exit_shares(run_through, GRID)
        fixed = set_weights(prefix, prefix, [self.fixed_exit], 1.0)
        thinned = set_weights(prefix, run_through, self.exit_set, 1.0)
        return np.vstack([areas, areas[ONE] - fixed, thinned, thinned - areas[ONE]])


@dataclass(frozen=True)
class RowScores:
    """One row on one axis: shares with 95 % intervals; ``areas`` at the horizons of ``GRID``, all else at horizon 1.

    ``gain_over_static`` is None where the board has no static nets, or the row is one; ``regret`` where fewer than two
    rows have comparable costs, so that there is no envelope to be behind.
    """

    areas: list[Interval]
    fixed_exit: int
    gain_over_fixed_exit: Interval
    exit_set: list[int]
    exit_set_area: Interval
    gain_of_exit_set: Interval
    gain_over_static: Interval | None
    regret: Interval | None


class AxisRanking:
    """The rows of a board that have costs on ``axis``; ``ranked`` are those that may have a rank, by their numbers."""

    def __init__(self, board: BoardMoments, axis: str) -> None:
        self.board, self.axis = board, axis
        self.chance = board.rows[0].chance if board.rows else 0.0
        self.numbers = [r for r, row in enumerate(board.rows) if axis in row.costs]
        self.ranked = [r for r in self.numbers if board.rows[r].unranked(axis) == ""]
        self.uses = {r: self._uses(r) for r in self.numbers}

    def _uses(self, number: int) -> Uses:
        row = self.board.rows[number]
        costs = row.costs[self.axis]
        return Uses(
            best_fixed_exit(costs.prefix, row.validation, 1.0, row.chance),
            best_exit_set(costs.prefix, costs.run_through, row.validation, 1.0, row.chance),
        )

    @cached_property
    def weights(self) -> dict[int, Floats]:
        """``Uses.weights`` at the rows' mean costs."""
        costs = {r: self.board.rows[r].costs[self.axis] for r in self.numbers}
        return {r: self.uses[r].weights(costs[r].run_through, costs[r].prefix) for r in self.numbers}

    @cached_property
    def clock(self) -> dict[int, tuple[Floats, float]]:
        """Variance ``(V,)`` of each row's scores that comes from its timing, and its degrees of freedom."""
        return {r: self._clock(r) for r in self.numbers}

    def _clock(self, number: int) -> tuple[Floats, float]:
        timing, uses = self.board.rows[number].costs[self.axis].timing, self.uses[number]
        if timing is None:
            return np.zeros(len(self.weights[number])), 0.0
        answers = np.concatenate([[self.chance], self.board.joint.rows[number].means])
        return clock_variance(
            timing, lambda run_through, prefix: uses.weights(run_through, prefix) @ answers
        ), timing.df

    @cached_property
    def scores(self) -> dict[int, RowScores]:
        """By row number."""
        regrets, static = self._regrets(), self._gains_over_static()
        result = {}
        for r in self.numbers:
            weights, moments = self.weights[r], self.board.joint.rows[r]
            value = moments.value(weights[:, 1:], weights[:, 0] * self.chance)
            estimates = intervals(self.board.rows[r], value, moments.spread(weights[:, 1:]).plus(*self.clock[r]))
            uses, areas = self.uses[r], estimates[: len(GRID)]
            gain, set_area, set_gain = estimates[len(GRID) :]
            result[r] = RowScores(
                areas, uses.fixed_exit, gain, uses.exit_set, set_area, set_gain, static.get(r), regrets.get(r)
            )
        return result

    def gaps(self, horizon: int) -> tuple[Floats, Spread]:
        """Gaps ``(K, K)`` of the ranked rows in AUC at ``GRID[horizon]``, and their spread, clocks included."""
        rows = [self.weights[r][horizon] for r in self.ranked]
        gaps, spread = self._joint.gaps([row[1:] for row in rows], [row[0] * self.chance for row in rows])
        clock = np.array([self.clock[r][0][horizon] for r in self.ranked])
        df = np.array([self.clock[r][1] for r in self.ranked])
        for variance, freedom in ((clock[:, None], df[:, None]), (clock[None], df[None])):
            spread = spread.plus(np.broadcast_to(variance, gaps.shape), np.broadcast_to(freedom, gaps.shape))
        return gaps, spread

    @cached_property
    def _joint(self) -> JointMoments:
        return self.board.joint.select(self.ranked)

    @cached_property
    def _one_network(self) -> NDArray[np.bool_]:
        return self.board.one_network[np.ix_(self.ranked, self.ranked)]

    @cached_property
    def verdicts(self) -> Standing:
        """Ranks and differences of the ranked rows at horizon 1."""
        return standing(*self.gaps(ONE), self._one_network)

    def better(self, horizon: int) -> NDArray[np.bool_]:
        """``(K, K)``: whether ranked row i is better than ranked row j at ``GRID[horizon]``."""
        gaps, spread = self.gaps(horizon)
        i, j = np.triu_indices(len(gaps), 1)
        decided, _ = apart(gaps[i, j], spread[i, j], self._one_network[i, j])
        result = np.zeros(gaps.shape, dtype=bool)
        result[i[decided], j[decided]] = True
        return (result | result.T) & (gaps > 0)

    @cached_property
    def orders(self) -> dict[tuple[int, int], tuple[float, float]]:
        """The range of horizons around 1 in which the first row of a pair is better than the second."""
        better = np.stack([self.better(h) for h in range(len(GRID))])
        ranges = {}
        for i, j in zip(*np.nonzero(better[ONE]), strict=True):
            reach = holds_in(better[:, i, j])
            if reach is not None:
                ranges[self.ranked[i], self.ranked[j]] = reach
        return ranges

    def _regrets(self) -> dict[int, Interval]:
        """Area of the envelope of all comparable rows and the row itself, less the row's own; none without two."""
        rows = self.board.rows
        if len(self._fair) < 2:
            return {}
        members = {r: (rows[r].costs[self.axis].run_through, rows[r].accuracy) for r in self._fair}
        everyone = self._envelope(members)
        own = {r: (rows[r].costs[self.axis].run_through, rows[r].accuracy) for r in self.numbers if r not in members}
        envelopes = {r: self._envelope({**members, r: own[r]}) if r in own else everyone for r in self.numbers}
        # No row is better than the envelope it is part of.
        return {
            r: Interval(max(0.0, -gain.value), max(0.0, -gain.high), max(0.0, -gain.low), gain.seeds, gain.images)
            for r, gain in self._gains_over(envelopes).items()
        }

    def _gains_over_static(self) -> dict[int, Interval]:
        """Area of each row, less that of the static nets whose best on validation fits a known deadline.

        A static net is a row with one exit. Fewer than two of them are no ladder, and give no gains.
        """
        rows = self.board.rows
        nets = {
            r: (rows[r].costs[self.axis].run_through, rows[r].validation)
            for r in self._fair
            if rows[r].correct.shape[1] == 1
        }
        best = self._envelope(nets)
        return self._gains_over({r: best for r in self.numbers if r not in nets}) if len(nets) > 1 else {}

    @property
    def _fair(self) -> list[int]:
        """Rows whose costs on this axis may be compared."""
        return [r for r in self.numbers if not self.board.rows[r].untimed(self.axis)]

    def _envelope(self, members: Mapping[int, tuple[Floats, Floats]]) -> _Envelope:
        """Of rows by number, with their costs and the accuracies by which the best is chosen."""
        joint = self.board.joint
        steps = envelope(list(members.values()), 1.0, self.chance)
        columns = np.concatenate(
            [np.zeros(0, int), *(np.arange(len(joint.between))[joint.columns[r]] for r in members)]
        )
        weights = np.zeros(1 + len(joint.between))
        weights[0], weights[1 + columns] = steps.shares[0], steps.shares[1:]
        slopes = np.zeros(len(joint.between))
        slopes[columns] = steps.slopes(joint.means[columns], self.chance)
        return _Envelope(tuple(members), weights, slopes)

    def _gains_over(self, envelopes: Mapping[int, _Envelope]) -> dict[int, Interval]:
        """Area of each row less that of its envelope, with what both owe to images, seeds and clocks."""
        joint = self.board.joint
        if not envelopes:
            return {}
        weights = np.stack([-each.weights for each in envelopes.values()])
        clocks = []
        for line, (r, best) in zip(weights, envelopes.items(), strict=True):
            columns = joint.columns[r]
            line[0] += self.weights[r][ONE][0]
            line[1:][columns] += self.weights[r][ONE][1:]
            slopes = -best.slopes
            before = np.concatenate([[self.chance], joint.rows[r].means[:-1]])
            arrived = self.board.rows[r].costs[self.axis].run_through < 1.0
            slopes[columns] += np.where(arrived, before - joint.rows[r].means, 0.0)
            clocks.append([(m, slopes[joint.columns[m]]) for m in dict.fromkeys([*best.members, r])])
        value, spread = joint.score(weights[:, 1:], weights[:, 0] * self.chance)
        for k, moved in enumerate(clocks):
            for m, slopes in moved:
                timing = self.board.rows[m].costs[self.axis].timing
                if timing is not None and slopes.any():
                    one = spread[k : k + 1].plus(clock_variance_along(timing, slopes), timing.df)
                    spread.student[k], spread.df[k] = one.student[0], one.df[0]
        half = half_width(spread)
        return {
            r: Interval(value[k], value[k] - half[k], value[k] + half[k], len(self.board.rows[r].seeds), joint.images)
            for k, r in enumerate(envelopes)
        }


@dataclass(frozen=True)
class _Envelope:
    """Rows taking part, weights ``(1 + C,)`` of chance and of all columns, and slopes ``(C,)`` along their costs."""

    members: tuple[int, ...]
    weights: Floats
    slopes: Floats
