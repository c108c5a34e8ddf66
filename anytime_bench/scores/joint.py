"""Scores that several rows have a part in: differences, regret to an envelope, gain over other nets.

All rows answered the same test images, so what an image does to all of them cancels in a difference: images are always
paired. Seeds are paired between rows with the same *weights*, where what a seed does to one it does to the other; their
difference is then a single table ``(S, N)`` (``scores.variance.spread_of``). Rows that merely use the same seed numbers
are independent trainings: each brings its own variance over seeds, with more degrees of freedom together than their
few differences would have (Welch 1947).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.moments import EXACT, Moments
from anytime_bench.scores.variance import Spread, from_sums
from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]

DRAWS = 1000


@dataclass(frozen=True)
class JointMoments:
    """Moments of R rows: each row's own, ``between (C, C)`` over the columns of all, and ``within`` of paired rows.

    ``within[i, j] (Ei, Ej)``, i < j, holds the co-moments of rows that are paired by seed; rows that are paired with a
    third one are paired with each other.
    """

    rows: tuple[Moments, ...]
    between: Floats
    within: dict[tuple[int, int], Floats]

    @classmethod
    def of(
        cls,
        tables: Sequence[NDArray[np.bool_]],
        replaced: Sequence[ArrayLike | None] | None = None,
        paired: Collection[tuple[int, int]] = (),
    ) -> JointMoments:
        """From the correctness ``(S, E, N)`` of every row; ``replaced`` as in ``Moments.of``; ``paired`` pairs i < j.

        >>> rows = JointMoments.of([np.ones((2, 1, 8), bool), np.zeros((2, 3, 8), bool)])
        >>> rows.gaps([[1.0], [0.0, 0.0, 1.0]])[0].tolist()
        [[0.0, 1.0], [-1.0, 0.0]]
        """
        images = {table.shape[2] for table in tables}
        if len(images) > 1:
            raise TraceError(f"tables: rows hold {sorted(images)} images, so they cannot be paired")
        rows = tuple(Moments.of(table, None if replaced is None else replaced[r]) for r, table in enumerate(tables))
        if not rows:
            return cls((), np.zeros((0, 0)), {})
        count = rows[0].images
        most = max(len(table) for table in tables)
        number_type = np.float32 if count * most**2 < EXACT else np.float64
        sums = np.concatenate([table.sum(axis=0, dtype=number_type) for table in tables])  # (C, N)
        seeds = np.repeat([len(table) for table in tables], [table.shape[1] for table in tables]).astype(np.float64)
        own = sums.sum(axis=1, dtype=np.float64) / seeds / count
        between = (sums @ sums.T).astype(np.float64) / np.outer(seeds, seeds) - count * np.outer(own, own)
        within = {}
        for i, j in paired:
            if len(tables[i]) != len(tables[j]):
                raise TraceError(f"tables: rows {i} and {j} cannot be paired, one has more seeds")
            within[i, j] = np.zeros((tables[i].shape[1], tables[j].shape[1]))
            for a, b in zip(tables[i].astype(number_type), tables[j].astype(number_type), strict=True):
                means = np.outer(a.sum(axis=1, dtype=np.float64), b.sum(axis=1, dtype=np.float64)) / count
                within[i, j] += (a @ b.T).astype(np.float64) - means
        return cls(rows, between, within)

    @property
    def images(self) -> int:
        return self.rows[0].images if self.rows else 0

    @cached_property
    def means(self) -> Floats:
        """Accuracy of every column, ``(C,)``."""
        return np.concatenate([np.zeros(0), *(row.means for row in self.rows)])

    @cached_property
    def columns(self) -> list[slice]:
        """Where each row's exits lie among the columns."""
        ends = np.cumsum([0, *(len(row.between) for row in self.rows)]).tolist()
        return [slice(first, last) for first, last in pairwise(ends)]

    def select(self, rows: Sequence[int]) -> JointMoments:
        """The moments of ``rows`` alone, in that order."""
        columns = [np.arange(len(self.between))[self.columns[r]] for r in rows]
        chosen = np.concatenate([np.zeros(0, dtype=np.intp), *columns])
        place = {r: new for new, r in enumerate(rows)}
        within = {}
        for (i, j), part in self.within.items():
            if i in place and j in place:
                first, second = place[i], place[j]
                within[min(first, second), max(first, second)] = part if first < second else part.T
        return JointMoments(tuple(self.rows[r] for r in rows), self.between[np.ix_(chosen, chosen)], within)

    def joined(self, weights: Sequence[ArrayLike]) -> Floats:
        """One score per row, weights ``(Er,)`` each, as rows of a block matrix ``(R, C)``."""
        blocks = np.zeros((len(self.rows), len(self.between)))
        for r, (part, columns) in enumerate(zip(weights, self.columns, strict=True)):
            blocks[r, columns] = part
        return blocks

    def score(self, weights: ArrayLike, constant: ArrayLike = 0.0) -> tuple[Floats, Spread]:
        """Value and spread of K scores with weights ``(K, C)`` over the columns of all rows.

        Rows that are paired count as one, so that what they share cancels.

        >>> table = np.random.default_rng(0).random((3, 2, 50)) < 0.5
        >>> same = JointMoments.of([table, table], paired=[(0, 1)])
        >>> float(same.score([[0.0, 1.0, 0.0, -1.0]])[1].variance.round(12)[0])
        0.0
        """
        table = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        squares = ((table @ self.between) * table).sum(axis=1) / max(1, self.images - 1)
        value = np.zeros(len(table)) + np.asarray(constant, dtype=np.float64)
        spread = Spread(np.zeros(len(table)), np.zeros(len(table)), np.zeros(len(table)))
        for moments, columns in self._families:
            part = table[:, columns]
            if not part.any():
                continue
            value = value + moments.value(part)
            own = moments.spread(part)
            spread = spread.plus(own.student, own.df)
            squares = squares - moments.rest(part)
        return value, Spread(np.maximum(squares, 0.0) / self.images, spread.student, spread.df)

    def gaps(self, weights: Sequence[ArrayLike], constant: ArrayLike = 0.0) -> tuple[Floats, Spread]:
        """Gaps ``(R, R)``, row minus column, of one score per row with weights ``(Er,)``, and their spread."""
        parts = [np.asarray(part, dtype=np.float64) for part in weights]
        count = len(parts)
        values = np.array([float(row.value(part)) for row, part in zip(self.rows, parts, strict=True)])
        values = values + np.asarray(constant, dtype=np.float64)
        own = [row.spread(part) for row, part in zip(self.rows, parts, strict=True)]
        student, df = (np.array([float(getattr(each, name)) for each in own]) for name in ("student", "df"))
        rest = np.array([float(row.rest(part)) for row, part in zip(self.rows, parts, strict=True)])
        table = self.joined(parts)
        between = _of_gaps(table @ self.between @ table.T)
        normal = np.maximum(between / max(1, self.images - 1) - rest[:, None] - rest, 0.0) / max(1, self.images)
        spread = Spread(normal, *(np.tile(part[:, None], (1, count)) for part in (student, df)))
        spread = spread.plus(np.tile(student, (count, 1)), np.tile(df, (count, 1)))
        for (i, j), within in self.within.items():
            first, second = self.rows[i], self.rows[j]
            cross = parts[i] @ within @ parts[j]
            squares = parts[i] @ first.within @ parts[i] + parts[j] @ second.within @ parts[j] - 2 * cross
            by_seed = first.by_seed @ parts[i] - second.by_seed @ parts[j]
            pair = from_sums(by_seed, between[i, j], np.maximum(squares, 0.0), self.images)
            for a, b in ((i, j), (j, i)):
                spread.normal[a, b], spread.student[a, b], spread.df[a, b] = pair.normal, pair.student, pair.df
        return values[:, None] - values, spread

    def draws(
        self,
        weights: Sequence[ArrayLike],
        constant: ArrayLike = 0.0,
        clock: ArrayLike = 0.0,
        clock_df: ArrayLike = 1.0,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Floats:
        """Boards that might as well have been measured, ``(draws, V, R)``: V scores of every row, weights ``(V, Er)``.

        Other images move all scores by one normal draw with their joint covariance; other seeds move the scores of a
        row, and of rows paired with it, by one multivariate t; another clock moves every score for itself, by a t draw
        of variance ``clock (V, R)`` with ``clock_df``.
        """
        rng = np.random.default_rng([seed, 0xD4A3])
        tables = [np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in weights]
        views, count = len(tables[0]), len(tables)
        result = np.stack([row.value(table) for row, table in zip(self.rows, tables, strict=True)], axis=1)
        result = np.broadcast_to(result + np.asarray(constant, dtype=np.float64), (draws, views, count)).copy()
        whole = np.zeros((count, views, len(self.between)))
        covariance = np.zeros((count, views, count, views))
        for r, (row, table, part) in enumerate(zip(self.rows, tables, self.columns, strict=True)):
            whole[r, :, part] = table
            covariance[r, :, r] -= row.rest_moments(table) / self.images
            result[:, :, r] += row.seed_draws(table, draws, np.random.default_rng([seed, 0x5EED, self.group(r)]))
        flat = whole.reshape(count * views, -1)
        between = flat @ self.between @ flat.T / max(1, self.images - 1) / self.images
        # The symmetric root is unique, so the draws do not depend on the eigenvectors that a library picks.
        values, vectors = np.linalg.eigh(between + covariance.reshape(between.shape))
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        moved = rng.standard_normal((draws, count * views)) @ root
        result += moved.reshape(draws, count, views).swapaxes(1, 2)
        df = np.broadcast_to(np.maximum(np.asarray(clock_df, dtype=np.float64), 1.0), (views, count))
        return result + rng.standard_t(df, size=(draws, views, count)) * np.sqrt(clock)

    @cached_property
    def _families(self) -> list[tuple[Moments, NDArray[np.intp]]]:
        """Rows that are paired with one another as one, and where their exits lie among the columns."""
        members: dict[int, list[int]] = {}
        for row in range(len(self.rows)):
            members.setdefault(self.group(row), []).append(row)
        places = np.arange(len(self.between))
        return [
            (self._together(rows), np.concatenate([places[self.columns[row]] for row in rows]))
            for rows in members.values()
        ]

    def _together(self, rows: Sequence[int]) -> Moments:
        if len(rows) == 1:
            return self.rows[rows[0]]
        columns = np.concatenate([np.arange(len(self.between))[self.columns[row]] for row in rows])
        within = np.block(
            [
                [self.rows[i].within if i == j else self.within[i, j] if i < j else self.within[j, i].T for j in rows]
                for i in rows
            ]
        )
        by_seed = np.concatenate([self.rows[row].by_seed for row in rows], axis=1)
        return Moments(by_seed, self.between[np.ix_(columns, columns)], within, self.images)

    def group(self, row: int) -> int:
        """The first row that ``row`` is paired with, or itself."""
        return min([row, *(i for i, j in self.within if j == row)])


def _of_gaps(moments: Floats) -> Floats:
    """Sums of squares of all differences, ``(R, R)``, from the co-moments of the scores; never below 0."""
    own = np.diagonal(moments)
    return np.maximum(own[:, None] + own - moments - moments.T, 0.0)
