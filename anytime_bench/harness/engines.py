"""How a model is run while it is timed: eager, compiled, or as CUDA graphs.

An engine holds one model and one input buffer; ``load`` copies the images in (untimed) and ``run_through`` and
``prefix`` do the work, calling ``clock.start`` before any of it and ``clock.mark`` when an answer is there. The clock
starts before ``model.stream`` is called, so that work done ahead of the first answer is part of the first answer.

======== ==================================================================================================
eager    the model's own Python; the generator really pauses after each exit
compile  each module that the stream calls directly is compiled by ``torch.compile``; the generator stays Python
graph    CUDA only: one graph per segment (exit k-1 to exit k), one per prefix, one full graph; the last two
         hold external events at their start and after each answer (cudaEventRecordExternal). Latency replays the
         segments with a synchronisation after each, so stopping is real; run-through device time reads the events
         of the full graph, so stopping is simulated
======== ==================================================================================================

Errors: ``EngineError`` where an engine cannot run a model; ``make_engine`` then falls back to eager and says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anytime_bench.harness.clocks import Clock, EventClock
from anytime_bench.methods.contract import AnytimeModel

ENGINES = ("auto", "eager", "compile", "graph")
Stream = Callable[[Tensor], Iterator[Tensor]]
Times = tuple[NDArray[np.float64], NDArray[np.float64]]  # seconds and queue wait, one each per mark


class EngineError(RuntimeError):
    """An engine that cannot run this model here."""


class Eager:
    """The model as it is, or, with ``stream``, another execution the model offers."""

    name = "eager"

    def __init__(self, model: AnytimeModel, images: Tensor, stream: Stream | None = None) -> None:
        self.model = model
        self.images = images.clone()
        self.stream = model.stream if stream is None else stream
        #: Answers of the latest run-through: E tensors ``(B, C)``.
        self.answers: list[Tensor] = []

    def load(self, images: Tensor) -> None:
        self.images.copy_(images)

    def run_through(self, clock: Clock) -> Times:
        """Times of all exits, ``(E,)``, in one run that gives every answer on the way."""
        answers = []
        clock.start()
        for logits in self.stream(self.images):
            clock.mark()
            answers.append(logits)
        times = clock.read(), clock.queue()
        self.answers = answers
        return times

    def prefix(self, k: int, clock: Clock) -> Times:
        """Time of ``answer(images, k)``, ``(1,)``.

        Where a model keeps the default ``answer``, which is the stream stopped at exit k, the clock is read as the
        answer comes, as in a run-through: releasing the suspended generator's tensors is no part of the wait for it
        (a measured 1 % of a small ResNet's time, enough to tell a model from its own copy).
        """
        if type(self.model).answer is AnytimeModel.answer:
            clock.start()
            run = self.model.stream(self.images)
            for _ in range(k + 1):
                next(run)
            clock.mark()
        else:
            clock.start()
            self.model.answer(self.images, k)
            clock.mark()
        return clock.read(), clock.queue()


class Compiled(Eager):
    """Eager, with the modules that the stream calls directly compiled, in a copy of the model."""

    name = "compile"

    def __init__(self, model: AnytimeModel, images: Tensor) -> None:
        super().__init__(copy.deepcopy(model), images)
        called = directly_called(self.model, self.images)
        if not called:
            raise EngineError("the stream calls no module as a whole, so there is nothing to compile")
        try:
            for module in called:
                module.compile()
            for _ in range(2):
                list(self.model.stream(self.images))
        except Exception as error:  # whatever a compiler may raise, eager still measures
            raise EngineError(f"torch.compile failed: {_first_line(error)}") from error


class Graphs(Eager):
    """The model as CUDA graphs."""

    name = "graph"

    def __init__(self, model: AnytimeModel, images: Tensor, stream: Stream | None = None) -> None:
        super().__init__(model, images, stream)
        self._synchronise = lambda: torch.cuda.synchronize(images.device)
        try:
            self._warm_up()
            self._capture_segments()
            self._capture_marked()
            self._prefixes = [self._prefix_graph(k) for k in range(model.num_exits)]
        except RuntimeError as error:
            raise EngineError(f"CUDA graph capture failed: {_first_line(error)}") from error

    def _warm_up(self) -> None:
        # Capture must find algorithms chosen and workspaces allocated; it runs on a side stream, and so does this.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                list(self.stream(self.images))
        torch.cuda.current_stream().wait_stream(side)
        self._synchronise()

    def _capture_segments(self) -> None:
        self._segments: list[torch.cuda.CUDAGraph] = []
        self._outputs: list[Tensor] = []
        pool = torch.cuda.graph_pool_handle()
        run = None
        # One more than there are exits would be the generator's end, which holds no work.
        for _ in range(self.model.num_exits):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                run = iter(self.stream(self.images)) if run is None else run
                self._outputs.append(next(run))
            self._segments.append(graph)
        # The suspended generator owns what later segments read: it lives as long as the graphs.
        self._run = run

    def _capture_marked(self) -> None:
        self._start_event = torch.cuda.Event(enable_timing=True, external=True)
        self._events = [torch.cuda.Event(enable_timing=True, external=True) for _ in range(self.model.num_exits)]
        self._marked = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._marked):
            self._start_event.record()
            self._marked_outputs = []
            for event, logits in zip(self._events, self.stream(self.images), strict=True):
                event.record()
                self._marked_outputs.append(logits)

    def _prefix_graph(self, k: int) -> tuple[torch.cuda.CUDAGraph, torch.cuda.Event, torch.cuda.Event]:
        self.model.answer(self.images, k)
        self._synchronise()
        # Events inside the graph: outside it, they would also count the host's time to launch it on an idle device.
        start, end = (torch.cuda.Event(enable_timing=True, external=True) for _ in range(2))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            start.record()
            self.model.answer(self.images, k)
            end.record()
        return graph, start, end

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
        self._synchronise()
        self._marked.replay()
        self._synchronise()
        times = np.array([self._start_event.elapsed_time(event) for event in self._events]) * 1e-3
        self.answers = [logits.clone() for logits in self._marked_outputs]
        return times, np.zeros_like(times)

    def prefix(self, k: int, clock: Clock) -> Times:
        graph, start, end = self._prefixes[k]
        if isinstance(clock, EventClock):
            self._synchronise()
            graph.replay()
            self._synchronise()
            times = np.array([start.elapsed_time(end)]) * 1e-3
            return times, np.zeros_like(times)
        clock.start()
        graph.replay()
        clock.mark()
        return clock.read(), clock.queue()


def make_engine(name: str, model: AnytimeModel, images: Tensor) -> tuple[Eager, list[str]]:
    """The engine called ``name`` for ``model`` and inputs like ``images``, and a note where it had to be another."""
    try:
        if name == "compile":
            return Compiled(model, images), []
        if name == "graph":
            return Graphs(model, images), []
    except EngineError as error:
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        return Eager(model, images), [f"engine {name} gave way to eager: {error}"]
    return Eager(model, images), []


def chosen_engine(name: str, device: torch.device) -> str:
    """The engine meant by ``name`` on ``device``: auto is graph on CUDA and eager elsewhere. Raises ValueError."""
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}, expected one of {', '.join(ENGINES)}")
    if name == "auto":
        return "graph" if device.type == "cuda" else "eager"
    if name == "graph" and device.type != "cuda":
        raise ValueError("engine is 'graph', but CUDA graphs need a CUDA device: use eager or compile on the CPU")
    return name


def directly_called(model: AnytimeModel, images: Tensor) -> list[nn.Module]:
    """The modules that ``model.stream`` calls itself, not those called by other modules, in order of first call."""
    depth = 0
    found: dict[int, nn.Module] = {}

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal depth
        if depth == 0:
            found.setdefault(id(module), module)
        depth += 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = []
    for module in model.modules():
        if module is not model:
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        list(model.stream(images))
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
