"""Parallel hardware for a cascade: every block in a lane of its own, so that work moves through the blocks as a wave.

Under the one-step delay, block l needs at step k its input in_l(k), which comes from block l-1 at the same step, and
its own residual F_l(in_l(k-1)), known since the step before. So block l's lane holds the residual and the sum with the
shortcut (the *join*), one after the other; heads have a lane too, and so does the stem. A lane waits for what it needs
of another and for nothing else: while block L still works on step k, block 1 is steps ahead. The longest path is about
that of one serial ResNet, whatever the number of steps. Exponential smoothing needs F_l(in_l(k)) within step k, a chain
with nothing to spread.

``Inline`` runs everything on the spot, ``StreamLanes`` on one CUDA stream per lane. What a lane gives back is a *token*
for a tensor that may not be there yet; two tokens are the same object exactly where the tensors are.

Shapes: images ``(B, D, H, W)``, features ``(B, C, H, W)``, logits ``(B, C)``. Source: the paper assumes such hardware
(Iuzzolino et al., NeurIPS 2021, section 3); this makes it a thing to measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from baselines.cascade.fast import add_relu

#: Streams of a device that are ever used side by side; deeper networks share them. torch has 32 in all.
MAX_LANES = 16


class Lanes(Protocol):
    """Where the parts of a cascade run. Lane 0 is the stem's, lane l block l's, lane L + 1 the heads'."""

    def begin(self) -> None:
        """A step of the cascade begins."""

    def give(self, x: Tensor) -> Any:
        """A token for a tensor that the main line has."""

    def run(self, lane: int, work: Callable[..., Tensor], *inputs: Any) -> Any:
        """A token for ``work(*inputs)``, done in ``lane`` once the tensors behind the tokens ``inputs`` are there."""

    def take(self, token: Any) -> Tensor:
        """The tensor behind a token, safe to use on the main line from here on."""

    def add_relu(self, a: Tensor, b: Tensor) -> Tensor:
        """relu(a + b), neither of which changes."""


class Inline:
    """No parallelism: everything is done where it is asked for, and a token is the tensor itself."""

    def begin(self) -> None:
        pass

    def give(self, x: Tensor) -> Tensor:
        return x

    def run(self, lane: int, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return work(*inputs)

    def take(self, token: Tensor) -> Tensor:
        return token

    def add_relu(self, a: Tensor, b: Tensor) -> Tensor:
        # Two operators, as in a plain residual block: what is compared with one must not gain by a fused kernel.
        return torch.relu_(a + b)


@dataclass(frozen=True, eq=False)
class Placed:
    """A tensor made on ``stream``, there once ``event`` has passed; ``era`` tells one graph capture from another."""

    value: Tensor
    stream: Any
    event: Any
    era: int


class StreamLanes:
    """One CUDA stream per lane. Works eagerly and under graph capture, where the lanes become parallel branches.

    A graph capture sees a stream only once it has waited for an event of that very capture. So a new *era* begins with
    the first step inside a capture: lanes fork anew from where the main line then stands, and tensors of an earlier era
    are not waited for (their graph has run to its end before this one starts). All work of a step leads to its answer,
    so a capture that ends with an answer leaves no lane open. A tensor read on another stream than its own is recorded
    there, so that the allocator does not hand out its memory too early.
    """

    add_relu = staticmethod(add_relu)

    def __init__(self, count: int, device: torch.device) -> None:
        self.device = device
        self.streams = side_streams(count, device)
        self._era, self._origin, self._capturing = 0, None, False  # type: int, Any, bool
        self._forked: dict[Any, None] = {}

    def begin(self) -> None:
        self._main()

    def _main(self) -> Any:
        """The main line's stream; a new era begins where it has entered or left a capture."""
        main = torch.cuda.current_stream(self.device)
        capturing = is_capturing(main)
        # Of the lanes that have forked, the first is in a capture exactly as long as the capture they forked in lasts.
        left = capturing and not any(is_capturing(stream) for stream in list(self._forked)[:1])
        if self._origin is None or capturing != self._capturing or left:
            self._era, self._capturing = self._era + 1, capturing
            self._forked.clear()
            self._origin = main.record_event()
        return main

    def give(self, x: Tensor) -> Placed:
        main = self._main()
        return Placed(x, main, main.record_event(), self._era)

    def run(self, lane: int, work: Callable[..., Tensor], *inputs: Placed) -> Placed:
        stream = self.streams[lane % len(self.streams)]
        if stream not in self._forked:
            stream.wait_event(self._origin)
            self._forked[stream] = None
        for token in inputs:
            if token.era == self._era and token.stream != stream:
                stream.wait_event(token.event)
        with torch.cuda.stream(stream):
            value = work(*(token.value for token in inputs))
        for token in inputs:
            if token.stream != stream:
                token.value.record_stream(stream)
        return Placed(value, stream, stream.record_event(), self._era)

    def take(self, token: Placed) -> Tensor:
        main = self._main()
        if token.stream != main:
            if token.era == self._era:
                main.wait_event(token.event)
            token.value.record_stream(main)
        return token.value


def is_capturing(stream: Any) -> bool:
    """Whether ``stream`` takes part in a graph capture."""
    with torch.cuda.stream(stream):
        return torch.cuda.is_current_stream_capturing()


_side_streams: dict[int, list[Any]] = {}


def side_streams(count: int, device: torch.device) -> list[Any]:
    """Up to ``count`` distinct streams of ``device``, none of them the current one, the same ones every time.

    torch deals out 32 streams per device in turn, so that asking for new ones in every run would soon give one that is
    in use already, and lanes would silently wait for each other.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    streams = _side_streams.setdefault(index, [])
    used = {stream.cuda_stream for stream in streams}
    for _ in range(64):
        if len(streams) > MAX_LANES:  # one to spare, should one be the current stream
            break
        stream = torch.cuda.Stream(device)
        if stream.cuda_stream not in used:
            used.add(stream.cuda_stream)
            streams.append(stream)
    main = torch.cuda.current_stream(device).cuda_stream
    return [stream for stream in streams if stream.cuda_stream != main][: min(count, MAX_LANES)]


def lanes_for(images: Tensor, count: int, spreads: bool) -> Lanes:
    """Streams where there is something to spread and a GPU to spread it on, outside training; else inline."""
    if spreads and images.is_cuda and not torch.is_grad_enabled():
        return StreamLanes(count, images.device)
    return Inline()
