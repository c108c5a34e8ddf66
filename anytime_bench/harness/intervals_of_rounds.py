"""Medians over rounds and their intervals: a moving-block bootstrap over rounds, within every timing process by itself.

Consecutive rounds are correlated, so rounds are drawn anew in blocks of about R^(1/3) (Kuensch, Annals of Statistics
17, 1989). A value from several processes is the mean of their medians, each with the rounds it has; the interval says
how well the rounds of these processes give it. What differs from process to process is for the reader of the processes
to judge, and for ``scores.measured``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.scores.results import Estimate

Floats = NDArray[np.floating[Any]]

RESAMPLES = 1000
#: Ends of the interval, in percent.
ENDS = (2.5, 97.5)


@lru_cache(maxsize=16)
def resampled_rounds(rounds: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Rounds drawn anew in blocks of about ``rounds^(1/3)`` neighbours: indices ``(resamples, rounds)``."""
    length = max(1, round(rounds ** (1 / 3)))
    blocks = -(-rounds // length)
    starts = np.random.default_rng(seed).integers(0, rounds - length + 1, size=(resamples, blocks))
    drawn: NDArray[np.int64] = (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :rounds]
    drawn.flags.writeable = False
    return drawn


def median_interval(
    values: Floats,
    seed: int,
    resamples: int = RESAMPLES,
    process: NDArray[np.integer[Any]] | None = None,
    ends: tuple[float, float] = ENDS,
) -> list[Estimate]:
    """Median over rounds of ``values (R, E)`` with its bootstrap interval, per exit.

    ``process (R,)`` says which timing process each round is of; None means that all are of one.
    """
    values = np.asarray(values, dtype=np.float64)
    parts = [values] if process is None else [values[process == each] for each in np.unique(process)]
    medians = np.mean([_resampled(part, seed + place, resamples) for place, part in enumerate(parts)], axis=0)
    low, high = np.percentile(medians, ends, axis=0)
    middle = np.mean([np.median(part, axis=0) for part in parts], axis=0)
    return [
        Estimate(value=float(m), low=float(min(lo, m)), high=float(max(hi, m)))
        for m, lo, hi in zip(middle, low, high, strict=True)
    ]


def _resampled(values: Floats, seed: int, resamples: int) -> NDArray[np.float64]:
    """Medians ``(resamples, E)`` of rounds drawn anew."""
    drawn = values.T[:, resampled_rounds(len(values), seed, resamples)]
    # Rounds lie next to one another, where a whole sort is quicker than numpy's median, and gives the same bits.
    drawn.sort(axis=2)
    rounds = drawn.shape[2]
    return (drawn[..., (rounds - 1) // 2] + drawn[..., rounds // 2]).T / 2


def widest(intervals: Sequence[Estimate]) -> float:
    """Largest width of an interval relative to its value."""
    return max((each.high - each.low) / each.value for each in intervals)
