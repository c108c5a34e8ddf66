"""How well each exit knows what it knows: NLL, Brier score, ECE, AUROC and AUGRC per exit.

All functions take the stored arrays of a trace, ``(E, N)``, cast to float64, and return ``(E,)``. Proper scores (NLL,
Brier) and rank scores (AUROC, AUGRC) may rank methods; ECE depends on its bins and is shown only.
Sources: ECE, Guo et al., ICML 2017; AUGRC, Traub et al., NeurIPS 2024.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ECE_BINS = 15


def nll(true_log_probability: ArrayLike) -> Floats:
    """Mean negative log-likelihood of the true class in nats, ``(E,)``.

    >>> nll([[0.0, -1.0]]).tolist()
    [0.5]
    """
    return -_table(true_log_probability).mean(axis=1)


def brier(true_log_probability: ArrayLike, squared_norm: ArrayLike) -> Floats:
    """Mean over images of the sum over classes of (p_c - [c is true])^2, in [0, 2], ``(E,)``.

    The sum equals ``|p|^2 - 2 p_true + 1``, so the full probability vectors are not needed.

    >>> brier(np.log([[0.5]]), [[0.5]]).round(12).tolist()  # p = (1/2, 1/2)
    [0.5]
    """
    return (_table(squared_norm) - 2 * np.exp(_table(true_log_probability)) + 1).mean(axis=1)


def ece(confidence: ArrayLike, correct: ArrayLike) -> Floats:
    """Expected calibration error: mean |accuracy - confidence| over equal-width bins weighted by size, ``(E,)``.

    A bin holds its lower edge; the last one also holds confidence 1.

    >>> ece([[0.9, 0.9]], [[True, False]]).round(12).tolist()
    [0.4]
    """
    conf, right = _table(confidence), _table(correct)
    exits, images = conf.shape
    edges = np.linspace(0, 1, ECE_BINS + 1)
    index = np.clip(np.searchsorted(edges, conf, side="right") - 1, 0, ECE_BINS - 1)
    index += ECE_BINS * np.arange(exits)[:, None]
    gap = np.bincount(index.ravel(), weights=(right - conf).ravel(), minlength=ECE_BINS * exits)
    return np.abs(gap).reshape(exits, ECE_BINS).sum(axis=1) / images


def auroc(score: ArrayLike, positive: ArrayLike) -> Floats:
    """Probability that a positive image scores above a negative one, ties counting half, ``(E,)``; NaN without both.

    >>> auroc([[0.9, 0.8, 0.3]], [[True, False, False]]).tolist()
    [1.0]
    """
    values, flags = np.atleast_2d(np.asarray(score, dtype=np.float64)), np.atleast_2d(np.asarray(positive, dtype=bool))
    positives = flags.sum(axis=1, dtype=np.float64)
    negatives = flags.shape[1] - positives
    ranks = np.stack([midranks(row) for row in values])
    wins = (ranks * flags).sum(axis=1) - positives * (positives + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((positives > 0) & (negatives > 0), wins / (positives * negatives), np.nan)


def midranks(values: Floats) -> Floats:
    """Place of each of ``values (N,)`` among them, from 1; equal ones share the mean of their places, ``(N,)``.

    As ``scipy.stats.rankdata``, which takes a second to import, in every command that reads a record.

    >>> midranks(np.array([0.5, 0.9, 0.5])).tolist()
    [1.5, 3.0, 1.5]
    """
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


def augrc(confidence: ArrayLike, correct: ArrayLike) -> Floats:
    """Area under the generalised risk-coverage curve: mean share of all images that are accepted and wrong, ``(E,)``.

    ``(1 - AUROC) a (1 - a) + (1 - a)^2 / 2`` with accuracy a (Traub et al. 2024, equation 7); lower is better.

    >>> augrc([[0.9, 0.1]], [[True, False]]).tolist()
    [0.125]
    """
    accuracy = _table(correct).mean(axis=1)
    # With all right or all wrong the first term is 0 whatever the AUROC.
    rank = np.nan_to_num(auroc(confidence, correct), nan=1.0)
    return (1 - rank) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2


def _table(values: ArrayLike) -> Floats:
    return np.atleast_2d(np.asarray(values, dtype=np.float64))
