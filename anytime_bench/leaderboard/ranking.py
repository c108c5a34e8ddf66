"""Intervals of many scores at once, and ranks in which ties are ties.

All scores see the same resampled images (``scores.intervals``), so differences between rows are paired. A row's rank
is 1 + the number of rows that are better than it, where better means that the 95 % interval of the paired difference
excludes 0. Rows that nothing tells apart therefore share a rank; the verdict on a pair is that of
``scores.intervals.paired_difference``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anytime_bench.scores.intervals import LEVEL, RESAMPLES, percentiles, resampled_means, seed_draws

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One score of one row: its mean over seeds per image ``(N,)``, its value, and the seeds' part of each resample.

    ``draws`` are the streams of ``scores.intervals``: alone ``(1, R)``, or also as first and second of a pair,
    ``(3, R)``.
    """

    per_image: Floats
    value: float
    draws: Floats

    @classmethod
    def of(cls, table: Floats, *, paired: bool = True) -> Sample:
        """From a score per seed and image, ``(S, N)``; only a ``paired`` one may be ranked."""
        draws = np.stack([seed_draws(table, RESAMPLES, 0, stream) for stream in range(3 if paired else 1)])
        return cls(table.mean(axis=0), float(table.mean()), draws)


def resample(samples: Sequence[Sample], block: int = 256) -> Floats:
    """Means over resampled images, ``(R, K)``, without the seeds' part; in blocks, to bound memory."""
    if not samples:
        return np.zeros((RESAMPLES, 0))
    parts = [
        resampled_means(np.stack([sample.per_image for sample in samples[start : start + block]]))
        for start in range(0, len(samples), block)
    ]
    return np.concatenate(parts, axis=1)


def intervals(samples: Sequence[Sample]) -> list[tuple[float, float, float]]:
    """(value, low, high) per score, as ``bootstrap_mean`` gives them one by one."""
    means = resample(samples)
    return [(sample.value, *percentiles(means[:, k] + sample.draws[0], LEVEL)) for k, sample in enumerate(samples)]


def better(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """``(K, K)``: whether row i is better than row j, higher scores being better."""
    means = resample(samples)
    count = len(samples)
    result = np.zeros((count, count), dtype=bool)
    tail = 100 * (1 - LEVEL) / 2
    second = np.stack([sample.draws[2] for sample in samples], axis=1) if count else means
    for i, sample in enumerate(samples):
        gaps = (means[:, i] + sample.draws[1])[:, None] - means[:, i + 1 :] - second[:, i + 1 :]
        if gaps.shape[1] == 0:
            continue
        low, high = np.percentile(gaps, [tail, 100 - tail], axis=0)
        result[i, i + 1 :] = low > 0
        result[i + 1 :, i] = high < 0
    return result


def ranks(samples: Sequence[Sample]) -> list[int]:
    """1 + the number of better rows, per row."""
    return [1 + int(count) for count in better(samples).sum(axis=0)]
