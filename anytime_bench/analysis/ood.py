"""Does the trace know out-of-distribution images better than the last exit alone? AUROCs, with their differences.

Own images are the task's test images, out-of-distribution ones another task's, run through the same model; labels are
not used. Three scores, all higher for own images:

- ``last_exit``: the last exit's maximum softmax probability, the usual baseline (Hendrycks and Gimpel, ICLR 2017);
- ``mean_confidence``: the mean over exits of the maximum softmax probability, which needs no fitting;
- ``trace_density``: log-density of the trace's confidences and answer changes under one Gaussian fitted on the
  validation split. It has never seen an out-of-distribution image.

Intervals are DeLong's (1988): AUROC is a mean over images of *placements*, so its variance needs no resampling.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from anytime_bench.analysis.results import Bounds, OODScores
from anytime_bench.scores.confidence import midranks
from anytime_bench.scores.intervals import LEVEL
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]


def trace_features(trace: Trace) -> Floats:
    """Label-free features ``(N, 3E-1)``: log-odds of confidence, squared norm, and whether the answer changed."""
    confidence = np.clip(np.asarray(trace.confidence, dtype=np.float64), 1e-3, 1 - 1e-3)
    changed = trace.predictions[1:] != trace.predictions[:-1]
    return np.concatenate([scipy.special.logit(confidence), trace.squared_norm.astype(np.float64), changed]).T


def ood_auroc(own: Trace, ood: Trace, val: Trace) -> OODScores:
    """AUROC of own images against ``ood`` ones for each score, and the trace's scores minus the last exit's; 0.5 is
    chance."""
    if not own.num_exits == ood.num_exits == val.num_exits:
        raise TraceError(
            f"ood_predictions: expected {own.num_exits} exits as on the own images, got {ood.num_exits} "
            f"(validation split: {val.num_exits})"
        )
    density = _fit_density(trace_features(val))
    scores = {
        "last_exit": [trace.confidence[-1].astype(np.float64) for trace in (own, ood)],
        "mean_confidence": [trace.confidence.mean(axis=0, dtype=np.float64) for trace in (own, ood)],
        "trace_density": [density(trace_features(trace)) for trace in (own, ood)],
    }
    placed = {name: placements(*pair) for name, pair in scores.items()}
    base_above, base_below = placed["last_exit"]
    gains = {
        f"{name}_minus_last_exit": _interval(placed[name][0] - base_above, placed[name][1] - base_below)
        for name in ("mean_confidence", "trace_density")
    }
    return OODScores(**{name: _interval(*pair) for name, pair in placed.items()}, **gains)


def placements(positive: ArrayLike, negative: ArrayLike) -> tuple[Floats, Floats]:
    """For each positive the share of negatives below it, and for each negative the share of positives above it.

    Ties count half; both vectors have the AUROC as their mean.

    >>> above, below = placements([0.9, 0.4], [0.5, 0.1])
    >>> above.tolist(), below.tolist()
    ([1.0, 0.5], [0.5, 1.0])
    """
    pos, neg = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if pos.ndim != 1 or neg.ndim != 1 or not (len(pos) and len(neg)):
        raise TraceError(f"scores: expected two non-empty vectors, got shapes {pos.shape} and {neg.shape}")
    ranks = midranks(np.concatenate([pos, neg]))
    above = (ranks[: len(pos)] - midranks(pos)) / len(neg)
    below = 1 - (ranks[len(pos) :] - midranks(neg)) / len(pos)
    return above, below


def _interval(above: Floats, below: Floats) -> Bounds:
    value = float(above.mean())
    variance = sum(float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.0 for part in (above, below))
    half = float(scipy.special.ndtri((1 + LEVEL) / 2) * np.sqrt(variance))
    return Bounds(value, value - half, value + half)


def _fit_density(features: Floats) -> Any:
    mean = features.mean(axis=0)
    # A feature that never varies on the validation split would make the covariance singular: a small ridge keeps it
    # invertible and lets any deviation in that feature count strongly.
    covariance = np.cov(features, rowvar=False).reshape(len(mean), len(mean)) + 1e-3 * np.eye(len(mean))
    return scipy.stats.multivariate_normal(mean, covariance).logpdf  # scipy imports its parts when they are used
