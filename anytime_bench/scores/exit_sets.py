"""What being anytime adds: against one fixed exit, against the exits worth asking for, against static nets.

Three ways to use a row whose answer k alone costs ``prefix[k]`` and whose answer k after all earlier ones costs
``run_through[k]``:

- *every exit* is asked for: the anytime curve of ``scores.curve``;
- *one fixed exit*: chance until ``prefix[k]``, then answer k for good. No interruption before it has an answer, and
  none after it a better one, but nothing is spent on answers on the way;
- *an exit set*: only the exits of the set are asked for. Passing exit i without asking saves its emission (its head,
  and what the method does for nothing else), ``emission[i] = (run_through[i+1] - prefix[i+1]) - (run_through[i] -
  prefix[i])``, so exit k of a set costs ``prefix[k] + sum of emission[i] over its earlier members``.

Where the deadline is *known*, the best single answer that fits is what one gets: of a row's exits, or of separately
trained static nets, whose envelope is what a practitioner without an anytime net has (``curve.envelope`` of
single answers, with their validation accuracies).

Every choice is made on validation accuracies; the areas that follow are ``chance + weights @ test accuracies``, so
their uncertainty is that of ``scores.moments``. Costs share one unit and one horizon; accuracies are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import exit_shares, settle

Floats = NDArray[np.float64]


def emissions(prefix: ArrayLike, run_through: ArrayLike) -> Floats:
    """What asking for each answer adds to every later one, ``(E,)``; 0 for the last, after which nothing comes.

    Measured times can make an emission negative; none is.

    >>> emissions([1.0, 2.0, 3.0], [1.0, 2.5, 4.5]).tolist()
    [0.5, 1.0, 0.0]
    """
    extra = np.asarray(run_through, dtype=np.float64) - np.asarray(prefix, dtype=np.float64)
    return np.append(np.maximum(np.diff(extra), 0.0), 0.0)


def set_costs(prefix: ArrayLike, run_through: ArrayLike, exits: Sequence[int]) -> Floats:
    """Cost of each exit of an increasing set, ``(len(exits),)``.

    >>> set_costs([1.0, 2.0, 3.0], [1.0, 2.5, 4.5], [0, 2]).tolist()
    [1.0, 3.5]
    """
    before = np.cumsum(emissions(prefix, run_through)[list(exits)])
    costs = np.asarray(prefix, dtype=np.float64)[list(exits)] + np.concatenate([[0.0], before[:-1]])
    return settle(costs)


def best_fixed_exit(prefix: ArrayLike, validation: ArrayLike, horizon: float, chance: float) -> int:
    """The exit with the largest area on its own, from ``validation (E,)`` accuracies; the earliest of equals.

    >>> best_fixed_exit([1.0, 2.0, 3.0], [0.5, 0.9, 0.95], horizon=4, chance=0.1)
    1
    """
    costs = np.minimum(np.asarray(prefix, dtype=np.float64), horizon)
    accuracy = np.asarray(validation, dtype=np.float64)
    return int(np.argmax(costs * chance + (horizon - costs) * accuracy))


def best_exit_set(
    prefix: ArrayLike, run_through: ArrayLike, validation: ArrayLike, horizon: float, chance: float
) -> list[int]:
    """The exits worth asking for: the set with the largest area, from ``validation (E,)`` accuracies.

    Exact. In a best set accuracies increase: an exit no better than its predecessor costs its emission for nothing.
    With the last exit l settled, the area is ``a_l H`` less what every step before it loses, ``(a_l - a_i)`` times its
    length, and the length of a step from i to j depends on i and j alone: so a shortest path, for each l.

    >>> best_exit_set([1.0, 2.0, 3.0], [1.0, 2.5, 4.5], [0.5, 0.6, 0.9], horizon=8, chance=0.1)  # 0.6 costs too much
    [0, 2]
    """
    alone = np.asarray(prefix, dtype=np.float64)
    accuracy = np.asarray(validation, dtype=np.float64)
    emission = emissions(prefix, run_through)
    best: list[int] = []
    best_area = chance * horizon
    for last in range(len(alone)):
        loss = np.full(last + 1, np.inf)
        via: list[list[int]] = [[] for _ in range(last + 1)]
        for j in range(last + 1):
            if j < last and accuracy[j] >= accuracy[last]:
                continue
            loss[j], via[j] = (accuracy[last] - chance) * alone[j], [j]
            for i in range(j):
                length = max(alone[j] - alone[i] + emission[i], 0.0)
                step = loss[i] + (accuracy[last] - accuracy[i]) * length
                if accuracy[i] < accuracy[j] and step < loss[j]:
                    loss[j], via[j] = step, [*via[i], j]
        area = accuracy[last] * horizon - loss[last]
        if area > best_area:
            best, best_area = via[last], area
    return best


def set_weights(prefix: ArrayLike, run_through: ArrayLike, exits: Sequence[int], horizon: float) -> Floats:
    """Weights ``(E+1,)`` of chance and of each exit's accuracy in the area of an exit set; they sum to 1.

    >>> set_weights([1.0, 2.0, 3.0], [1.0, 2.5, 4.5], [0, 2], horizon=7).tolist()
    [0.14285714285714285, 0.35714285714285715, 0.0, 0.5]
    """
    weights = np.zeros(len(np.asarray(prefix)) + 1)
    if not len(exits):
        weights[0] = 1.0
        return weights
    shares = exit_shares(set_costs(prefix, run_through, exits), horizon)
    weights[[0, *(k + 1 for k in exits)]] = shares
    return weights
