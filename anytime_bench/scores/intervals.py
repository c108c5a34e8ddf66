"""Intervals and verdicts: how far a score would move with other test images and other training seeds.

Images are resampled with replacement (percentile bootstrap); the resampling is one matrix of multinomial weights, so
2,000 resamples of many scores are one matrix product. All scores of one call see the same resampled images, which is
what makes differences *paired*.

Seeds are few (2 to 5), and so few values cannot be bootstrapped: the percentile interval of five values covers far less
than it says. The seed's share of the variance is estimated from the (seed, image) table, with the part that is only
image noise taken out, and enters each resample as a Student-t draw with S-1 degrees of freedom. With one seed the
interval is about the trained weights at hand, not about the method, and ``seeds`` in the result says so.

Values are ``(S, N)``: seeds by images. Every function is deterministic for equal inputs and ``seed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]
Verdict = Literal["BETTER", "WORSE", "SAME", "AMBIGUOUS"]

RESAMPLES = 2000
LEVEL = 0.95
#: Rows of the weight matrix that are multiplied at once: bounds the memory of one product.
CHUNK = 250


@dataclass(frozen=True)
class Interval:
    """A value, its interval and how many seeds and images it rests on."""

    value: float
    low: float
    high: float
    seeds: int = 1
    images: int = 0


@dataclass(frozen=True)
class Difference:
    """``value`` is A minus B in the score's unit; ``verdict`` is about A."""

    value: float
    low: float
    high: float
    margin: float
    verdict: Verdict
    seeds: tuple[int, int] = (1, 1)
    images: int = 0


def accuracy_interval(correct: ArrayLike, level: float = LEVEL) -> Interval:
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
    z = float(special.ndtri((1 + level) / 2))
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

    Booleans are summed in float32, which is exact below 2^24 images, so their means are the same bits on any machine.
    """
    table = np.asarray(values)
    images = table.shape[1]
    exact = table.dtype == np.bool_ and images < 2**24
    columns = np.ascontiguousarray(table.T, dtype=np.float32 if exact else np.float64)
    weights = image_weights(images, resamples, seed)
    parts = [weights[i : i + CHUNK].astype(columns.dtype) @ columns for i in range(0, resamples, CHUNK)]
    return np.concatenate(parts).astype(np.float64) / images


def bootstrap_mean(values: ArrayLike, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL) -> Interval:
    """Mean of ``values (S, N)`` over seeds and images, with its interval.

    >>> interval = bootstrap_mean([[0.0, 1.0] * 50])
    >>> interval.value, interval.low < 0.5 < interval.high
    (0.5, True)
    """
    table = _table(values, "values")
    means = resampled_means(table.mean(axis=0)[None], resamples, seed)[:, 0] + seed_draws(table, resamples, seed, 0)
    low, high = percentiles(means, level)
    return Interval(float(table.mean()), low, high, *table.shape)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    margin: float = 0.005,
    higher_is_better: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Mean of ``a (Sa, N)`` minus mean of ``b (Sb, N)`` on the same N images, with interval and verdict.

    The images are paired, the seeds are not: seed 0 of one method has nothing in common with seed 0 of another.

    >>> paired_difference([[1, 1, 1, 0]], [[1, 1, 1, 0]]).verdict
    'SAME'
    """
    first, second = _table(a, "a"), _table(b, "b")
    if first.shape[1] != second.shape[1]:
        raise TraceError(f"a, b: unequal sample counts, {first.shape[1]} and {second.shape[1]} images")
    gap = first.mean(axis=0) - second.mean(axis=0)
    means = resampled_means(gap[None], resamples, seed)[:, 0]
    means += seed_draws(first, resamples, seed, 1) - seed_draws(second, resamples, seed, 2)
    low, high = percentiles(means, level)
    return Difference(
        float(gap.mean()),
        low,
        high,
        margin,
        verdict(low, high, margin, higher_is_better),
        (len(first), len(second)),
        len(gap),
    )


def verdict(low: float, high: float, margin: float, higher_is_better: bool = True) -> Verdict:
    """BETTER or WORSE if the interval excludes 0, else SAME if it lies within +-margin, else AMBIGUOUS.

    >>> verdict(0.01, 0.02, 0.005), verdict(-0.02, -0.01, 0.005), verdict(-0.004, 0.003, 0.005)
    ('BETTER', 'WORSE', 'SAME')
    >>> verdict(-0.02, 0.01, 0.005)
    'AMBIGUOUS'
    """
    if low > 0 or high < 0:
        return "BETTER" if (low > 0) == higher_is_better else "WORSE"
    return "SAME" if -margin <= low and high <= margin else "AMBIGUOUS"


def percentiles(resampled: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """The central ``level`` of resampled values ``(R,)``."""
    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def seed_variance(values: ArrayLike) -> float:
    """Variance of the method's expected score between seeds, from ``values (S, N)``; 0 with one seed.

    The two-way table value = mean + seed + image + rest gives it as the variance of the seeds' means less the part
    that the rest alone would cause, and never below 0.
    """
    table = _table(values, "values")
    seeds, images = table.shape
    if seeds < 2 or images < 2:
        return 0.0
    by_seed = table.mean(axis=1)
    rest = table - by_seed[:, None] - table.mean(axis=0)[None] + table.mean()
    rest_variance = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    return max(0.0, float(by_seed.var(ddof=1)) - rest_variance / images)


def seed_draws(table: Floats, resamples: int, seed: int, stream: int) -> Floats:
    """The seeds' part of each resample of the mean of ``table (S, N)``, ``(resamples,)``; 0 with one seed."""
    seeds = len(table)
    spread = np.sqrt(seed_variance(table) / seeds)
    if spread == 0:
        return np.zeros(resamples)
    return spread * np.random.default_rng([seed, 0x5EED, stream]).standard_t(seeds - 1, size=resamples)


def _table(values: ArrayLike, name: str) -> Floats:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise TraceError(f"{name}: expected (seeds, images) with at least one of each, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise TraceError(f"{name}: holds NaN or infinity")
    return table
