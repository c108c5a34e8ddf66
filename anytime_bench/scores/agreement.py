"""Do two axes, horizons or tasks order the rows alike? Kendall's tau with an interval.

Tau is the share of pairs that both order alike less the share that they order differently (Kendall 1938): 1 for the
same order, -1 for the reverse. It is no mean over images, so its interval comes from ``joint.JointMoments.draws``:
boards that might as well have been measured, with other images, seeds and timing processes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.intervals import Interval, percentiles
from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]


def kendall(a: ArrayLike, b: ArrayLike, draws_a: ArrayLike, draws_b: ArrayLike) -> Interval:
    """Tau between scores ``a (K,)`` and ``b (K,)`` of the same K >= 2 rows; its interval from their draws ``(R, K)``.

    The draws scatter around scores that scatter already, which can only lower an agreement; so the interval is widened
    to hold the value.

    >>> round(kendall([1, 2, 3], [1, 3, 2], [[1, 2, 3]] * 4, [[1, 3, 2], [1, 3, 2], [1, 2, 3], [1, 2, 3]]).value, 6)
    0.333333
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise TraceError(f"a, b: expected scores of the same two or more rows, got {first.shape} and {second.shape}")
    x, y = _order(first), _order(second)
    untied = np.sqrt((x @ x) * (y @ y))
    # Tau-b (Kendall 1945). Where all rows tie on one side, neither order says anything about the other.
    value = float(x @ y / untied) if untied else 0.0
    signs = _order(np.asarray(draws_a, dtype=np.float64)) * _order(np.asarray(draws_b, dtype=np.float64))
    low, high = percentiles(signs.mean(axis=-1))
    return Interval(value, min(low, value), max(high, value))


def _order(scores: Floats) -> Floats:
    """Which of each pair of rows is ahead, 1, -1 or 0 for a tie: ``(..., K)`` to ``(..., K (K - 1) / 2)``."""
    i, j = np.triu_indices(scores.shape[-1], 1)
    return np.sign(scores[..., i] - scores[..., j])
