"""From stored arrays and counted costs to every number of a record: what a run writes and ``verify`` redoes.

Pure, without torch: the same arrays and costs give the same record on any machine. Arrays are those of the ``.npz``:
the traces ``test_*`` and ``val_*``, raw timing samples ``timing_*``, operators and their times ``span_*``, answers by
deadlines ``deadlines_*``, answers about clips ``streaming_*``, correctness under noise ``noise_*``, what stopping rules
learned ``rule_*``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.deadline_summary import DeadlineMeta, summarise_deadlines
from anytime_bench.harness.span_summary import SpanBlock, SpanMeta, summarise_span
from anytime_bench.harness.streaming_summary import StreamingMeta, summarise_streaming
from anytime_bench.harness.timing_block import ClockBlock, Timing, TimingMeta
from anytime_bench.harness.timing_summary import summarise
from anytime_bench.records.record import Added, Derived, ExitEntry, Number, Record, Reference
from anytime_bench.scores.catalogue import SCORES, Score
from anytime_bench.scores.robustness import noise_block
from anytime_bench.scores.run_scores import exit_scores, image_scores, score_axes, stopping_scores
from anytime_bench.scores.stopping_budgets import learned_from
from anytime_bench.scores.stopping_rules import RULES
from anytime_bench.trace.answers import Trace
from anytime_bench.trace.axes import AXES, counted

Arrays = Mapping[str, NDArray[Any]]

#: How the names of a trace's arrays begin.
PARTS = ("test_", "val_", "timing_", "span_", "deadlines_", "streaming_", "noise_", "rule_")


def derive(
    arrays: Arrays,
    *,
    costs: Mapping[str, Sequence[Number]],
    prefix_costs: Mapping[str, Sequence[Number]],
    reference: Reference,
    timing_meta: TimingMeta | None,
    span_meta: SpanMeta | None = None,
    deadline_meta: DeadlineMeta | None = None,
    streaming_meta: StreamingMeta | None = None,
    resamples: int,
    rules: Collection[str] | None = None,
) -> Derived:
    """Everything of a record that its raw data give.

    ``costs`` are the exits' cumulative costs on every counted axis ``(E,)``, ``prefix_costs`` those of each answer
    alone, where that is another cost; ``reference`` holds the reference model's full cost on the same axes, and its
    times are filled in from the samples. ``rules`` names the stopping rules wanted at budgets (None: all). Raises
    ``TraceError`` naming the array that cannot be scored, ``ValueError`` for timing samples that are missing.
    """
    test, val = Trace.from_arrays(arrays, "test"), Trace.from_arrays(arrays, "val")
    timing = summarise(_part(arrays, "timing_"), timing_meta) if timing_meta else None
    span = summarise_span(_part(arrays, "span_"), span_meta) if span_meta else None
    counts = {**costs, "span_macs": span.span_macs} if span else costs
    horizons = {axis: float(reference.costs[AXES[axis].horizon or axis]) for axis in counts}
    relative = np.asarray(costs["macs"], dtype=np.float64) / horizons["macs"]
    # Multiples of the reference's time in the same rounds, so every horizon is 1.
    clocks = {axis: [each.value for each in block.ratio_to_reference] for axis, block in _clocks(timing).items()}
    ratios = {"span": [each.value for each in span.span], **clocks} if span else clocks
    deadlines = None
    if deadline_meta:
        deadlines = summarise_deadlines(_part(arrays, "deadlines_"), deadline_meta, test, _latencies(timing))
    streaming = None
    if streaming_meta:
        streaming = summarise_streaming(_part(arrays, "streaming_"), streaming_meta, test.num_classes)
    # One bootstrap gives the areas on all axes.
    areas = score_axes(test, {**counts, **ratios}, {**horizons, **dict.fromkeys(ratios, 1.0)}, resamples=resamples)
    return Derived(
        exits=[
            ExitEntry(
                k=k,
                costs={axis: values[k] for axis, values in costs.items()},
                prefix_costs={axis: values[k] for axis, values in prefix_costs.items()},
                accuracy=accuracy,
                scores=scores,
            )
            for k, (accuracy, scores) in enumerate(exit_scores(test, relative))
        ],
        reference=_with_times(reference, timing, span),
        scores={axis: areas[axis] for axis in counts},
        images=image_scores(test, relative, resamples=resamples),
        stopping=stopping_scores(
            test, val, {"macs": relative, **clocks}, learned_from(arrays), rules=rules, resamples=resamples
        ),
        timing=timing,
        span=span,
        timed_scores={axis: areas[axis] for axis in ratios},
        deadlines=deadlines,
        streaming=streaming,
        robustness=noise_block(arrays) if "noise_correct" in arrays else None,
    )


def derive_again(
    record: Record,
    arrays: Arrays,
    rules: Collection[str] | None = None,
    deadline_meta: DeadlineMeta | None = None,
    streaming_meta: StreamingMeta | None = None,
) -> Derived:
    """What today's suite derives from a record's own arrays; ``rules`` and errors as in ``derive``.

    ``deadline_meta`` and ``streaming_meta`` are those of deadlines and clips which ``arrays`` hold and the record does
    not state yet.
    """
    assert record.reference is not None  # as every record with results has one
    axes = [axis for axis in counted() if all(axis in entry.costs for entry in record.exits)]
    return derive(
        arrays,
        costs={axis: [entry.costs[axis] for entry in record.exits] for axis in axes},
        prefix_costs={
            axis: [entry.prefix_costs[axis] for entry in record.exits]
            for axis in axes
            if all(axis in entry.prefix_costs for entry in record.exits)
        },
        reference=record.reference.model_copy(update={"costs": {a: record.reference.costs[a] for a in axes}}),
        timing_meta=record.timing.meta if record.timing else None,
        span_meta=record.span.meta if record.span else None,
        deadline_meta=deadline_meta or (record.deadlines.meta if record.deadlines else None),
        streaming_meta=streaming_meta or (record.streaming.meta if record.streaming else None),
        resamples=record.resamples,
        rules=rules,
    )


def from_plugins() -> dict[str, Added]:
    """What the plugins of this process add to every record, by ``score <name>`` or ``rule <name>``."""
    described: dict[str, Added] = {}
    for name, origin in sorted(SCORES.added().items()):
        score: Score = SCORES.resolve(name)[0]
        described[f"score {name}"] = Added(title=score.title, better=score.better, origin=str(origin))
    for name, origin in sorted(RULES.added().items()):
        described[f"rule {name}"] = Added(title=RULES.resolve(name)[0].title, origin=str(origin))
    return described


def undefined(record: Record) -> list[str]:
    """Names of the plugins' scores per exit that no exit of ``record`` has."""
    return [
        name
        for name in sorted(SCORES.added())
        if SCORES.resolve(name)[0].per == "exit" and not any(name in entry.scores for entry in record.exits)
    ]


def _part(arrays: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays of one kind, without the prefix of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _clocks(timing: Timing | None) -> dict[str, ClockBlock]:
    """What each clock read at the headline batch size."""
    return timing.headline.clocks if timing else {}


def _latencies(timing: Timing | None) -> dict[str, list[float]]:
    """Costs of the exits one after the other and alone, in multiples of the reference; empty where not timed."""
    if timing is None:
        return {}
    latency = timing.latency
    return {
        "run_through": [each.value for each in latency.ratio_to_reference],
        "prefix": [each.value for each in latency.prefix_ratio_to_reference],
    }


def _with_times(reference: Reference, timing: Timing | None, span: SpanBlock | None) -> Reference:
    """The reference with its full times, read in the same rounds."""
    times = {axis: block.reference_full.p50 for axis, block in _clocks(timing).items()}
    if span:
        times["span"] = span.reference_seconds.value
    return reference.model_copy(update={"costs": {**reference.costs, **times}})
