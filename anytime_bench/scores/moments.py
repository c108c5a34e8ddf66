"""The sums of correctness from which every linear score of a row, and its uncertainty, follows.

An area, an accuracy, the gain over a fixed exit: all are ``constant + weights @ accuracies`` over the exits of a row.
So one pass over its traces is enough. Of C columns (the exits) it takes the means per seed and two matrices of
co-moments over images,

    between = sum_n (u_n - u)(u_n - u)'           u_n: mean over seeds of the columns on image n
    within  = sum_s sum_n (x_sn - x_s)(x_sn - x_s)'

and the variance of any score on any axis at any horizon is a quadratic form of them (``scores.variance``). Scores of
several rows, such as their differences, are in ``scores.joint``.

Correctness is 0 or 1, so all sums are integers below 2^24 and exact in float32: the same bits from every BLAS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
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

    def rest(self, weights: ArrayLike) -> Floats:
        """Variance over images of each score's mean over seeds that is neither the image's nor the seed's; 0 with one.

        >>> float(Moments.of([[[1, 0, 1, 1]], [[1, 0, 1, 1]]]).rest([1.0]))
        0.0
        """
        table = np.asarray(weights, dtype=np.float64)
        return np.maximum(((table @ self._rest_moments) * table).sum(axis=-1), 0.0)

    def rest_moments(self, weights: ArrayLike) -> Floats:
        """The same as covariances ``(V, V)`` of V scores."""
        table = np.asarray(weights, dtype=np.float64)
        return table @ self._rest_moments @ table.T

    @cached_property
    def _rest_moments(self) -> Floats:
        seeds = len(self.by_seed)
        if seeds == 1 or self.images == 1:
            return np.zeros_like(self.between)
        return (self.within - seeds * self.between) / (seeds - 1) / (self.images - 1) / seeds

    def seed_draws(self, weights: ArrayLike, draws: int, rng: np.random.Generator) -> Floats:
        """What other seeds would add to V scores with weights ``(V, C)``: a multivariate t, ``(draws, V)``."""
        by_seed = self.by_seed @ np.asarray(weights, dtype=np.float64).T
        seeds = len(by_seed)
        if seeds == 1:
            return np.zeros((draws, by_seed.shape[1]))
        scale = 1 / np.sqrt(seeds * rng.chisquare(seeds - 1, size=(draws, 1)))
        result: Floats = scale * (rng.standard_normal((draws, seeds)) @ (by_seed - by_seed.mean(axis=0)))
        return result
