"""Parallel hardware for a cascade: the delayed residuals of one step on side streams, captured as branches of a graph.

Under the one-step delay, step k needs F_l(in_l(k-1)) of every block, and these are independent: each is forked to a
lane of its own, as soon as its input is there, while the main line walks the cheap chain of shortcuts and joins each
residual where it is added. The longest path is then that of one serial ResNet, whatever the number of steps. Captured
in a CUDA graph, the lanes become parallel branches. Exponential smoothing needs F_l(in_l(k)) within step k, a chain
with nothing to fork.

A *lane* is one block's side line; ``Inline`` runs it on the spot, ``StreamLanes`` on a CUDA stream.

Shapes: images ``(B, D, H, W)``, features ``(B, C, H, W)``, logits ``(B, C)``. Source: the paper assumes such hardware
(Iuzzolino et al., NeurIPS 2021, section 3); this makes it a thing to measure.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel


class Lanes(Protocol):
    """Where the residuals of one step run."""

    def mark(self) -> Any:
        """A token for this point of the main line: what was done before it can be read by a lane that waits."""

    def launch(self, lane: int, after: Any, work: Callable[[Tensor], Tensor], x: Tensor) -> Any:
        """Start ``work(x)`` in ``lane`` once the main line has passed ``after``; returns a token for ``join``."""

    def join(self, pending: Any) -> Tensor:
        """The result, safe to use on the main line from here on."""


class Inline:
    """No parallelism: a residual is computed where it is launched."""

    def mark(self) -> None:
        return None

    def launch(self, lane: int, after: None, work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return work(x)

    def join(self, pending: Tensor) -> Tensor:
        return pending


class StreamLanes:
    """One CUDA stream per block. Works eagerly and under graph capture, where the lanes become parallel branches.

    Every launch is joined within its step, so no lane is left open at the end of a capture. A tensor read on another
    stream than its own is recorded there, so that the allocator does not hand out its memory too early.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.device = device
        self.streams = [torch.cuda.Stream(device) for _ in range(count)]

    def mark(self) -> torch.cuda.Event:
        return torch.cuda.current_stream(self.device).record_event()

    def launch(
        self, lane: int, after: torch.cuda.Event, work: Callable[[Tensor], Tensor], x: Tensor
    ) -> tuple[Tensor, torch.cuda.Event]:
        stream = self.streams[lane]
        stream.wait_event(after)
        with torch.cuda.stream(stream):
            result = work(x)
        x.record_stream(stream)
        return result, stream.record_event()

    def join(self, pending: tuple[Tensor, torch.cuda.Event]) -> Tensor:
        result, done = pending
        main = torch.cuda.current_stream(self.device)
        main.wait_event(done)
        result.record_stream(main)
        return result


def lanes_for(images: Tensor, blocks: int, forks: bool) -> Lanes:
    """Streams where there is something to fork and a GPU to fork on, outside training; else inline."""
    if forks and images.is_cuda and not torch.is_grad_enabled():
        return StreamLanes(blocks, images.device)
    return Inline()


class GraphedAnswers:
    """A model's first ``exits`` answers for images of one shape, replayed from one CUDA graph.

    ``GraphedAnswers(model, images)(images)`` gives logits ``(exits, B, C)``. With ``alone=True`` only the last of those
    exits is computed, by ``model.answer``, and the result is ``(1, B, C)``. The model must be in eval mode, and its
    weights must stay where they are. Raises ValueError without a CUDA tensor, in training mode, or for another shape.
    """

    def __init__(self, model: AnytimeModel, images: Tensor, exits: int | None = None, alone: bool = False) -> None:
        if not images.is_cuda:
            raise ValueError(
                f"images are on {images.device}, but a CUDA graph needs a CUDA device: move model and images"
            )
        if model.training:
            raise ValueError("the model is in training mode, but a graph replays evaluation: call model.eval() first")
        exits = model.num_exits if exits is None else exits
        self.images = images.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.device(images.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries choose their kernels and allocate before the capture
                for _ in range(3):
                    _answers(model, self.images, exits, alone)
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            with torch.cuda.graph(self.graph):
                self.logits = _answers(model, self.images, exits, alone)

    def replay(self) -> Tensor:
        """Run the graph on the images last given; the result is overwritten by the next replay."""
        self.graph.replay()
        return self.logits

    def __call__(self, images: Tensor) -> Tensor:
        """Logits for new ``images`` of the captured shape, in a tensor of their own."""
        if images.shape != self.images.shape:
            raise ValueError(f"images have shape {tuple(images.shape)}, captured was {tuple(self.images.shape)}")
        self.images.copy_(images)
        return self.replay().clone()


def _answers(model: AnytimeModel, images: Tensor, exits: int, alone: bool) -> Tensor:
    if alone:
        return model.answer(images, exits - 1).unsqueeze(0)
    return torch.stack(list(islice(model.stream(images), exits)))
