"""Sets of classes that hold the true one with a stated chance, at every exit at once, and that only ever shrink.

A set at one exit is made by split conformal prediction: class c belongs to it where its probability is at least that of
the true class on all but a share of the validation images. Over exits such sets contradict each other: a class that one
exit has ruled out comes back at the next. So each of the E exits gets an E-th of the error, and an exit's *nested* set
is what its own set and those of all exits before have in common. By the union bound the true class is in the nested
sets of all exits at once with probability 1 - alpha: whenever the network is interrupted, the guarantee holds.

Sources: Vovk et al., "Algorithmic Learning in a Random World", 2005 (conformal sets); Jazbec et al., "Early-Exit Neural
Networks with Nested Prediction Sets", UAI 2024 (nested sets over exits, consistency). Jazbec et al. reach them by
confidence sequences of a Bayesian last layer; ours ask nothing of the network, so that every row can have them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

#: Share of images whose true class some exit's set may miss.
ALPHA = 0.1


def nested_sets(
    calibration: Floats, calibration_labels: Integers, logits: Floats, labels: Integers, alpha: float = ALPHA
) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Sets for logits ``(E, N, C)``, calibrated on logits ``(E, M, C)`` of other images with labels ``(M,)``.

    Returns the sizes of the nested sets and of each exit's own set, both ``(E, N)``, and whether the nested set holds
    the true class, ``(E, N)``. A nested set may be empty: then the exits have ruled out every class.
    """
    exits, _, classes = logits.shape
    small = np.uint8 if classes <= 255 else np.uint16
    index = np.asarray(labels, dtype=np.intp)[:, None]
    nested = np.ones(logits.shape[1:], dtype=np.bool_)
    sizes, own_sizes, covered = [], [], []
    for own_logits, seen_logits in zip(logits, calibration, strict=True):
        truth = np.take_along_axis(probabilities(seen_logits), np.asarray(calibration_labels, np.intp)[:, None], axis=1)
        own = probabilities(own_logits) >= threshold(truth[:, 0], alpha / exits)
        nested = nested & own
        sizes.append(nested.sum(axis=1))
        own_sizes.append(own.sum(axis=1))
        covered.append(np.take_along_axis(nested, index, axis=1)[:, 0])
    return np.stack(sizes).astype(small), np.stack(own_sizes).astype(small), np.stack(covered)


def threshold(truth: Floats, alpha: float) -> float:
    """The probability that a class needs so that a fresh image's true class has it with chance 1 - ``alpha``.

    ``truth (M,)`` holds the true class's probability on M other images. It is the k-th smallest of these with
    k = floor(alpha (M + 1)), and 0 (every class belongs to the set) where M is too small for such an ``alpha``.

    >>> threshold(np.linspace(0.1, 0.9, 9), 0.2)
    0.2
    """
    rank = math.floor(alpha * (len(truth) + 1) + 1e-9)
    return float(np.partition(truth, rank - 1)[rank - 1]) if rank >= 1 else 0.0


def probabilities(logits: Floats) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(np.asarray(logits, dtype=np.float64) - np.max(logits, axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
