"""Scores that plugins add to the catalogue, as a record holds them; the suite's own have fields of their own.

All are functions of a trace and of the exits' relative cumulative cost ``(E,)``. What is undefined (NaN) is left out.
Numbers are rounded like all others of a record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.catalogue import SCORES, Score, scores
from anytime_bench.scores.intervals import RESAMPLES, percentiles, resampled_means
from anytime_bench.scores.run_scores import DECIMALS
from anytime_bench.scores.stopping_rules import RULES
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]


def extra_exit_scores(trace: Trace, cost: Floats) -> list[dict[str, float]]:
    """Per exit, the added scores that are defined there."""
    tables = {score.name: _values(score, trace, cost, trace.num_exits) for score in _added("exit")}
    return [
        {name: round(float(values[k]), DECIMALS) for name, values in tables.items() if np.isfinite(values[k])}
        for k in range(trace.num_exits)
    ]


def extra_image_scores(
    trace: Trace, cost: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float]]:
    """The mean over images of every added score per image, with a bootstrap interval over images."""
    tables = {score.name: _values(score, trace, cost, trace.num_samples) for score in _added("image")}
    estimates = {}
    for name, values in tables.items():
        if not np.isfinite(values).all():
            raise TraceError(f"score '{name}': gave NaN or infinity for an image")
        low, high = percentiles(resampled_means(values[None], resamples, seed)[:, 0])
        parts = {"value": float(values.mean()), "low": low, "high": high}
        estimates[name] = {part: round(number, DECIMALS) for part, number in parts.items()}
    return estimates


def added() -> dict[str, dict[str, str]]:
    """Scores and stopping rules of plugins: title, direction and origin, by ``score <name>`` or ``rule <name>``."""
    described: dict[str, dict[str, str]] = {}
    for name, origin in sorted(SCORES.added().items()):
        score: Score = SCORES.resolve(name)[0]
        described[f"score {name}"] = {"title": score.title, "better": score.better, "origin": str(origin)}
    for name, origin in sorted(RULES.added().items()):
        described[f"rule {name}"] = {"title": RULES.resolve(name)[0].title, "origin": str(origin)}
    return described


def _added(per: Any) -> list[Score]:
    names = SCORES.added()
    return [score for score in scores(per) if score.name in names]


def _values(score: Score, trace: Trace, cost: Floats, count: int) -> Floats:
    values: ArrayLike = score.function(trace, cost)
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (count,):
        raise TraceError(f"score '{score.name}': expected {count} numbers per {score.per}, got shape {table.shape}")
    return table
