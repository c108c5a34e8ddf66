"""From stored arrays and counted costs to every number of a record: what the runner writes and ``verify`` redoes.

Pure, without torch: the same arrays and costs give the same record on any machine. Arrays are those of the ``.npz``:
the traces ``test_*`` and ``val_*``, raw timing samples ``timing_*``, operators and their times ``span_*``, correctness
under noise ``noise_*``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.span_summary import SpanMeta, summarise_span
from anytime_bench.harness.timing_summary import clock_block, summarise
from anytime_bench.records.record import finite
from anytime_bench.scores.extra_scores import added, extra_exit_scores, extra_image_scores
from anytime_bench.scores.robustness import summary_from_arrays
from anytime_bench.scores.run_scores import exit_cost, exit_scores, score_axes, trace_scores
from anytime_bench.scores.stopping_budgets import learned_from, rules_at_budgets
from anytime_bench.trace.answers import Trace
from anytime_bench.trace.axes import timed

#: A record holds thousands of numbers on noise, each a mean over a few hundred images.
ROBUSTNESS_DECIMALS = 8


def derive(
    arrays: Mapping[str, NDArray[Any]],
    *,
    ticks: Sequence[float],
    macs: Sequence[int],
    macs_prefix: Sequence[int],
    reference: Mapping[str, Any],
    timing_meta: Mapping[str, Any] | None,
    span_meta: SpanMeta | None = None,
    resamples: int,
    rules: bool = True,
) -> dict[str, Any]:
    """The record's fields ``exits``, ``scores``, ``stopping``, ``timing``, ``span``, ``timed_scores``, ``robustness``,
    ``extra_scores``, ``rules`` (left out where not asked for) and ``added``.

    ``reference`` holds the reference model's full cost in ``ticks`` and ``macs``. Raises ``TraceError`` naming the
    array that cannot be scored, ``ValueError`` for timing samples that are missing.
    """
    test, val = Trace.from_arrays(arrays, "test"), Trace.from_arrays(arrays, "val")
    costs: dict[str, Sequence[float]] = {"ticks": list(ticks), "macs": list(macs)}
    horizons = {axis: float(reference[axis]) for axis in costs}
    relative = np.asarray(macs, dtype=np.float64) / horizons["macs"]
    scored = [
        {**row, "extra": more} for row, more in zip(exit_scores(test), extra_exit_scores(test, relative), strict=True)
    ]
    counted = zip(scored, ticks, macs, macs_prefix, strict=True)
    span = summarise_span(_part(arrays, "span_"), span_meta) if span_meta else None
    if span:
        costs["span_macs"], horizons["span_macs"] = span.span_macs, horizons["macs"]
    result: dict[str, Any] = {
        "exits": [
            {"k": k, "ticks": t, "macs": m, "macs_prefix": p, **scores} for k, (scores, t, m, p) in enumerate(counted)
        ],
        "scores": score_axes(test, costs, horizons, resamples=resamples),
        "stopping": trace_scores(test, val, macs, horizons["macs"], resamples=resamples),
        "timing": {},
        "span": span.model_dump(mode="json") if span else None,
        "timed_scores": {},
        "robustness": {},
        "extra_scores": extra_image_scores(test, relative, resamples=resamples),
        "added": added(),
    }
    budgets = {"macs": relative}
    # Multiples of the reference's time in the same rounds, so every horizon is 1.
    ratios = {"span": [exit_.value for exit_ in span.span]} if span else {}
    if timing_meta:
        timing = summarise(_part(arrays, "timing_"), timing_meta)
        result["timing"] = timing
        blocks = {axis: clock_block(timing, axis) for axis in timed()}
        clocks = {axis: [row["value"] for row in b["ratio_to_reference"]] for axis, b in blocks.items() if b}
        budgets |= {axis: exit_cost(axis, ratio, test.num_exits) for axis, ratio in clocks.items()}
        ratios |= clocks
    result["timed_scores"] = score_axes(test, ratios, dict.fromkeys(ratios, 1.0), resamples=resamples)
    result["rules"] = rules_at_budgets(test, val, budgets, learned_from(arrays)) if rules else {}
    if "noise_correct" in arrays:
        result["robustness"] = _rounded(summary_from_arrays(arrays, horizons), ROBUSTNESS_DECIMALS)
    return {key: finite(value) for key, value in result.items()}


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays of one kind, without the prefix of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _rounded(value: Any, decimals: int) -> Any:
    """``value`` with every float in it rounded."""
    if isinstance(value, Mapping):
        return {key: _rounded(item, decimals) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, decimals) for item in value]
    return round(value, decimals) if isinstance(value, float) else value
