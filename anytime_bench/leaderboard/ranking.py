"""Intervals of many scores at once, and ranks in which ties are ties.

A row's rank is 1 + the number of rows that are better than it (``scores.verdicts``: corrected for all pairs of the
board). Rows that nothing tells apart therefore share a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from anytime_bench.scores.variance import Spread, half_width, spread_of, spread_of_difference
from anytime_bench.scores.verdicts import differences

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One score of one row: its value and spread, and where it may be ranked its ``table (S, N)``."""

    value: float
    spread: Spread
    table: Floats | None

    @classmethod
    def of(cls, table: Floats, *, paired: bool = True) -> Sample:
        """From a score per seed and image, ``(S, N)``; only a ``paired`` one may be ranked."""
        return cls(float(table.mean()), spread_of(table), table if paired else None)


def intervals(samples: Sequence[Sample]) -> list[tuple[float, float, float]]:
    """(value, low, high) per score, as ``mean_interval`` gives them one by one."""
    half = half_width(_stacked([sample.spread for sample in samples]))
    return [(s.value, s.value - float(h), s.value + float(h)) for s, h in zip(samples, half, strict=True)]


def better(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    """``(K, K)``: whether row i is better than row j, higher scores being better."""
    result = np.zeros((len(samples), len(samples)), dtype=bool)
    pairs = list(combinations(range(len(samples)), 2))
    tables = [sample.table for sample in samples]
    spreads = [spread_of_difference(tables[i], tables[j]) for i, j in pairs]  # type: ignore[arg-type]
    gaps = [samples[i].value - samples[j].value for i, j in pairs]
    for (i, j), gap in zip(pairs, differences(gaps, _stacked(spreads)), strict=True):
        result[i, j], result[j, i] = gap.verdict == "better", gap.verdict == "worse"
    return result


def ranks(samples: Sequence[Sample]) -> list[int]:
    """1 + the number of better rows, per row."""
    return [1 + int(count) for count in better(samples).sum(axis=0)]


def _stacked(spreads: Sequence[Spread]) -> Spread:
    return Spread(*(np.array([float(getattr(s, part)) for s in spreads]) for part in ("normal", "student", "df")))
