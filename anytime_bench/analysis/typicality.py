"""Are typical images answered earlier? Response time against typicality, as in the source paper's trace analysis.

The *typicality* of an image is the mean probability that reference nets of other seeds give its true class: it
does not depend on the net whose response time is studied. The *response time* is the cost of the first exit whose
confidence reaches a threshold, the last exit's where none does. Spearman's rank correlation relates the two; negative
means that typical images are answered earlier. Source: Iuzzolino et al., NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from anytime_bench.scores.compare import check_same_images
from anytime_bench.scores.intervals import Interval
from anytime_bench.scores.stopping import exits_by_threshold
from anytime_bench.scores.variance import LEVEL
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]

CONFIDENCE = 0.9
#: Groups of images that the jackknife leaves out one at a time.
GROUPS = 100


def typicality(others: Sequence[Trace]) -> Floats:
    """Mean probability of the true class at the last exit over ``others``, ``(N,)``: other seeds' reference nets."""
    if not others:
        raise TraceError("others: expected the trace of at least one reference net trained with another seed")
    for trace in others[1:]:
        check_same_images(others[0], trace)
    return np.mean([np.exp(trace.true_log_probability[-1].astype(np.float64)) for trace in others], axis=0)


def response_time(trace: Trace, cost: ArrayLike) -> Floats:
    """Cost of the first exit with confidence >= ``CONFIDENCE``, else of the last exit, ``(N,)``."""
    return np.asarray(cost, dtype=np.float64)[exits_by_threshold(trace.confidence, CONFIDENCE)]


def response_against_typicality(trace: Trace, others: Sequence[Trace]) -> Interval:
    """Spearman's correlation of response time and typicality over images, with its interval.

    NaN where all images respond at the same exit. Exits are ranked, so every increasing cost axis gives the same value.
    """
    typical = typicality(others)
    check_same_images(trace, others[0])
    return spearman(typical, exits_by_threshold(trace.confidence, CONFIDENCE))


def spearman(x: ArrayLike, y: ArrayLike) -> Interval:
    """Spearman's rank correlation of ``x (N,)`` and ``y (N,)``, ties at mid-rank, with its 95 % interval.

    The standard error is that of the delete-a-group jackknife (Kott, Journal of Official Statistics 17, 2001): images
    are dealt into ``GROUPS`` groups, and the correlation is taken without each. An image that is left out has weight 0,
    so ranks are running sums of weights and nothing is sorted again.

    >>> spearman([1, 2, 3, 4], [10, 20, 30, 40]).value
    1.0
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise TraceError(f"x, y: expected two vectors of one length, got shapes {first.shape} and {second.shape}")
    groups = min(GROUPS, len(first))
    group = np.random.default_rng([0, 0x6A0B]).permutation(len(first)) % groups
    weights = np.vstack([np.ones(len(first)), group != np.arange(groups)[:, None]]).astype(np.uint8)
    value, *without = _spearman(first, second, weights)
    known = np.array(without)[np.isfinite(without)]
    if not np.isfinite(value) or len(known) < 2:
        return Interval(float(value), np.nan, np.nan, 1, len(first))
    error = np.sqrt((len(known) - 1) / len(known) * ((known - known.mean()) ** 2).sum())
    half = float(special.stdtrit(len(known) - 1, (1 + LEVEL) / 2) * error)
    return Interval(float(value), max(-1.0, float(value) - half), min(1.0, float(value) + half), 1, len(first))


def _spearman(x: Floats, y: Floats, weights: NDArray[np.uint8]) -> Floats:
    """Correlation per row of ``weights (R, N)``, ``(R,)``."""
    # Sorted by x, tied images form runs; with few distinct y the cross term is one product with their indicators.
    order = np.argsort(x, kind="stable")
    _, starts = np.unique(x[order], return_index=True)
    levels, level = np.unique(y[order], return_inverse=True)
    w = weights[:, order].astype(np.float64)
    by_x = np.add.reduceat(w, starts, axis=1)
    rank_x = np.cumsum(by_x, axis=1) - by_x / 2
    runs = np.diff(np.append(starts, len(order)))
    weighted = w * np.repeat(rank_x, runs, axis=1)
    if len(levels) <= 64:
        indicator = np.zeros((len(order), len(levels)))
        indicator[np.arange(len(order)), level] = 1.0
        by_y, cross = w @ indicator, weighted @ indicator
    else:
        grouped = np.argsort(level, kind="stable")
        edges = np.searchsorted(level[grouped], np.arange(len(levels)))
        by_y = np.add.reduceat(w[:, grouped], edges, axis=1)
        cross = np.add.reduceat(weighted[:, grouped], edges, axis=1)
    rank_y = np.cumsum(by_y, axis=1) - by_y / 2
    n = w.sum(axis=1)
    mean_product = n * (n / 2) ** 2  # mid-ranks, counted from 0 at the left edge, have mean n/2
    covariance = (cross * rank_y).sum(axis=1) - mean_product
    spread_x = (by_x * rank_x**2).sum(axis=1) - mean_product
    spread_y = (by_y * rank_y**2).sum(axis=1) - mean_product
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((spread_x > 0) & (spread_y > 0), covariance / np.sqrt(spread_x * spread_y), np.nan)
