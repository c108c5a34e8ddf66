"""A training step as a CUDA graph: forward, backward, clipping and update, replayed for batches of one shape.

The first steps run as they are, on the stream of the capture, so that the optimiser's state exists and algorithms and
workspaces are chosen. What a capture runs would stay as it was, so of a loss it is noted what it reads of ``Progress``:
one that reads the epoch is captured anew in each, one that changes from step to step is never replayed. Batches of
another shape run as they are, and so does everything where the step cannot be captured.

Not run on a GPU: asserted with a graph of paper (``tests/support/paper_graph.py``). Source: PyTorch, "CUDA Graphs",
whole-network capture. Errors: ``UserError`` where the settings do not allow a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import Tensor

from anytime_bench.errors import UserError, message
from anytime_bench.methods.contract import Progress
from anytime_bench.training.config import TrainingConfig

#: Steps that run as they are before the capture.
WARM = 3

#: What of ``Progress`` stays as it is from step to step, if not from epoch to epoch.
_STEADY = frozenset({"epoch", "epochs", "steps_per_epoch"})
_FIELDS = frozenset(field.name for field in fields(Progress))


def check_graph(settings: TrainingConfig, device: torch.device, processes: int = 1) -> None:
    """Refuse ``training.graph`` where no step can be a graph."""
    if not settings.graph:
        return
    if device.type != "cuda":
        raise UserError(f"training.graph=true: CUDA graphs need a CUDA device, and this run is on {device.type}.")
    if settings.accumulate > 1:
        raise UserError(f"training.graph=true with training.accumulate={settings.accumulate}: expected 1.")
    if processes > 1:
        raise UserError(f"training.graph=true under torchrun with {processes} processes: expected one.")


class Step(Protocol):
    """Forward, backward and, with the last of its batches, the optimiser's step."""

    def __call__(self, images: Tensor, targets: Tensor, position: Progress, place: int = 1, batches: int = 1) -> Tensor:
        """The detached loss of ``images (B, D, H, W)``, ``targets (B,)``, number ``place`` of a step's ``batches``."""


class _Noticed(Progress):
    """Progress that notes what is read of it."""

    def __init__(self, progress: Progress) -> None:
        object.__setattr__(self, "read", set())
        super().__init__(*(getattr(progress, field.name) for field in fields(Progress)))

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            object.__getattribute__(self, "read").add(name)
        return super().__getattribute__(name)


class StepGraph:
    """``step`` for batches like the first, replayed; ``warn`` hears once why it cannot be, if it cannot."""

    def __init__(self, step: Step, optimiser: torch.optim.Optimizer, warn: Callable[[str], None]) -> None:
        self._step, self._optimiser, self._warn = step, optimiser, warn
        self._side = torch.cuda.Stream()
        self._shape: torch.Size | None = None
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        #: The epoch of the capture, where its loss depends on it.
        self._epoch: int | None = None
        self._eager = False

    def __call__(self, images: Tensor, targets: Tensor, position: Progress, place: int = 1, batches: int = 1) -> Tensor:
        """The loss of this batch, which makes a step by itself; to be read before the next call."""
        self._shape = self._shape or images.shape
        if self._eager or images.shape != self._shape:
            return self._step(images, targets, position)
        if self._warm < WARM:
            self._warm += 1
            return self._on_side(images, targets, position)
        if self._graph is None or self._epoch not in (None, position.epoch):
            self._capture(images, targets, position)
        if self._graph is None:
            return self._step(images, targets, position)
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._loss

    def _on_side(self, images: Tensor, targets: Tensor, position: Progress) -> Tensor:
        main = torch.cuda.current_stream()
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            loss = self._step(images, targets, position)
        main.wait_stream(self._side)
        return loss

    def _capture(self, images: Tensor, targets: Tensor, position: Progress) -> None:
        self._graph = None  # a graph of an earlier epoch gives its memory back first
        self._images, self._targets = images.clone(), targets.clone()
        noticed, graph, before = _Noticed(position), torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self._side):
                self._loss = self._step(self._images, self._targets, noticed)
        except Exception as error:  # an error of the step's own comes again when it runs as it is
            self._give_up(f"it cannot be captured ({type(error).__name__}: {message(error)})")
        else:
            read: set[str] = object.__getattribute__(noticed, "read")
            if read <= _STEADY:
                self._graph, self._epoch = graph, position.epoch if "epoch" in read else None
            else:
                self._give_up("its loss changes from step to step")
        finally:
            torch.cuda.set_stream(before)

    def _give_up(self, why: str) -> None:
        self._eager = True
        self._optimiser.zero_grad(set_to_none=True)  # gradients of a capture were never computed
        torch.cuda.synchronize()
        self._warn(f"training.graph: the step runs without a graph: {why}.")
