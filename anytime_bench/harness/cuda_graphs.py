"""A model as CUDA graphs: one per segment (exit k-1 to exit k), one with all exits, one per prefix that is asked for.

Latency replays the segments with a synchronisation after each, so stopping is real. Device time reads external events
(cudaEventRecordExternal) inside the graph of all exits, or inside a prefix's graph, so no launch on an idle device is
counted; stopping is simulated there.

All graphs of an engine share a memory pool: none runs while another does, and what a later replay may overwrite is
copied out before it. The suspended generator owns what later segments read, and lives as long as they do.

Errors: ``EngineError`` where a model cannot be captured; the current stream is then what it was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anytime_bench.harness.clocks import Clock, EventClock
from anytime_bench.harness.eager import Eager, EngineError, Stream, Times, first_line
from anytime_bench.methods.contract import AnytimeModel


class _Prefix(NamedTuple):
    graph: torch.cuda.CUDAGraph
    start: torch.cuda.Event
    end: torch.cuda.Event


class Graphs(Eager):
    """The model as CUDA graphs, or, with ``stream``, another execution the model offers."""

    name = "graph"

    def __init__(self, model: AnytimeModel, images: Tensor, stream: Stream | None = None) -> None:
        super().__init__(model, images, stream)
        self._device = images.device
        self._prefixes: dict[int, _Prefix] = {}
        with self._captures():
            self._side = torch.cuda.Stream(self._device)
            self._pool = torch.cuda.graph_pool_handle()
            self._warm_up()
            self._capture_segments()
            self._capture_marked()

    @contextmanager
    def _captures(self) -> Iterator[None]:
        """A failed capture must neither leave its stream the current one nor pass for an answer."""
        with torch.cuda.device(self._device):
            before = torch.cuda.current_stream()
            try:
                yield
            except RuntimeError as error:
                raise EngineError(f"CUDA graph capture failed: {first_line(error)}") from error
            finally:
                torch.cuda.set_stream(before)

    def _graph(self, graph: torch.cuda.CUDAGraph) -> Any:
        # One stream of the right device for every capture: torch's own belongs to the device it was first used on.
        return torch.cuda.graph(graph, pool=self._pool, stream=self._side)

    def _warm_up(self) -> None:
        # Capture must find algorithms chosen and workspaces allocated on the stream it runs on.
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            for _ in range(3):
                list(self.stream(self.images))
        torch.cuda.current_stream().wait_stream(self._side)
        torch.cuda.synchronize(self._device)

    def _capture_segments(self) -> None:
        self._segments: list[torch.cuda.CUDAGraph] = []
        self._outputs: list[Tensor] = []
        run = None
        # One more than there are exits would be the generator's end, which holds no work.
        for _ in range(self.model.num_exits):
            graph = torch.cuda.CUDAGraph()
            with self._graph(graph):
                run = iter(self.stream(self.images)) if run is None else run
                self._outputs.append(next(run))
            self._segments.append(graph)
        self._run = run

    def _capture_marked(self) -> None:
        self._start_event = _external()
        self._events = [_external() for _ in range(self.model.num_exits)]
        self._marked = torch.cuda.CUDAGraph()
        with self._graph(self._marked):
            self._start_event.record()
            self._marked_outputs = []
            for event, logits in zip(self._events, self.stream(self.images), strict=True):
                event.record()
                self._marked_outputs.append(logits)

    def _prefix(self, k: int) -> _Prefix:
        if k not in self._prefixes:
            with self._captures():
                self._side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._side):
                    self.model.answer(self.images, k)
                torch.cuda.synchronize(self._device)
                captured = _Prefix(torch.cuda.CUDAGraph(), _external(), _external())
                with self._graph(captured.graph):
                    captured.start.record()
                    self.model.answer(self.images, k)
                    captured.end.record()
            self._prefixes[k] = captured
        return self._prefixes[k]

    def prepare(self, prefixes: Iterable[int]) -> None:
        """Capture the graphs of ``answer(images, k)`` for these exits."""
        for k in prefixes:
            self._prefix(k)

    def run_through(self, clock: Clock) -> Times:
        if isinstance(clock, EventClock):
            return self._run_marked()
        clock.start()
        for graph in self._segments:
            graph.replay()
            clock.mark()
        self.answers = [logits.clone() for logits in self._outputs]
        return clock.read(), clock.queue()

    def _run_marked(self) -> Times:
        torch.cuda.synchronize(self._device)
        self._marked.replay()
        torch.cuda.synchronize(self._device)
        times = np.array([self._start_event.elapsed_time(event) for event in self._events]) * 1e-3
        self.answers = [logits.clone() for logits in self._marked_outputs]
        return times, np.zeros_like(times)

    def prefix(self, k: int, clock: Clock) -> Times:
        captured = self._prefix(k)
        if isinstance(clock, EventClock):
            torch.cuda.synchronize(self._device)
            captured.graph.replay()
            torch.cuda.synchronize(self._device)
            times = np.array([captured.start.elapsed_time(captured.end)]) * 1e-3
            return times, np.zeros_like(times)
        clock.start()
        captured.graph.replay()
        clock.mark()
        return clock.read(), clock.queue()


def _external() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True, external=True)
