"""What the clock adds to the uncertainty of a score: the same score from every timing process.

A measured axis is known from a few *processes*, each of which ran reference and method in interleaved rounds and gives
one cost per exit. Between processes everything may differ that a round cannot see: memory layout, the allocator, what
the machine did that hour. So a score is computed anew with each process's costs (and the same accuracies); the spread
of these values is the clock's share of the variance, Student's t with P - 1 degrees of freedom. It is never below what
the rounds within the processes allow, because three processes agree by luck now and then.

Costs ``(P, E)`` are multiples of the reference's full answer: of exit k after all earlier ones (``run_through``) and
alone (``prefix``), with standard errors over rounds. Seeds of a row share their network's shape, so all their
processes are processes of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import settle

Floats = NDArray[np.float64]
#: Scores from the costs of every exit, run-through and alone.
Score = Callable[[Floats, Floats], ArrayLike]

#: With fewer timing processes than this a row has no rank on a measured axis.
MIN_PROCESSES = 3
#: Degrees of freedom of an interval over rounds, for rows timed in one process: those are not ranked.
ROUNDS_DF = 30.0


@dataclass(frozen=True)
class ProcessCosts:
    """What one timing process measured: costs ``(E,)`` and their standard errors over its rounds."""

    run_through: Floats
    prefix: Floats
    run_through_error: Floats
    prefix_error: Floats


@dataclass(frozen=True)
class Timing:
    """The timing processes of one row on one measured axis, each settled by itself; all arrays ``(P, E)``."""

    run_through: Floats
    prefix: Floats
    run_through_error: Floats
    prefix_error: Floats

    @classmethod
    def of(cls, processes: Sequence[ProcessCosts]) -> Timing:
        """A process that several records quote counts once."""
        distinct = list({process.run_through.tobytes(): process for process in processes}.values())
        return cls(
            np.stack([settle(process.run_through) for process in distinct]),
            np.stack([settle(process.prefix) for process in distinct]),
            np.stack([process.run_through_error for process in distinct]),
            np.stack([process.prefix_error for process in distinct]),
        )

    @property
    def processes(self) -> int:
        return len(self.run_through)

    @property
    def costs(self) -> tuple[Floats, Floats]:
        """Means over processes, run-through and alone, ``(E,)`` each."""
        return settle(self.run_through.mean(axis=0)), settle(self.prefix.mean(axis=0))

    @property
    def half_width(self) -> Floats:
        """Half the width of the 95 % interval of the run-through costs over processes, ``(E,)``; 0 for one process."""
        if self.processes == 1:
            return np.zeros(self.run_through.shape[1])
        error = self.run_through.std(axis=0, ddof=1) / np.sqrt(self.processes)
        return np.asarray(error * scipy.special.stdtrit(self.df, 0.975))

    @property
    def df(self) -> float:
        return ROUNDS_DF if self.processes == 1 else self.processes - 1.0


def clock_variance(timing: Timing, score: Score) -> Floats:
    """Variance of ``score(*timing.costs)`` that comes from the clock, with ``timing.df`` degrees of freedom.

    >>> costs = [np.array([0.4, 0.8]), np.array([0.5, 1.0]), np.array([0.6, 1.2])]
    >>> timing = Timing.of([ProcessCosts(each, each, np.zeros(2), np.zeros(2)) for each in costs])
    >>> round(float(clock_variance(timing, lambda run_through, prefix: run_through[-1])), 6)  # 0.2^2 / 3
    0.013333
    """
    run_through, prefix = timing.costs
    # The errors of a process's exits move together (they share its reference), so all are moved at once.
    errors = [np.sqrt((each**2).mean(axis=0)) for each in (timing.run_through_error, timing.prefix_error)]
    moved = np.asarray(score(settle(run_through + errors[0]), settle(prefix + errors[1])), dtype=np.float64)
    of_rounds = (moved - np.asarray(score(run_through, prefix), dtype=np.float64)) ** 2 / timing.processes
    if timing.processes == 1:
        return np.asarray(of_rounds)
    values = np.stack(
        [np.asarray(score(*costs), dtype=np.float64) for costs in zip(timing.run_through, timing.prefix, strict=True)]
    )
    return np.asarray(np.maximum(values.var(axis=0, ddof=1) / timing.processes, of_rounds))


def clock_variance_along(timing: Timing, slopes: ArrayLike) -> Floats:
    """The same of scores that move by ``slopes (..., E)`` with the run-through costs, for scores of many rows."""
    weights = np.asarray(slopes, dtype=np.float64)
    of_rounds = (weights @ np.sqrt((timing.run_through_error**2).mean(axis=0))) ** 2 / timing.processes
    if timing.processes == 1:
        return np.asarray(of_rounds)
    values = weights @ timing.run_through.T
    return np.asarray(np.maximum(values.var(axis=-1, ddof=1) / timing.processes, of_rounds))
