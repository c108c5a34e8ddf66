"""The joint moments of a board's rows, and what follows from accuracies alone: per exit, and which share is reached.

One pass over the traces gives them (``scores.joint``). Rows of the same trainings are paired by seed: those with the
same weights, or with the same last answers seed by seed, as a net has whose trunk was taken over frozen. Rows with
equal weights, equal answers and equal MACs are one network under two names, which a clock alone can tell apart; neither
is ever better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anytime_bench.leaderboard.rows import Row
from anytime_bench.scores.intervals import Interval
from anytime_bench.scores.joint import JointMoments
from anytime_bench.scores.variance import Spread, half_width

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reached:
    """The first exit with enough accuracy, and the first that may have it and the first that surely has it; None: no
    exit of the row."""

    exit: int | None
    earliest: int | None
    latest: int | None


class BoardMoments:
    """The rows of a board, their joint moments, and which pairs ``(R, R)`` are one network."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        pairs = [(i, j) for j in range(len(self.rows)) for i in range(j)]
        self._family = list(range(len(self.rows)))
        for i, j in pairs:
            if _same_weights(self.rows[i], self.rows[j]) or _same_last_answers(self.rows[i], self.rows[j]):
                joined, other = self._family[i], self._family[j]
                self._family = [joined if each == other else each for each in self._family]
        tables, guesses = [row.correct for row in self.rows], [row.guesses for row in self.rows]
        paired = [(i, j) for i, j in pairs if self.paired(i, j)]
        self.joint = JointMoments.of(tables, guesses, paired)
        self.one_network = np.eye(len(self.rows), dtype=bool)
        for i, j in paired:
            a, b = self.rows[i], self.rows[j]
            same = _same_weights(a, b) and np.array_equal(tables[i], tables[j]) and _same_macs(a, b)
            self.one_network[i, j] = self.one_network[j, i] = same

    def paired(self, a: int, b: int) -> bool:
        """Whether the seeds of two rows are the same trainings."""
        return self._family[a] == self._family[b]

    def accuracies(self, row: int) -> list[Interval]:
        """Accuracy of every exit."""
        exits = np.eye(self.rows[row].correct.shape[1])
        moments = self.joint.rows[row]
        return intervals(self.rows[row], moments.value(exits), moments.spread(exits))

    def reached(self, shares: Sequence[float], reference: int | float) -> list[list[Reached]]:
        """Per row and share: which exit reaches that share of the reference's final accuracy.

        ``reference`` is the number of the reference's row, or its accuracy where it has no row.
        """
        columns = np.eye(len(self.joint.between))
        own = np.tile(columns, (len(shares), 1))
        if isinstance(reference, int):
            last = columns[self.joint.columns[reference].stop - 1]
            value, spread = self.joint.score(own - np.repeat(shares, len(columns))[:, None] * last)
        else:
            value, spread = self.joint.score(own, -reference * np.repeat(shares, len(columns)))
        half = half_width(spread)
        table = np.stack([value, value + half, value - half]).reshape(3, len(shares), len(columns)) >= 0
        firsts = [[[_first(line[part]) for line in side] for part in self.joint.columns] for side in table]
        return [[Reached(*exits) for exits in zip(*row, strict=True)] for row in zip(*firsts, strict=True)]


def intervals(row: Row, value: Floats, spread: Spread) -> list[Interval]:
    """95 % intervals of scores of one row."""
    half = half_width(spread)
    seeds, images = len(row.seeds), row.n
    return [Interval(float(v), float(v - h), float(v + h), seeds, images) for v, h in zip(value, half, strict=True)]


def _same_weights(a: Row, b: Row) -> bool:
    return bool(a.weights) and a.weights == b.weights and a.seeds == b.seeds


def _same_last_answers(a: Row, b: Row) -> bool:
    """Whether the last exits are right about the same images in every seed; one that diverged has no answers."""
    known = np.isnan(a.guesses[:, -1])
    return (
        a.seeds == b.seeds
        and bool(known.any())
        and np.array_equal(known, np.isnan(b.guesses[:, -1]))
        and np.array_equal(a.correct[known, -1], b.correct[known, -1])
    )


def _same_macs(a: Row, b: Row) -> bool:
    return [exit_.macs for exit_ in a.record.exits] == [exit_.macs for exit_ in b.record.exits]


def _first(true: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(true)) if true.any() else None
