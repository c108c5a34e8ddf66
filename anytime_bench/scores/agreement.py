"""Do two axes, horizons or tasks order the rows alike? Kendall's tau with an interval.

Tau is the share of pairs that both order alike less the share that they order differently (Kendall 1938): 1 for the
same order, -1 for the reverse. It is no mean over images, so its interval comes from ``joint_draws``: boards that
might as well have been measured, with other images, seeds and timing processes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from anytime_bench.scores.intervals import Interval, percentiles
from anytime_bench.scores.moments import Moments
from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]

DRAWS = 1000


def joint_draws(
    moments: Moments,
    weights: ArrayLike,
    constant: ArrayLike = 0.0,
    clock: ArrayLike = 0.0,
    clock_df: ArrayLike = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> Floats:
    """Scores ``(R, K)`` as they might have been: those with ``weights (K, C)``, moved in all ways that are uncertain.

    Images move them by a normal draw with the scores' joint covariance, seeds by a multivariate t, both the same for
    all scores; the clock by a t draw of variance ``clock (K,)`` for each alone.
    """
    table = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    rng = np.random.default_rng([seed, 0xD4A3])
    by_seed = moments.by_seed @ table.T
    seeds, count = by_seed.shape
    result = np.asarray(constant, dtype=np.float64) + np.tile(by_seed.mean(axis=0), (draws, 1))
    between = table @ moments.between @ table.T
    covariance = between / max(1, moments.images - 1) / moments.images
    if seeds > 1:
        rest = table @ moments.within @ table.T - seeds * between
        covariance = covariance - rest / (moments.images - 1) / moments.images / (seeds - 1) / seeds
        scale = np.sqrt(1 / (seeds * rng.chisquare(seeds - 1, size=(draws, 1))))
        result += scale * (rng.standard_normal((draws, seeds)) @ (by_seed - by_seed.mean(axis=0)))
    # The symmetric root is unique, so the draws do not depend on the eigenvectors that a library picks.
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    result += rng.standard_normal((draws, count)) @ (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    df = np.broadcast_to(np.maximum(np.asarray(clock_df, dtype=np.float64), 1.0), count)
    return result + rng.standard_t(df, size=(draws, count)) * np.sqrt(clock)


def kendall(a: ArrayLike, b: ArrayLike, draws_a: ArrayLike, draws_b: ArrayLike) -> Interval:
    """Tau between scores ``a (K,)`` and ``b (K,)`` of the same K >= 2 rows; its interval from their draws ``(R, K)``.

    The draws scatter around scores that scatter already, which can only lower an agreement; so the interval is widened
    to hold the value.

    >>> kendall([1, 2, 3], [1, 3, 2], [[1, 2, 3]] * 4, [[1, 3, 2], [1, 3, 2], [1, 2, 3], [1, 2, 3]]).value
    0.33333333333333337
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise TraceError(f"a, b: expected scores of the same two or more rows, got {first.shape} and {second.shape}")
    value = float(stats.kendalltau(first, second).statistic)
    if not np.isfinite(value):
        value = 0.0  # All rows tie on one side: neither order says anything about the other.
    i, j = np.triu_indices(len(first), 1)
    signs = [np.sign(table[:, i] - table[:, j]) for table in (np.asarray(draws_a, float), np.asarray(draws_b, float))]
    low, high = percentiles((signs[0] * signs[1]).mean(axis=1))
    return Interval(value, min(low, value), max(high, value))
