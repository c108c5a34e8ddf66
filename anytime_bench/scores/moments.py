"""The sums of correctness from which every linear score of a board, and its uncertainty, follows.

An area, an accuracy, the gain over a fixed exit, the regret to an envelope: all are ``chance + weights @ accuracies``
over the exits of one or several rows. So one pass over the traces is enough. Of C columns (the exits of all rows) it
takes the means per seed and two matrices of co-moments over images,

    between = sum_n (u_n - u)(u_n - u)'           u_n: mean over seeds of the columns on image n
    within  = sum_s sum_n (x_sn - x_s)(x_sn - x_s)'

and the variance of any score on any axis at any horizon is a quadratic form of them (``scores.variance``). Scores that
are compared must share the images in the same order: a difference of two scores is a score itself, and what images, and
seeds where they are shared, do to both cancels.

Correctness is 0 or 1, so all sums are integers below 2^24 and exact in float32: the same bits from every BLAS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.variance import Spread, from_sums
from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]

#: Integers below this are exact in float32, whatever the order in which they are added.
EXACT = 2**24


@dataclass(frozen=True)
class Moments:
    """Means ``by_seed (S, C)``, co-moments ``between (C, C)`` and ``within (C, C)``, over ``images`` images."""

    by_seed: Floats
    between: Floats
    within: Floats
    images: int

    @classmethod
    def of(cls, tables: Iterable[ArrayLike], replaced: ArrayLike | None = None) -> Moments:
        """From one table of correctness ``(C, N)`` per seed.

        ``replaced (S, C)``, where it is not NaN, stands for the mean of a column that has no answers: a training that
        diverged answers as a guess does, on every image alike. Its table must then be 0.

        >>> moments = Moments.of([[[1, 0, 1, 1], [1, 1, 1, 1]]])
        >>> moments.by_seed.tolist(), moments.between.tolist()
        ([[0.75, 1.0]], [[0.75, 0.0], [0.0, 0.0]])
        """
        arrays = [np.asarray(table) for table in tables]
        if not arrays or arrays[0].ndim != 2 or arrays[0].shape[1] == 0:
            raise TraceError("tables: expected one table of columns by images per seed, with at least one of each")
        for number, table in enumerate(arrays):
            if table.shape != arrays[0].shape:
                raise TraceError(
                    f"tables[{number}]: expected shape {arrays[0].shape} as in the first seed, got {table.shape}"
                )
        seeds, (columns, images) = len(arrays), arrays[0].shape
        number_type = np.float32 if images * seeds**2 < EXACT else np.float64
        counts = np.zeros((columns, images), number_type)
        products = np.zeros((columns, columns))
        by_seed = np.empty((seeds, columns))
        for seed, table in enumerate(arrays):
            values: NDArray[np.floating[Any]] = table.astype(number_type)
            counts += values
            products += values @ values.T
            by_seed[seed] = values.sum(axis=1, dtype=np.float64) / images
        together = by_seed.mean(axis=0)
        between = (counts @ counts.T).astype(np.float64) / seeds**2 - images * np.outer(together, together)
        within = products - images * (by_seed.T @ by_seed)
        if replaced is not None:
            other = np.asarray(replaced, dtype=np.float64)
            by_seed = np.where(np.isnan(other), by_seed, other)
        return cls(by_seed, between, within, images)

    @property
    def means(self) -> Floats:
        """Accuracy of every column over seeds and images, ``(C,)``."""
        means: Floats = self.by_seed.mean(axis=0)
        return means

    def value(self, weights: ArrayLike, constant: ArrayLike = 0.0) -> Floats:
        """``constant + weights @ means`` for weights ``(..., C)``."""
        return np.asarray(constant, dtype=np.float64) + np.asarray(weights, dtype=np.float64) @ self.means

    def spread(self, weights: ArrayLike) -> Spread:
        """Of each score with weights ``(..., C)`` on its own.

        >>> spread = Moments.of([[[1, 0, 1, 1], [1, 1, 1, 1]]]).spread([1.0, 0.0])
        >>> float(spread.normal)  # 0.75 / 3 / 4
        0.0625
        """
        table = np.asarray(weights, dtype=np.float64)
        between = ((table @ self.between) * table).sum(axis=-1)
        within = ((table @ self.within) * table).sum(axis=-1)
        return from_sums(np.moveaxis(table @ self.by_seed.T, -1, 0), between, within, self.images)

    def pairs(self, weights: ArrayLike, by_seed: ArrayLike = True) -> tuple[Floats, Spread]:
        """Gaps ``(K, K)``, row minus column, and their spread, of the K scores with weights ``(K, C)``.

        Images are always paired. ``by_seed (K, K)`` says which pairs are paired by seed too, so that what a seed does
        to both cancels: right for rows with the same weights. Where seeds of two rows are independent trainings, each
        row's own variance enters, with more degrees of freedom than their few differences have (Welch 1947).

        >>> gaps, _ = Moments.of([[[1, 0, 1, 1], [1, 1, 1, 1]]]).pairs([[1.0, 0.0], [0.0, 1.0]])
        >>> gaps.tolist()
        [[0.0, -0.25], [0.25, 0.0]]
        """
        table = np.asarray(weights, dtype=np.float64)
        means = self.by_seed @ table.T
        gaps = means[:, :, None] - means[:, None, :]
        between, within = table @ self.between @ table.T, table @ self.within @ table.T
        paired = from_sums(gaps, _of_gaps(between), _of_gaps(within), self.images)
        own = from_sums(means, np.diagonal(between), np.diagonal(within), self.images)
        count = len(table)
        apart = Spread(paired.normal, *(np.tile(part[:, None], (1, count)) for part in (own.student, own.df)))
        apart = apart.plus(np.tile(own.student, (count, 1)), np.tile(own.df, (count, 1)))
        return gaps.mean(axis=0), Spread(
            paired.normal,
            np.where(by_seed, paired.student, apart.student),
            np.where(by_seed, paired.df, apart.df),
        )


def _of_gaps(moments: Floats) -> Floats:
    """Sums of squares of all differences, ``(K, K)``, from the co-moments of the scores; never below 0."""
    own = np.diagonal(moments)
    return np.maximum(own[:, None] + own[None] - moments - moments.T, 0.0)
