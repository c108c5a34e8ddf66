"""Risk-controlled stopping: the lowest confidence threshold whose risk is below epsilon with probability 1 - delta.

After Jazbec et al., *Fast yet Safe: Early-Exiting with Risk Control*, NeurIPS 2024 (arXiv 2405.20915). The loss of
leaving at a threshold is their performance gap, 0 or 1 per image: the early answer is wrong and the last one is right.
The signed gap (early error minus last error) is clipped at 0 as in the paper's experiments, so this risk is never below
the loss of accuracy.

The upper confidence bound is the betting bound of Waudby-Smith and Ramdas (JRSS B 2024) with the predictable bets of
Bates et al. (JACM 2021, proposition 5). Thresholds are walked from the safest down and the walk ends at the first one
whose bound reaches epsilon; if none passes, every image runs to the last exit, whose risk is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.stopping import exits_by_threshold
from anytime_bench.trace.answers import Trace

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

DELTA = 0.1
#: Safest first. Infinity, above which nobody leaves early, is not in the grid: it is where the walk starts from.
THRESHOLDS: Floats = np.linspace(1, 0, 51)


@dataclass(frozen=True)
class Bets:
    """The bets of the bound on losses ``(..., n)``, made from each image's predecessors alone."""

    losses: Floats
    stakes: Floats

    @classmethod
    def on(cls, losses: ArrayLike, delta: float) -> Bets:
        x = np.asarray(losses, dtype=np.float64)
        n = x.shape[-1]
        count = np.arange(1, n + 1)
        mean = (0.5 + np.cumsum(x, axis=-1)) / (1 + count)
        variance = (0.25 + np.cumsum((x - mean) ** 2, axis=-1)) / (1 + count)
        before = np.concatenate([np.full((*x.shape[:-1], 1), 0.25), variance[..., :-1]], axis=-1)
        return cls(x, np.minimum(1.0, np.sqrt(2 * np.log(1 / delta) / (n * before))))

    def below(self, epsilon: float, delta: float) -> Flags:
        """Whether the upper confidence bound of the mean at level 1 - delta is below ``epsilon``, ``(...)``.

        The bound is where the best wealth of a gambler who bets against "the mean is epsilon" reaches 1/delta, so
        comparing the wealth with 1/delta decides without finding the bound.
        """
        # Beyond 1/delta it does not matter how much is won.
        with np.errstate(over="ignore"):
            wealth = np.cumprod(1 - self.stakes * (self.losses - epsilon), axis=-1)
        return wealth.max(axis=-1) > 1 / delta


def losses_by_threshold(trace: Trace, thresholds: ArrayLike = THRESHOLDS) -> Flags:
    """Loss of each image at each threshold, ``(T, N)``."""
    bad = (trace.predictions != trace.predictions[-1]) & trace.correct[-1]
    confidence = np.asarray(trace.confidence, dtype=np.float64)
    exits = np.stack([exits_by_threshold(confidence, float(q)) for q in np.asarray(thresholds)])
    return np.take_along_axis(bad, exits, axis=0)
