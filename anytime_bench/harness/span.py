"""Measure what parallel time is computed from: a model's operators, and how long each takes beside the reference.

In every round, in random order, run the model with each number of intra-op threads and the reference on one thread; the
latter also gives its full answer alone, which is the unit of all times. Each is run a few times in turn as it is and
with a stopwatch around its operators. The stopwatch's cost per call is read off the reference (its passes with and
without, divided by its calls), so that the model's own latency stays an independent witness of T_1, the sum of its
operators' times.

``samples`` are the arrays of ``span_summary``; nothing is computed here that can be computed from them. Recording
changes no answer, leaves no hook behind and keeps no tensor alive.

Units: seconds. Errors: ``SpanError``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.harness.clocks import EventClock, HostClock, on_device
from anytime_bench.harness.cores import cores_at_hand
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.eager import Eager
from anytime_bench.harness.engines import matched_engines
from anytime_bench.harness.lane_replay import RealLanes, program_of
from anytime_bench.harness.operator_graph import Arrays, OperatorGraph, SpanError, graph_to_arrays
from anytime_bench.harness.operator_recording import record
from anytime_bench.harness.operator_times import dispatches, host_clock, time_operators
from anytime_bench.harness.schedule import best_schedule
from anytime_bench.harness.span_summary import SpanBlock, SpanMeta, operator_seconds, summarise_span
from anytime_bench.methods.contract import AnytimeModel

#: Rounds: at least the first, at most the second; the time budget decides in between.
ROUNDS = (7, 15)
#: Passes of one model in one round, at most.
PASSES = 3
#: A measurement that takes this many times its budget ends after LEAST_ROUNDS rounds.
PATIENCE = 3.0
#: More threads that make a model slower by this factor are not measured: no operator would be run on them.
SLOW = 2.0
#: Real lanes on which a schedule is tried, where there are so many cores.
REAL_LANES = 2
LEAST_ROUNDS = 3

Floats = NDArray[np.float64]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class SpanMeasurement:
    """A model's operator ``graph``, the raw ``samples`` and what was noticed meanwhile (see ``span_summary``)."""

    graph: OperatorGraph
    samples: Arrays
    meta: SpanMeta

    def summary(self) -> SpanBlock:
        """The numbers of a record, derived from ``samples`` and ``meta`` alone."""
        return summarise_span(self.samples, self.meta)


def threads_to_try(device: torch.device) -> tuple[int, ...]:
    """1, 2, 4, ... intra-op threads up to the cores at hand, and these; a GPU has no such choice."""
    cores = cores_at_hand() if device.type == "cpu" else 1
    return tuple(sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores}))


def measure_span(
    model: AnytimeModel,
    reference: AnytimeModel,
    images: Tensor,
    *,
    budget_seconds: float = 2.0,
    batch_size: int = 1,
    threads: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SpanMeasurement:
    """Record and time the operators of ``model`` beside ``reference``, both on the device of ``images (N, D, H, W)``.

    Every pass takes ``batch_size`` images at random. ``threads`` are the numbers of intra-op threads to measure (None:
    ``threads_to_try``), as far as they are worth it. Neither model is changed.
    """
    _check(images, budget_seconds, batch_size, threads)
    device = images.device
    counts = list(threads_to_try(device) if threads is None else threads)
    with on_device(device), _threads_restored():
        torch.set_num_threads(1)
        session = _Session(model, reference, images, batch_size, np.random.default_rng(seed))
        watch = DisturbanceWatch(device)
        with evaluating(model), evaluating(reference):
            counts = session.worthwhile(counts)
            rounds = session.run(counts, budget_seconds, progress or (lambda share, what: None))
            samples = session.samples(rounds, counts)
            if device.type == "cpu" and cores_at_hand() > 1:
                samples["lanes"] = session.real_lanes(operator_seconds(samples)[0], budget_seconds / 4)
        reasons = watch.finish()
    meta = SpanMeta(device=str(device), seed=seed, reasons=tuple(reasons))
    return SpanMeasurement(session.recordings[0].graph, samples, meta)


@dataclass(frozen=True)
class _Turn:
    """Medians over a few passes: latency as usual, of the last answer alone too (the reference's only), total with the
    stopwatch, and ``(N,)`` per operator."""

    latency: float
    answer: float
    total: float
    seconds: Floats
    inside: Floats


class _Session:
    """Both models (0 the model, 1 the reference) with their recordings; images and order of turns by ``rng``."""

    def __init__(
        self,
        model: AnytimeModel,
        reference: AnytimeModel,
        images: Tensor,
        batch_size: int,
        rng: np.random.Generator,
    ) -> None:
        self.images, self.batch_size, self._rng = images, batch_size, rng
        self.models = (model, reference)
        self.recordings = tuple(record(each, self._batch()) for each in self.models)
        self._on_device = images.device.type == "cuda"
        self._engines = self._make_engines() if self._on_device else []
        self._plain = self._engines[1] if self._engines else Eager(reference, self._batch())

    def run(self, counts: Sequence[int], budget: float, progress: Progress) -> list[list[_Turn]]:
        """Rounds of turns: the model on each number of threads, then the reference on one."""
        turns = [(0, count) for count in counts] + [(1, 1)]
        passes = self._passes(turns, budget)
        rounds: list[list[_Turn]] = []
        begun = perf_counter()
        while self._go_on(len(rounds), (perf_counter() - begun) / budget):
            results = {}
            for place in self._rng.permutation(len(turns)).tolist():
                which, threads = turns[place]
                results[place] = self._turn(which, threads, passes)
            rounds.append([results[place] for place in range(len(turns))])
            progress(min(1.0, 0.8 * max((perf_counter() - begun) / budget, len(rounds) / ROUNDS[1])), "span")
        return rounds

    @staticmethod
    def _go_on(done: int, used: float) -> bool:
        wanted = ROUNDS[1] if used < 1 else ROUNDS[0] if used < PATIENCE else LEAST_ROUNDS
        return done < wanted

    def samples(self, rounds: Sequence[Sequence[_Turn]], counts: Sequence[int]) -> Arrays:
        """The arrays of ``span_summary``."""
        recording, reference = self.recordings
        own = [[turns[which] for turns in rounds] for which in range(len(counts))]
        beside = [turns[-1] for turns in rounds]
        # On a device no operator's time holds anything of the stopwatch.
        with_stopwatch = [turn.latency if self._on_device else turn.total for turn in beside]
        return {
            **graph_to_arrays(recording.graph),
            "calls": dispatches(recording).astype(np.int16),
            "threads": np.array(counts, dtype=np.int16),
            "batch_size": np.array(self.batch_size, dtype=np.int32),
            "seconds": np.array([[turn.seconds for turn in turns] for turns in own], dtype=np.float32),
            "inside": np.array([np.median([turn.inside for turn in turns], axis=0) for turns in own], dtype=np.float32),
            "latency": np.array([[turn.latency for turn in turns] for turns in own], dtype=np.float32),
            "reference": np.array([[turn.latency for turn in beside], with_stopwatch], dtype=np.float32),
            "reference_answer": np.array([turn.answer for turn in beside], dtype=np.float32),
            "reference_calls": np.array(len(reference.calls), dtype=np.int32),
        }

    def real_lanes(self, costs: Floats, budget: float) -> NDArray[np.float32]:
        """The model's program on one thread and on ``REAL_LANES`` by their schedules, in turn: seconds ``(2, R)``."""
        torch.set_num_threads(1)
        graph = self.recordings[0].graph
        program = program_of(self.models[0], self._batch(), self.recordings[0])
        schedules = [best_schedule(graph, costs, count) for count in (1, REAL_LANES)]
        pairs: list[list[float]] = []
        begun = perf_counter()
        with RealLanes(REAL_LANES) as lanes:
            while self._go_on(len(pairs), (perf_counter() - begun) / budget):
                # The first run warms up: threads, allocator, code paths.
                pairs.append([[lanes.run(program, each)[0] for _ in range(2)][1] for each in schedules])
        return np.array(pairs, dtype=np.float32).T

    def worthwhile(self, counts: Sequence[int]) -> list[int]:
        """The numbers of threads on which the model is not slower by ``SLOW`` than on one; warms all of them up."""
        seconds = {count: self._turn(0, count, passes=1).latency for count in counts}
        return [count for count in counts if seconds[count] <= SLOW * seconds[counts[0]]]

    def _passes(self, turns: Sequence[tuple[int, int]], budget: float) -> int:
        """How many passes a turn can have; warms the rest up (caches, allocator, code paths)."""
        begun = perf_counter()
        for which, threads in turns:
            self._turn(which, threads, passes=1)
        return int(np.clip(budget / (ROUNDS[0] * (perf_counter() - begun)), 1, PASSES))

    def _turn(self, which: int, threads: int, passes: int) -> _Turn:
        torch.set_num_threads(threads)
        self._latency(which)  # warmed by itself
        latencies, answers, times = [], [0.0], []
        for _ in range(passes):
            latencies.append(self._latency(which))
            times.append(time_operators(self.models[which], self._batch(), self.recordings[which]))
        if which == 1:
            answers = [self._full_answer() for _ in range(1 + passes)][1:]
        return _Turn(
            float(np.median(latencies)),
            float(np.median(answers)),
            float(np.median([each.total for each in times])),
            np.median([each.seconds for each in times], axis=0),
            np.median([each.inside for each in times], axis=0),
        )

    def _latency(self, which: int) -> float:
        """Seconds from start to last answer, without a stopwatch; on a device, its own time in one graph."""
        images = self._batch()
        if self._on_device:
            engine = self._engines[which]
            engine.load(images)
            return float(engine.run_through(EventClock(images.device))[0][-1])
        clock = host_clock()
        begin = clock()
        for _ in self.models[which].stream(images):
            pass
        return (clock() - begin) * 1e-9

    def _full_answer(self) -> float:
        """Seconds of the reference's last answer alone, without a stopwatch; on a device, its own time in one graph."""
        images = self._batch()
        self._plain.load(images)
        clock = EventClock(images.device) if self._on_device else HostClock(images.device)
        return float(self._plain.prefix(self._plain.model.num_exits - 1, clock)[0][-1])

    def _make_engines(self) -> list[Eager]:
        with evaluating(self.models[0]), evaluating(self.models[1]):
            matched = matched_engines("graph", self.models[0], self.models[1:], self._batch())
            (reference,) = matched.references
            reference.prepare([reference.model.num_exits - 1])
        return [matched.method, reference]

    def _batch(self) -> Tensor:
        index = self._rng.integers(len(self.images), size=self.batch_size)
        return self.images[torch.from_numpy(index).to(self.images.device)]


def _check(images: Tensor, budget_seconds: float, batch_size: int, threads: Sequence[int] | None) -> None:
    if images.ndim != 4 or len(images) == 0:
        raise SpanError(f"images have shape {tuple(images.shape)}, expected (N, D, H, W) with at least one image")
    if budget_seconds <= 0 or batch_size < 1:
        raise SpanError(f"budget_seconds is {budget_seconds} and batch_size {batch_size}, expected both above 0")
    if threads is not None and (not threads or threads[0] != 1 or sorted(set(threads)) != list(threads)):
        raise SpanError(f"threads is {tuple(threads)}, expected 1 and then larger numbers of intra-op threads")


@contextmanager
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
