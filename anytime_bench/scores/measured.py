"""What the clock adds to the uncertainty of a score: the same score from every timing process.

A measured axis is known from a few *processes*, each of which ran reference and method in interleaved rounds and gives
one cost per exit. Between processes everything may differ that a round cannot see: memory layout, the allocator, what
the machine did that hour. So the score is computed anew with each process's costs (and the same accuracies); the
spread of these values is the clock's share of the variance, Student's t with P - 1 degrees of freedom. It is never
below what the rounds within the processes allow, because three processes agree by luck now and then.

Costs ``(P, E)`` are multiples of the reference's full answer, increasing along exits (``curve.settle``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import settle

Floats = NDArray[np.float64]

#: With fewer timing processes than this a row has no rank on a measured axis.
MIN_PROCESSES = 3
#: Degrees of freedom of an interval over rounds, for rows timed in one process: those are not ranked.
ROUNDS_DF = 30.0


@dataclass(frozen=True)
class Timing:
    """Costs of one row on one measured axis: ``costs (P, E)`` and ``errors (P, E)``, their standard errors over rounds.

    Seeds of a row share their network's shape, so all their processes are processes of the row.
    """

    costs: Floats
    errors: Floats

    @classmethod
    def of(cls, costs: ArrayLike, errors: ArrayLike | None = None) -> Timing:
        """``costs (P, E)`` settled, each process by itself."""
        table = np.stack([settle(row) for row in np.atleast_2d(np.asarray(costs, dtype=np.float64))])
        return cls(table, np.zeros_like(table) if errors is None else np.asarray(errors, dtype=np.float64))

    @property
    def processes(self) -> int:
        return len(self.costs)

    @property
    def cost(self) -> Floats:
        """Mean over processes, ``(E,)``."""
        return settle(self.costs.mean(axis=0))

    @property
    def error(self) -> Floats:
        """Standard error of one process over its rounds, root mean square over processes, ``(E,)``."""
        error: Floats = np.sqrt((self.errors**2).mean(axis=0))
        return error


def clock_variance(timing: Timing, score: Callable[[Floats], ArrayLike]) -> tuple[Floats, float]:
    """Variance of ``score(timing.cost)`` that comes from the clock, and its degrees of freedom.

    ``score`` maps costs ``(E,)`` to an array of scores.

    >>> timing = Timing.of([[0.4, 0.8], [0.5, 1.0], [0.6, 1.2]])
    >>> variance, df = clock_variance(timing, lambda cost: cost[-1])
    >>> round(float(variance), 6), df  # 0.2^2 / 3
    (0.013333, 2.0)
    """
    # The errors of a process's exits move together (they share its reference), so all are moved at once.
    moved = np.asarray(score(settle(timing.cost + timing.error))) - np.asarray(score(timing.cost))
    of_rounds = moved**2 / timing.processes
    if timing.processes == 1:
        return of_rounds, ROUNDS_DF
    values = np.stack([np.asarray(score(cost), dtype=np.float64) for cost in timing.costs])
    return np.maximum(values.var(axis=0, ddof=1) / timing.processes, of_rounds), timing.processes - 1.0
