"""Intervals: how far a score would move with other test images and other training seeds.

Accuracies have Wilson's interval, means over seeds and images the closed form of ``scores.variance``. What is no mean
(AUROC, a rank correlation) is resampled over images: one matrix of multinomial weights, so that 2,000 resamples of many
scores are one matrix product.

Values are ``(S, N)``: seeds by images. Every function is deterministic for equal inputs and ``seed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.variance import LEVEL, checked_table, half_width, spread_of
from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]

RESAMPLES = 2000
#: Resamples that are drawn at once; another number draws others.
CHUNK = 250
#: Resamples that are multiplied at once: their weights as floats stay in a core's cache.
PRODUCT = 50


@dataclass(frozen=True)
class Interval:
    """A value, its interval and how many seeds and images it rests on."""

    value: float
    low: float
    high: float
    seeds: int = 1
    images: int = 0


def accuracy_interval(correct: ArrayLike) -> Interval:
    """Wilson's score interval for the accuracy of ``correct (N,)`` (Wilson 1927): closed form, right also near 0 and 1.

    >>> interval = accuracy_interval([1] * 9 + [0])
    >>> round(interval.low, 3), interval.value, round(interval.high, 3)
    (0.596, 0.9, 0.982)
    """
    right = np.asarray(correct)
    if right.ndim != 1 or len(right) == 0:
        raise TraceError(f"correct: expected a non-empty vector, got shape {right.shape}")
    n = len(right)
    p = float(right.mean(dtype=np.float64))
    # Written out: scipy's binomtest looks for a p-value first, which took a third of the time to verify a record.
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At p = 0 and p = 1 the bound is p exactly; rounding must not carry it past the value.
    return Interval(p, min(p, max(0.0, float(centre - half))), max(p, min(1.0, float(centre + half))), 1, n)


@lru_cache(maxsize=2)
def image_weights(images: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.uint8]:
    """How often each image is drawn in each resample, ``(resamples, images)``; rows sum to ``images``.

    >>> image_weights(5, resamples=3).sum(axis=1).tolist()
    [5, 5, 5]
    """
    rng = np.random.default_rng([seed, 0x1A6E])
    weights = np.empty((resamples, images), dtype=np.uint8)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = rng.integers(0, images, size=(rows, images)) + images * np.arange(rows)[:, None]
        weights[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)
    weights.flags.writeable = False
    return weights


def resampled_means(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Means of ``values (K, N)`` over images in every resample, ``(resamples, K)``.

    Whole numbers whose sums stay below 2^24 (booleans, small counts) are summed in float32, which is exact, so their
    means are the same bits on any machine.
    """
    table = np.asarray(values)
    images = table.shape[1]
    exact = table.dtype == np.bool_ or bool((table == np.rint(table)).all())
    exact = exact and images * max(1.0, float(np.abs(table).max(initial=0))) < 2**24
    columns = np.ascontiguousarray(table.T, dtype=np.float32 if exact else np.float64)
    weights = image_weights(images, resamples, seed)
    parts = [weights[i : i + PRODUCT].astype(columns.dtype) @ columns for i in range(0, resamples, PRODUCT)]
    return np.concatenate(parts).astype(np.float64) / images


def mean_interval(values: ArrayLike) -> Interval:
    """Mean of ``values (S, N)`` over seeds and images, with its interval (``scores.variance``).

    With one seed it is about the trained weights at hand, not about the method, and ``seeds`` says so.

    >>> interval = mean_interval([[0.0, 1.0] * 50])
    >>> round(interval.low, 3), interval.value, round(interval.high, 3)
    (0.402, 0.5, 0.598)
    """
    table = checked_table(values, "values")
    half = float(half_width(spread_of(table)))
    mean = float(table.mean())
    return Interval(mean, mean - half, mean + half, *table.shape)


def percentiles(resampled: ArrayLike) -> tuple[float, float]:
    """The central 95 % of resampled values ``(R,)``."""
    ((low, high),) = percentile_rows(np.asarray(resampled, dtype=np.float64)[None])
    return float(low), float(high)


def percentile_rows(resampled: Floats) -> Floats:
    """The central 95 % of every row of ``resampled (K, R)``: ``(K, 2)``."""
    ends: Floats = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1).T
    return ends
