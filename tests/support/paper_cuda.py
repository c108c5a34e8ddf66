"""A CUDA of paper: streams, events and graph captures with the rules of the real ones, for operators run on the CPU.

An operator may read what has *happened before* on its stream: what ran there earlier, and what an event it waited for
had seen. Reading anything else is a race, and raises. So does what CUDA refuses under capture: waiting for an event of
another capture or of none, working on a stream outside the capture, ending a capture with a stream not joined.
Every operator takes ``cost(operator)`` of paper time, so a machine also tells how long a schedule takes. Reads on
another stream than a tensor's own must be announced by ``record_stream`` (``unannounced`` lists those that were not).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Race(AssertionError):
    """An operator that reads what may not be there yet, or a capture that CUDA would refuse."""


class Event:
    def __init__(self, seen: frozenset[int], time: float, capture: int | None) -> None:
        self.seen, self.time, self.capture = seen, time, capture


class Stream:
    def __init__(self, machine: PaperCuda, number: int) -> None:
        self.machine, self.cuda_stream = machine, number
        self.seen: frozenset[int] = frozenset()
        self.time = 0.0
        self.capture: int | None = None

    def record_event(self) -> Event:
        return Event(self.seen, self.time, self.capture)

    def wait_event(self, event: Event) -> None:
        live = self.machine.capture
        if event.capture is not None and event.capture != live:
            raise Race("waits for an event of another capture")
        if self.capture is not None and event.capture is None:
            raise Race("waits, within a capture, for an event outside of it")
        self.capture = event.capture if self.capture is None else self.capture
        self.seen, self.time = self.seen | event.seen, max(self.time, event.time)


class PaperCuda(TorchDispatchMode):
    """To be installed by ``paper_cuda(monkeypatch)`` and entered where work is to be watched."""

    def __init__(self, cost: Callable[[str], float], streams: int = 32) -> None:
        super().__init__()
        self.cost = cost
        self.pool = [Stream(self, number) for number in range(1, streams + 1)]
        self.dealt = 0
        self.current = Stream(self, 0)
        self.capture: int | None = None
        self.captures = 0
        self.done: frozenset[int] = frozenset()
        self.operators = 0
        self.writer: dict[int, tuple[int, Stream]] = {}
        self.alive: list[Tensor] = []  # storages must not be reused, or their numbers would lie
        self.foreign: set[tuple[int, int]] = set()
        self.announced: set[tuple[int, int]] = set()

    def new_stream(self, device: Any = None) -> Stream:
        self.dealt += 1
        return self.pool[(self.dealt - 1) % len(self.pool)]

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def captured(self) -> Iterator[Stream]:
        """A graph capture, begun on a stream of its own and replayed once when it ends."""
        origin = self.new_stream()
        self.captures += 1
        self.capture = origin.capture = self.captures
        origin.time = 0.0
        self.done |= frozenset(range(self.operators + 1))  # torch synchronises the device before it captures
        with self.on(origin):
            yield origin
        for stream in self.pool:
            if stream.capture is not None and not stream.seen <= origin.seen:
                raise Race("the capture ends with a stream that has not joined")
            stream.capture, stream.time = None, 0.0
        self.done, self.capture = self.done | origin.seen, None

    def record_stream(self, tensor: Tensor, stream: Stream) -> None:
        self.announced.add((storage_of(tensor), stream.cuda_stream))

    @property
    def unannounced(self) -> int:
        return len(self.foreign - self.announced)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stream = self.current
        if self.capture is not None and stream.capture is None:
            raise Race(f"{func} runs outside the capture")
        read = {storage_of(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for storage in read & self.writer.keys():
            number, home = self.writer[storage]
            if number not in stream.seen | self.done:
                raise Race(f"{func} reads what may not be there yet")
            if home is not stream:
                self.foreign.add((storage, stream.cuda_stream))
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        stream.seen |= {self.operators}
        stream.time += self.cost(func._schema.name)
        for tensor in (x for x in tree_leaves(result) if isinstance(x, Tensor)):
            storage = storage_of(tensor)
            home = self.writer[storage][1] if storage in self.writer else stream
            if storage not in read or func._schema.is_mutable:
                self.writer[storage] = self.operators, home
            self.alive.append(tensor)
        return result


def storage_of(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def paper_cuda(monkeypatch: Any, cost: Callable[[str], float] = lambda operator: 1.0, streams: int = 32) -> PaperCuda:
    """A machine in the place of ``torch.cuda``'s streams and of ``Tensor.record_stream``."""
    machine = PaperCuda(cost, streams)
    fakes: dict[str, Any] = {
        "Stream": machine.new_stream,
        "stream": machine.on,
        "current_stream": lambda device=None: machine.current,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: machine.current.capture is not None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: machine.record_stream(tensor, stream))
    return machine
