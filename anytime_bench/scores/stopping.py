"""Arithmetic of stopping: where a threshold, patience and the budgeted batch let images leave, and the oracle.

A *policy* leaves image n at exit ``exits[n]``; it is then right as that exit is and has paid that exit's cumulative
cost. The rules themselves are in ``simple_rules``, what they give for a budget in ``stopping_rules``.

Shapes: confidence, predictions, correct ``(E, N)``; cost ``(E,)``. No early stop here is measured (``simulated``).
Sources: patience, Zhou et al., NeurIPS 2020; budgeted batch, Huang et al., ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import check_cost

Floats = NDArray[np.float64]
Exits = NDArray[np.intp]

#: Thresholds of every sweep, from "leave at once" to "never leave early" (infinity, since a confidence may be 1).
GRID: Floats = np.concatenate([np.linspace(0, 0.99, 100), 1 - np.logspace(-2.2, -3.2, 6), [1.0, np.inf]])
#: Exit fractions of the budgeted batch are proportional to q^k for these q, as published.
BATCH_Q: Floats = np.arange(1, 40) / 20
#: Sentinels of the published code: nobody leaves, everybody leaves.
NOBODY, EVERYBODY = 1e8, -1e8


def exits_by_threshold(confidence: ArrayLike, threshold: float) -> Exits:
    """First exit with confidence >= threshold, else the last, ``(N,)``.

    >>> exits_by_threshold([[0.9, 0.2], [0.1, 0.3]], 0.5).tolist()
    [0, 1]
    """
    sure = np.asarray(confidence, dtype=np.float64) >= threshold
    sure[-1] = True
    return sure.argmax(axis=0)


def exits_by_patience(predictions: ArrayLike, patience: int) -> Exits:
    """First exit whose answer has been repeated ``patience`` times in a row, else the last, ``(N,)``.

    >>> exits_by_patience([[1, 1], [1, 2], [1, 2]], patience=1).tolist()
    [1, 2]
    """
    if patience < 1:
        raise ValueError(f"patience: expected at least 1, got {patience}")
    answers = np.asarray(predictions)
    run = np.zeros(answers.shape[1], dtype=np.intp)
    leave = np.full(answers.shape[1], len(answers) - 1)
    for k in range(1, len(answers)):
        run = np.where(answers[k] == answers[k - 1], run + 1, 0)
        leave = np.where((run >= patience) & (leave > k), k, leave)
    return leave


def outcome(exits: ArrayLike, correct: ArrayLike, cost: ArrayLike) -> tuple[float, float]:
    """Accuracy and mean cost of leaving image n at ``exits[n]``.

    >>> outcome([0, 1], [[1, 0], [1, 1]], [1.0, 3.0])
    (1.0, 2.0)
    """
    leave = np.asarray(exits, dtype=np.intp)
    right = np.asarray(correct)[leave, np.arange(len(leave))]
    return float(right.mean(dtype=np.float64)), float(check_cost(cost)[leave].mean())


@dataclass(frozen=True)
class Sweep:
    """Accuracy and mean cost for each threshold of a grid, all ``(T,)``."""

    thresholds: Floats
    accuracy: Floats
    cost: Floats


def sweep(confidence: ArrayLike, correct: ArrayLike, cost: ArrayLike, grid: ArrayLike = GRID) -> Sweep:
    """The confidence rule at every threshold of ``grid (T,)``, which must increase.

    Any ``(E, N)`` score that says "stop" when high serves as confidence.

    >>> result = sweep([[0.9, 0.2], [0.1, 0.3]], [[1, 0], [1, 1]], [1.0, 3.0], grid=[0.0, 0.5, 1.0])
    >>> result.accuracy.tolist(), result.cost.tolist()
    ([0.5, 1.0, 1.0], [1.0, 2.0, 3.0])
    """
    surest = np.maximum.accumulate(np.asarray(confidence, dtype=np.float64), axis=0)
    right, costs, thresholds = np.asarray(correct), check_cost(cost), np.asarray(grid, dtype=np.float64)
    exits, images = surest.shape
    # An image leaves at exit k for the thresholds numbered passed[k-1] .. passed[k]-1: one histogram of the ends of
    # these ranges replaces a pass over all images per threshold.
    passed = np.searchsorted(thresholds, surest, side="right")
    passed[-1] = len(thresholds)
    starts = np.concatenate([np.zeros((1, images), dtype=passed.dtype), passed[:-1]])
    hits = np.zeros(len(thresholds) + 1)
    spent = np.zeros(len(thresholds) + 1)
    for k in range(exits):
        for ends, sign in ((starts[k], 1.0), (passed[k], -1.0)):
            hits += sign * np.bincount(ends[right[k].astype(bool)], minlength=len(hits))
            spent += sign * costs[k] * np.bincount(ends, minlength=len(spent))
    return Sweep(thresholds, np.cumsum(hits[:-1]) / images, np.cumsum(spent[:-1]) / images)


def batch_thresholds(confidence: ArrayLike, q_grid: ArrayLike = BATCH_Q, *, as_published: bool = False) -> Floats:
    """Thresholds ``(Q, E)`` of MSDNet's budgeted batch from the confidences ``(E, N)`` of the validation split.

    Exit k is to take a fraction of the batch proportional to q^k. Exit by exit, the threshold is the confidence of the
    n-th surest validation image that has not left yet, n being the exit's fraction of the split rounded down. Where n
    is 0 nobody leaves. Where fewer than n images remain, all of them leave; the published code lets nobody leave there,
    which ``as_published`` keeps.
    """
    # Stored confidences are float16, whose every comparison would convert them anew.
    val = np.asarray(confidence, dtype=np.float64)
    order = np.argsort(-val, axis=1, kind="stable")
    return np.stack([_batch_thresholds(val, order, float(q), as_published) for q in np.asarray(q_grid)])


def _batch_thresholds(val: NDArray, order: Exits, q: float, as_published: bool) -> Floats:
    fractions = q ** np.arange(1, len(val) + 1)
    return share_thresholds(val, fractions / fractions.sum(), order=order, as_published=as_published)


def share_thresholds(
    score: NDArray, shares: Floats, *, order: Exits | None = None, as_published: bool = False
) -> Floats:
    """One threshold per exit ``(E,)`` at which the share ``shares[k]`` of the images leaves at exit k.

    ``score (E, N)`` is high where an image should leave; ``order`` are its images, highest first, if known.
    """
    exits, images = score.shape
    ranked = np.argsort(-score, axis=1, kind="stable") if order is None else order
    wanted = np.floor(images * shares).astype(int)
    thresholds = np.full(exits, NOBODY)
    thresholds[-1] = EVERYBODY
    left = np.zeros(images, dtype=bool)
    for k in range(exits - 1):
        staying = ranked[k][~left[ranked[k]]]
        if wanted[k] > 0 and len(staying) >= wanted[k]:
            thresholds[k] = score[k, staying[wanted[k] - 1]]
        elif wanted[k] > 0 and not as_published:
            thresholds[k] = EVERYBODY
        left |= score[k] >= thresholds[k]
    return thresholds


def oracle(correct: ArrayLike) -> Exits:
    """The cheapest exit that is right, or exit 0 where none is, ``(N,)``: no rule is more accurate at its cost.

    >>> oracle([[0, 0], [1, 0]]).tolist()
    [1, 0]
    """
    return np.asarray(correct, dtype=bool).argmax(axis=0)
