"""From the raw samples of parallel time to its numbers: a pure function, without torch, so that anyone can redo it.

Samples, for N operators, W numbers of intra-op threads and R rounds; seconds are medians over the passes of a round:

================ ========== ================================================================================
macs, edges, ... see        the operator graph (``operator_graph``)
calls            (N,)       torch calls that each operator's time covers: itself, and views before it
threads          (W,)       intra-op threads measured: 1, then more
batch_size       ()         images per pass
seconds          (W, R, N)  each operator's time, the stopwatch's own cost included
inside           (W, N)     the part of it within the call, median over rounds
latency          (W, R)     the whole run-through without a stopwatch
reference        (2, R)     the reference's run-through on one thread, without and with a stopwatch
reference_calls  ()         torch calls of the reference's run-through
reference_answer (R,)       the reference's full answer alone, on one thread; absent from records of protocol 2
lanes            (2, R')    the operators alone, without the model's Python, on one and on two real lanes; absent
                            where there is one core
================ ========== ================================================================================

The stopwatch costs ``(reference with - reference without) / reference_calls`` per call, median over rounds. An
operator's cost is its median over rounds less that for each of its calls, and not less than the part within the call.
Times are multiples of the reference's full answer on one thread, as on every other measured axis; in protocol 2, of its
run-through with all of its heads, which takes longer (``records/axes.py`` converts those). Intervals: 95 %, moving-
block bootstrap over rounds.

Errors: ``SpanError`` naming an array that is missing or out of shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from anytime_bench.harness.intervals_of_rounds import resampled_rounds
from anytime_bench.harness.operator_graph import OperatorGraph, SpanError, graph_from_arrays
from anytime_bench.harness.schedule import critical_path, edge_times, lane_times, span, work
from anytime_bench.scores.results import Estimate, Strict

Floats = NDArray[np.float64]
Samples = Mapping[str, NDArray[Any]]

#: Numbers of lanes for which every record states its times; None is as many as there is work for.
LANES: tuple[int | None, ...] = (1, 2, 3, 4, 6, 8, 12, 16, None)
#: What an edge between two lanes may cost, in microseconds.
EDGE_COSTS = (0, 5, 20)
RESAMPLES = 200


class LaneTimes(Strict):
    """When each exit is ready on at most ``lanes`` lanes, an edge between lanes costing ``edge_us``.

    An operator may take as many lanes as threads were measured, so that a network without branches gains too. In
    multiples of the reference's full answer on one thread, per exit.
    """

    lanes: int | Literal["inf"]
    edge_us: int
    ready: tuple[float, ...]


class ThreadTimes(Strict):
    """The whole run-through on this many intra-op threads: as measured, and as the sum of its operators' times."""

    threads: int
    latency: Estimate
    work: Estimate


class RealLanes(Strict):
    """The operators alone, without the model's Python: on one lane, and by the schedule on two threads.

    ``gain``: the first over the second. ``modelled``: T_1 over T_2 of the last exit, an operator on one lane.
    """

    alone: Estimate
    together: Estimate
    gain: Estimate
    modelled: float


class SpanMeta(Strict):
    """How the samples were taken, and what makes them not comparable."""

    device: str
    seed: int
    reasons: tuple[str, ...]


class SpanBlock(Strict):
    """Parallel time of one record. Times are multiples of ``reference_seconds``, per exit where they are tuples.

    ``model_error``: T_1 of the last exit over the measured run-through, less 1. ``dispatch_share``: the part of T_1
    that the host spends to issue operators. ``critical_path``: shares of the span by kind of operator.
    ``stopwatch_seconds``: what timing one call costs, taken out of every time.
    """

    meta: SpanMeta
    operators: int
    rounds: int
    batch_size: int
    span_macs: tuple[int, ...]
    span: tuple[Estimate, ...]
    work: tuple[Estimate, ...]
    lanes: tuple[LaneTimes, ...]
    threads: tuple[ThreadTimes, ...]
    real_lanes: RealLanes | None
    model_error: Estimate
    dispatch_share: float
    critical_path: dict[str, float]
    reference_seconds: Estimate
    stopwatch_seconds: float

    @model_validator(mode="after")
    def _one_time_per_exit(self) -> Self:
        exits = len(self.span_macs)
        if {len(self.span), len(self.work), *(len(line.ready) for line in self.lanes)} != {exits} or not exits:
            raise ValueError(f"span, work and every line of lanes must hold a time for each of {exits} exits")
        return self


def span_macs(graph: OperatorGraph) -> tuple[int, ...]:
    """MACs of the longest chain of operators up to each exit ``(E,)``: counted, so the same on every machine."""
    return tuple(int(value) for value in span(graph, graph.macs))


def summarise_span(samples: Samples, meta: SpanMeta) -> SpanBlock:
    """The numbers of parallel time from raw ``samples``; ``meta.seed`` draws the rounds anew for the intervals."""
    graph = graph_from_arrays(samples)
    rounds = _Rounds(samples, len(graph), meta.seed)
    alone = rounds.costs(0)  # (1 + B, N)
    reference = rounds.reference[:, None]
    longest, total = span(graph, alone) / reference, work(graph, alone) / reference
    error = work(graph, alone)[:, -1] / rounds.latency(0) - 1
    lanes = _lane_rows(graph, operator_seconds(samples), float(rounds.reference[0]))
    return SpanBlock(
        meta=meta,
        operators=len(graph),
        rounds=rounds.count,
        batch_size=int(samples["batch_size"]),
        span_macs=span_macs(graph),
        span=_estimates(longest),
        work=_estimates(total),
        lanes=lanes,
        real_lanes=_real_lanes(graph, samples, meta.seed, float(rounds.reference[0])),
        threads=_thread_rows(graph, rounds, samples["threads"].tolist()),
        model_error=_estimates(error[:, None])[0],
        dispatch_share=_dispatch_share(graph, alone[0], samples["inside"][0]),
        critical_path=_shares(graph, alone[0]),
        reference_seconds=_estimates(reference)[0],
        stopwatch_seconds=float(rounds.stopwatch[0]),
    )


def operator_seconds(samples: Samples) -> Floats:
    """Each operator's cost ``(W', N)`` on 1..W' lanes, W' being the most threads measured.

    A number of lanes between two that were measured is used like the smaller one.
    """
    rounds = _Rounds(samples, len(samples["macs"]), seed=0, resamples=0)
    threads = samples["threads"].tolist()
    rows = [max(i for i, count in enumerate(threads) if count <= lanes) for lanes in range(1, max(threads) + 1)]
    return np.stack([rounds.costs(row)[0] for row in rows])


class _Rounds:
    """The samples over all rounds and over rounds drawn anew: index 0 is the former, 1..B are the latter."""

    def __init__(self, samples: Samples, operators: int, seed: int, resamples: int = RESAMPLES) -> None:
        _require_shapes(samples, operators)
        self._samples, self.count = samples, samples["seconds"].shape[1]
        drawn = resampled_rounds(self.count, seed, resamples) if resamples else np.empty((0, self.count), dtype=int)
        self._index = np.vstack([np.arange(self.count), drawn])
        plain, watched = samples["reference"].astype(np.float64)
        self.stopwatch: Floats = self._median(watched - plain) / max(1, int(samples["reference_calls"]))
        self.reference: Floats = self._median(samples.get("reference_answer", plain).astype(np.float64))

    def costs(self, row: int) -> Floats:
        """Seconds of each operator on ``threads[row]`` threads ``(1 + B, N)``, the stopwatch's own taken out."""
        seconds = self._median(self._samples["seconds"][row].astype(np.float64))
        return np.maximum(seconds - self.stopwatch[:, None] * self._samples["calls"], self._samples["inside"][row])

    def latency(self, row: int) -> Floats:
        """Seconds of the run-through without a stopwatch ``(1 + B,)``."""
        return self._median(self._samples["latency"][row].astype(np.float64))

    def _median(self, values: Floats) -> Floats:
        return np.median(values[self._index], axis=1)


def _lane_rows(graph: OperatorGraph, costs: Floats, reference: float) -> tuple[LaneTimes, ...]:
    edges = [edge * 1e-6 for edge in EDGE_COSTS]
    ready = edge_times(graph, costs, LANES, edges) / reference
    return tuple(
        LaneTimes(
            lanes="inf" if lanes is None else lanes,
            edge_us=edge,
            ready=tuple(ready[place, row].tolist()),
        )
        for place, edge in enumerate(EDGE_COSTS)
        for row, lanes in enumerate(LANES)
    )


def _thread_rows(graph: OperatorGraph, rounds: _Rounds, threads: list[int]) -> tuple[ThreadTimes, ...]:
    return tuple(
        ThreadTimes(
            threads=count,
            latency=_estimates((rounds.latency(row) / rounds.reference)[:, None])[0],
            work=_estimates((work(graph, rounds.costs(row))[:, -1] / rounds.reference)[:, None])[0],
        )
        for row, count in enumerate(threads)
    )


def _real_lanes(graph: OperatorGraph, samples: Samples, seed: int, reference: float) -> RealLanes | None:
    if "lanes" not in samples:
        return None
    measured = samples["lanes"].astype(np.float64)
    count = measured.shape[1]
    index = np.vstack([np.arange(count), resampled_rounds(count, seed, RESAMPLES)])
    alone, together = np.median(measured[:, index], axis=2)
    one, two = lane_times(graph, operator_seconds(samples)[0], (1, 2))[:, -1].tolist()
    alone_, together_, gain = _estimates(np.stack([alone / reference, together / reference, alone / together], axis=1))
    return RealLanes(alone=alone_, together=together_, gain=gain, modelled=one / two if two else 1.0)


def _dispatch_share(graph: OperatorGraph, costs: Floats, inside: NDArray[Any]) -> float:
    """The part of T_1 that lies outside the calls themselves."""
    needed = list(graph.needed)
    total = float(costs[needed].sum())
    return max(0.0, 1 - float(inside[needed].sum()) / total) if total else 0.0


def _shares(graph: OperatorGraph, costs: Floats) -> dict[str, float]:
    """Shares of the longest chain by kind of operator, the largest first."""
    seconds: dict[str, float] = {}
    for index in critical_path(graph, costs):
        name = graph.operators[index].name
        seconds[name] = seconds.get(name, 0.0) + float(costs[index])
    total = sum(seconds.values())
    return {name: seconds[name] / total for name in sorted(seconds, key=lambda name: -seconds[name])} if total else {}


def _estimates(rows: Floats) -> tuple[Estimate, ...]:
    """Row 0 of ``(1 + B, E)`` with the middle 95 % of the other rows."""
    low, high = np.percentile(rows[1:], (2.5, 97.5), axis=0)
    return tuple(
        Estimate(value=float(value), low=float(min(lo, value)), high=float(max(hi, value)))
        for value, lo, hi in zip(rows[0], low, high, strict=True)
    )


def _require_shapes(samples: Samples, operators: int) -> None:
    for name in ("threads", "batch_size", "seconds", "inside", "latency", "reference", "reference_calls", "calls"):
        if name not in samples:
            raise SpanError(f"array '{name}' of the span samples is missing")
    widths, rounds = len(samples["threads"]), samples["reference"].shape[-1]
    expected = {
        "seconds": (widths, rounds, operators),
        "inside": (widths, operators),
        "latency": (widths, rounds),
        "reference": (2, rounds),
        "calls": (operators,),
    }
    if "reference_answer" in samples:
        expected["reference_answer"] = (rounds,)
    for name, shape in expected.items():
        if samples[name].shape != shape or not rounds:
            raise SpanError(f"array '{name}' of the span samples has shape {samples[name].shape}, expected {shape}")
