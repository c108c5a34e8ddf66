"""The plugin contract: what an anytime model and a method must offer.

A *method* knows how to build and train a model for a task. A *model* answers once per exit, lazily.
Everything else (data, loop, timing, counting, scoring) belongs to the harness, so no method measures itself.

The smallest useful method::

    class TwoExits(AnytimeModel):
        num_exits, ticks = 2, (1, 2)

        def __init__(self, task):
            super().__init__()
            self.body = nn.Conv2d(task.shape[0], 16, 3, padding=1)
            self.early, self.late = nn.LazyLinear(task.num_classes), nn.LazyLinear(task.num_classes)

        def stream(self, images):
            yield self.early(images.flatten(1))
            yield self.late(self.body(images).relu().flatten(1))

Shapes used throughout: images ``(B, D, H, W)``, logits per exit ``(B, C)``, logits of all exits ``(E, B, C)``,
frames ``(F, B, D, H, W)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.tasks.task import TaskCard


@dataclass(frozen=True)
class MethodCard:
    """What a reader of the leaderboard must know about a method.

    ``deviations`` names every point at which the code departs from the paper, quirks reproduced or fixed included.
    ``ticks`` says in one sentence what one tick of ideal parallel time is for this method.
    ``reported`` holds published final accuracies in [0, 1] by task name, where there are any.
    ``family`` names a set of rows that are alternatives to each other, such as single-exit networks of several sizes:
    who knows the deadline runs the one that does best by then, so a board may draw the envelope of the rows that name
    the same family. Empty for a row that stands for itself.
    """

    title: str
    paper: str = ""
    year: int | None = None
    url: str = ""
    ticks: str = ""
    deviations: tuple[str, ...] = ()
    reported: Mapping[str, float] = field(default_factory=dict)
    family: str = ""


@dataclass(frozen=True)
class Progress:
    """Where training stands, for losses that change over time. Epochs and steps count from 1."""

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int

    @property
    def fraction(self) -> float:
        """Share of all optimiser steps begun so far, in (0, 1]."""
        return ((self.epoch - 1) * self.steps_per_epoch + self.step) / (self.epochs * self.steps_per_epoch)


class AnytimeModel(nn.Module, ABC):
    """A network with ``num_exits`` answers, exit k being ready at ideal parallel time ``ticks[k]``.

    ``stream`` is the only method a model must define. The harness stops a model by not asking for the next
    exit, so work for exit k+1 must start only when exit k+1 is asked for.
    """

    num_exits: int
    ticks: Sequence[float]

    @abstractmethod
    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """Yield logits ``(B, C)`` for exit 0, 1, ..., ``num_exits - 1`` of ``images (B, D, H, W)``.

        A model with ``compacts = True`` also accepts ``generator.send(keep)`` with a boolean mask ``(B,)`` over the
        samples of the last answer: it goes on with the kept ones alone, and later answers have ``keep.sum()`` rows.
        """

    #: Whether ``stream`` accepts keep-masks through ``send``.
    compacts: ClassVar[bool] = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all exits ``(E, B, C)``. Override with a faster path that gives the same numbers."""
        return torch.stack(list(self.stream(images)))

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit ``k`` alone, for a deadline known in advance.

        Override where exit ``k`` can be had without the heads before it. The answer must equal ``stream``'s.
        """
        for exit_index, logits in enumerate(self.stream(images)):
            if exit_index == k:
                return logits
        raise IndexError(f"exit {k} was asked for, but stream ended after {exit_index + 1} exits")

    def check_exit(self, k: int) -> None:
        """Raise IndexError where there is no exit ``k``: for an ``answer`` of one's own."""
        if not 0 <= k < self.num_exits:
            raise IndexError(f"exit {k} was asked for, but there are {self.num_exits}, counted from 0")

    def watch(self, frames: Tensor) -> Iterator[Tensor]:
        """Yield logits ``(B, C)`` per exit while one frame of ``frames (F, B, D, H, W)`` arrives per tick.

        A stateless model sees only the first frame, which is the default.
        """
        yield from self.stream(frames[0])

    def follow(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield logits ``(B, C)`` after every frame ``(B, D, H, W)`` of a video without end.

        A stateless model answers each frame in full, which is the default. Override where state goes from one frame to
        the next: one step per frame, whose answer need not be full depth.
        """
        for frame in frames:
            yield self.answer(frame, self.num_exits - 1)


@dataclass
class NoOptions:
    """The configuration of a method without options of its own."""


class Method(ABC):
    """One row of the leaderboard: builds a model for a task and says how it learns.

    ``weights_from`` names a method whose trained weights this one evaluates without training; ``starts_from`` names one
    whose trained weights this one begins its own training with. Both may be set on the class or, where they depend on
    the options, on the instance. ``adopt`` maps that method's weights onto this model.
    """

    card: ClassVar[MethodCard]
    Config: ClassVar[type] = NoOptions
    #: The option that receives the part behind the slash in ``family/variant`` method names.
    variant_option: ClassVar[str | None] = None
    weights_from: str | None = None
    starts_from: str | None = None
    #: The method named by ``weights_from`` or ``starts_from``, with the options of the same run; the harness sets it
    #: before ``build``. None where a method is built by hand.
    weights_source: Method | None = None

    def __init__(self, config: Any = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @abstractmethod
    def build(self, task: TaskCard) -> AnytimeModel:
        """A freshly initialised model for ``task``. The harness has seeded torch before the call."""

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Scalar loss of one batch: images ``(B, D, H, W)`` normalised, targets ``(B,)`` int64.

        The default is the mean over exits of the cross-entropy.
        """
        logits = model(images)
        return F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))

    def finish(  # noqa: B027 (optional)
        self, model: AnytimeModel, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    ) -> None:
        """Fit what belongs to the trained network but is not trained with it, in place; by default nothing.

        Called once, after the last epoch and before the weights are stored, with ``model`` in eval mode: for ensembles
        over finished exits, a temperature, recalibrated batch norm. Each call of ``batches`` gives one pass over the
        training split as an epoch sees it: normalised, augmented, shuffled images ``(B, D, H, W)`` and targets
        ``(B,)``. Torch is seeded, so a resumed training ends with the same bits. Parameters that only this method
        moves take no gradient in ``training_loss``: give them ``requires_grad=False``. The validation split is not
        offered, because stopping rules are fitted on it.
        """

    def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
        """Groups for the optimiser: ``params``, and optionally ``weight_decay`` or ``lr_scale``, a factor on the rate.

        They hold every parameter that needs a gradient. The default is one group of all parameters that need gradients.
        """
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    def adopt(self, model: AnytimeModel, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of ``weights_from`` or ``starts_from`` into ``model``; strict by default."""
        model.load_state_dict(dict(weights))

    def skip(self, task: TaskCard) -> str | None:
        """A reason why this method cannot run on ``task``, shown in the plan; None where it can."""
        return None
