"""What going on does to single images: overthinking, waste, improvability, falling probabilities, flips.

``correct`` and ``predictions`` are ``(E, N)``, costs ``(E,)``. Where a function returns one number per image, its mean
over images is the score and the images are what intervals resample.
Sources: overthinking, Kaya et al., ICML 2019; hindsight improvability, Wołczyk et al., NeurIPS 2021;
conditional monotonicity, Jazbec et al., NeurIPS 2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import check_cost

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: A fall of the true class's probability by more than this counts (Jazbec et al. 2023, figure 3, has 0.01 to 0.5).
FALL = 0.1


def destructive_overthinking(correct: ArrayLike) -> Flags:
    """Images that some earlier exit got right and the last one gets wrong, ``(N,)``.

    >>> destructive_overthinking([[1, 0], [0, 1]]).tolist()
    [True, False]
    """
    right = np.asarray(correct, dtype=bool)
    return right[:-1].any(axis=0) & ~right[-1]


def wasted_cost(correct: ArrayLike, cost: ArrayLike) -> Floats:
    """Share of the full cost spent after the first right answer, ``(N,)``; 0 where no exit is right.

    >>> wasted_cost([[1, 0, 0], [1, 1, 0]], [1.0, 4.0]).tolist()
    [0.75, 0.0, 0.0]
    """
    right = np.asarray(correct, dtype=bool)
    costs = check_cost(cost)
    return np.where(right.any(axis=0), 1 - costs[right.argmax(axis=0)] / costs[-1], 0.0)


def hindsight_improvability(correct: ArrayLike) -> Floats:
    """Per exit, the share of its wrong answers that some earlier exit had right, ``(E,)``; NaN where none is wrong.

    >>> hindsight_improvability([[1, 0, 0], [0, 1, 0]]).tolist()
    [0.0, 0.5]
    """
    right = np.asarray(correct, dtype=bool)
    before = np.zeros_like(right)
    before[1:] = np.logical_or.accumulate(right, axis=0)[:-1]
    wrong = (~right).sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(wrong > 0, (before & ~right).sum(axis=1) / np.maximum(wrong, 1), np.nan)


def largest_fall(true_log_probability: ArrayLike) -> Floats:
    """Largest drop of the true class's probability from an exit to any later one, ``(N,)``, at least 0.

    >>> largest_fall(np.log([[0.2, 0.9], [0.6, 0.5], [0.5, 0.7]])).round(6).tolist()
    [0.1, 0.4]
    """
    probability = np.exp(np.asarray(true_log_probability, dtype=np.float64))
    return (np.maximum.accumulate(probability, axis=0) - probability).max(axis=0)


def falls(true_log_probability: ArrayLike) -> Flags:
    """Images whose true class loses more than ``FALL`` in probability on the way, ``(N,)``.

    >>> falls(np.log([[0.2, 0.9], [0.6, 0.5], [0.55, 0.7]])).tolist()
    [False, True]
    """
    return largest_fall(true_log_probability) > FALL


def flips(predictions: ArrayLike) -> NDArray[np.intp]:
    """How often the answer changes from one exit to the next, ``(N,)``.

    >>> flips([[1, 1], [2, 1], [1, 1]]).tolist()
    [2, 0]
    """
    answers = np.asarray(predictions)
    return (answers[1:] != answers[:-1]).sum(axis=0)
