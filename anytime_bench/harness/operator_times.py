"""How long each recorded operator takes, read while the model runs as usual.

On the CPU an operator's time runs from the end of the operator before it to its own end: the work itself, and what the
host spends to issue it, views included (``host_clock``). The stopwatch's cost per call is part of the reading; the
caller measures it and takes it out (see ``span``).

On a CUDA device an operator's time is that of all its kernels between two events, on a device that is kept busy until
the kernels are queued, so that no launch is counted; views and the host count nothing.

Every pass must run the recorded calls, in their order and with their shapes, or ``SpanError`` names the first that
differs.

Units: seconds. Shapes: images ``(B, D, H, W)``, times of N operators ``(N,)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anytime_bench.harness.operator_graph import SpanError
from anytime_bench.harness.operator_recording import ANNOUNCEMENT, Call, Recording, answers_of, shape_of
from anytime_bench.methods.contract import AnytimeModel

#: Device cycles for which a GPU is kept busy while an operator is queued: about 50 us, several times a launch.
BUSY_CYCLES = 100_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OperatorTimes:
    """One pass: ``seconds (N,)`` per operator, ``inside (N,)`` the part of it within the call itself, ``total`` from
    the start to the last answer, and the pass's answers, E tensors ``(B, C)``."""

    seconds: Floats
    inside: Floats
    total: float
    answers: tuple[Tensor, ...]


def time_operators(model: AnytimeModel, images: Tensor, recording: Recording) -> OperatorTimes:
    """One pass of ``model.stream`` over ``images`` with each operator timed; call it inside ``cost.evaluating``."""
    watch = _DeviceWatch(recording, images.device) if images.device.type == "cuda" else _HostWatch()
    clock = host_clock()
    with watch:
        watch.start()
        begin = clock()
        answers = tuple(answers_of(model, images))
        total = (clock() - begin) * 1e-9
    _require_same_calls(recording.calls, watch.calls)
    seconds, inside = watch.read(recording)
    return OperatorTimes(seconds, inside, total, answers)


def host_clock() -> Callable[[], int]:
    """Nanoseconds: of this thread alone on one intra-op thread, so that a wait for a core counts nothing; else of the
    wall, because the thread then waits for its helpers."""
    return thread_time_ns if torch.get_num_threads() == 1 else perf_counter_ns


def dispatches(recording: Recording) -> NDArray[np.int64]:
    """How many calls each operator's time covers ``(N,)``: itself, and the views made since the operator before it."""
    ends = [position for position, call in enumerate(recording.calls) if call.operator is not None]
    return np.diff([-1, *ends])


class _HostWatch(TorchDispatchMode):
    """Reads the host clock around every call. Little else, because all that it does is measured with the model."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[int, ...] | None]] = []
        self._clock = host_clock()
        self._begin: list[int] = []
        self._end: list[int] = []

    def start(self) -> None:
        self._started = self._clock()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ANNOUNCEMENT:
            return func(*args, **(kwargs or {}))
        begin = self._clock()
        result = func(*args, **kwargs) if kwargs else func(*args)
        self._end.append(self._clock())
        self._begin.append(begin)
        self.calls.append((func, shape_of(result)))
        return result

    def read(self, recording: Recording) -> tuple[Floats, Floats]:
        mask = np.array([call.operator is not None for call in recording.calls], dtype=bool)
        begin, end = np.array(self._begin, dtype=np.int64), np.array(self._end, dtype=np.int64)
        return np.diff(end[mask], prepend=self._started) * 1e-9, (end - begin)[mask] * 1e-9


class _DeviceWatch(TorchDispatchMode):
    """Two CUDA events around every operator, which starts on an idle device with its kernels queued already."""

    supports_higher_order_operators = True

    def __init__(self, recording: Recording, device: torch.device) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[int, ...] | None]] = []
        self._recorded, self._device = recording.calls, device
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._empty = [self._around(lambda: None)[1] for _ in range(20)]

    def start(self) -> None:
        torch.cuda.synchronize(self._device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ANNOUNCEMENT:
            return func(*args, **(kwargs or {}))
        position = len(self.calls)
        is_view = position < len(self._recorded) and self._recorded[position].operator is None
        if is_view:
            result = func(*args, **(kwargs or {}))
        else:
            result, events = self._around(lambda: func(*args, **(kwargs or {})))
            self._events.append(events)
        self.calls.append((func, shape_of(result)))
        return result

    def _around(self, run: Any) -> tuple[Any, tuple[torch.cuda.Event, torch.cuda.Event]]:
        torch.cuda.synchronize(self._device)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(BUSY_CYCLES)
        before.record()
        result = run()
        after.record()
        return result, (before, after)

    def read(self, recording: Recording) -> tuple[Floats, Floats]:
        torch.cuda.synchronize(self._device)
        nothing = float(np.median([before.elapsed_time(after) for before, after in self._empty]))
        times = [before.elapsed_time(after) - nothing for before, after in self._events]
        seconds = np.maximum(times, 0.0) * 1e-3
        return seconds, seconds


def _require_same_calls(recorded: Sequence[Call], seen: Sequence[tuple[Any, tuple[int, ...] | None]]) -> None:
    advice = "the stream must run the same operators on the same shapes for every image"
    for position, (call, (function, shape)) in enumerate(zip(recorded, seen, strict=False)):
        if call.function is not function or call.shape != shape:
            raise SpanError(
                f"call {position} was {call.function} of shape {call.shape} in one recording and {function} of shape "
                f"{shape} in another: {advice}"
            )
    if len(recorded) != len(seen):
        raise SpanError(f"stream made {len(recorded)} calls in one recording and {len(seen)} in another: {advice}")
