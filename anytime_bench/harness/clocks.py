"""Clocks. *Latency* is what a user waits: host clock, device synchronised. *Device time* is CUDA events on the stream.

A clock is started, marked once per answer, and read: ``start(); mark(); ...; read() -> seconds (n,)`` since start.
What the clock itself does at a mark is taken out of the times that follow.

``HostClock.queue`` holds, for the same marks, how long the calling thread stood ready but without a core since start:
the kernel's run delay (``/proc/thread-self/schedstat``, Linux only; None elsewhere). Waiting of its own accord
(a sleep, a device) is no run delay and stays in the latency.

The perf_counter of CPython is CLOCK_MONOTONIC on Linux: nanoseconds, never set back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from time import perf_counter, perf_counter_ns

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make a CUDA ``device`` the current one, whose streams and events are meant where none is named."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield


def synchroniser(device: torch.device) -> Callable[[], None]:
    """A call that returns when all work queued on ``device`` is done; nothing to wait for on the CPU."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def answer_seconds(model: AnytimeModel, images: Tensor, exit: int = -1) -> float:
    """Latency of one answer alone, by default the last, on an idle device."""
    return seconds_of(lambda: model.answer(images, exit % model.num_exits), images.device)


def exit_seconds(model: AnytimeModel, images: Tensor) -> list[float]:
    """Latency of every exit ``(E,)``, one after the other from one start, on an idle device."""
    synchronise = synchroniser(images.device)
    synchronise()
    times, begun = [], perf_counter()
    for _ in model.stream(images):
        synchronise()
        times.append(perf_counter() - begun)
    return times


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until all that ``work`` queues on ``device`` is done, on an idle device."""
    synchronise = synchroniser(device)
    synchronise()
    begun = perf_counter()
    work()
    synchronise()
    return perf_counter() - begun


class RunDelay:
    """Nanoseconds the thread that made this object has spent runnable without a core, so far."""

    def __init__(self) -> None:
        self._file: int | None = None
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
            self()
        except (OSError, ValueError, IndexError):
            self.close()

    @property
    def available(self) -> bool:
        return self._file is not None

    def __call__(self) -> int:
        return 0 if self._file is None else int(os.pread(self._file, 96, 0).split()[1])

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


class HostClock:
    """Latency on the host clock; every mark waits for the device first, as a host that reads the answer must."""

    def __init__(self, device: torch.device) -> None:
        self._synchronise = synchroniser(device)
        self._delay = RunDelay()
        self._times: list[int] = []
        self._queue: list[int] = []
        self._origin = self._own = self._queue_origin = 0

    @property
    def sees_queue(self) -> bool:
        return self._delay.available

    def start(self) -> None:
        self._times, self._queue, self._own = [], [], 0
        self._synchronise()
        self._queue_origin = self._delay()
        self._origin = perf_counter_ns()

    def mark(self) -> None:
        self._synchronise()
        now = perf_counter_ns()
        self._times.append(now - self._origin - self._own)
        queued = self._delay()
        self._queue.append(queued - self._queue_origin)
        self._own += perf_counter_ns() - now

    def read(self) -> NDArray[np.float64]:
        return np.array(self._times) * 1e-9

    def queue(self) -> NDArray[np.float64]:
        return np.minimum(np.array(self._queue), np.array(self._times)) * 1e-9


class EventClock:
    """Device time by CUDA events recorded on the current stream; reading waits for the device."""

    sees_queue = False

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: list[torch.cuda.Event] = []

    def start(self) -> None:
        # An idle device first, so that work queued before the start is not counted.
        torch.cuda.synchronize(self._device)
        self._events = []
        self.mark()

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def read(self) -> NDArray[np.float64]:
        torch.cuda.synchronize(self._device)
        first, *rest = self._events
        return np.array([first.elapsed_time(event) for event in rest]) * 1e-3

    def queue(self) -> NDArray[np.float64]:
        return np.zeros(len(self._events) - 1)


Clock = HostClock | EventClock


class CacheFlush:
    """Overwrites more memory than the last-level cache holds, so that the next inference finds its weights cold."""

    def __init__(self, device: torch.device) -> None:
        size = 64 << 20
        if device.type == "cuda":
            size = 2 * int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", size // 2))
        self._buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self._synchronise = synchroniser(device)
        self._value = 0

    def __call__(self) -> None:
        self._value = (self._value + 1) % 251
        self._buffer.fill_(self._value)
        self._synchronise()
