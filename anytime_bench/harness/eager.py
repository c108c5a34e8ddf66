"""Engines that run a model's own Python while it is timed: as it is, or with its modules compiled.

An engine holds one model and one input buffer; ``load`` copies the images in (untimed) and ``run_through`` and
``prefix`` do the work, calling ``clock.start`` before any of it and ``clock.mark`` when an answer is there. The clock
starts before ``model.stream`` is called, so that work done ahead of the first answer is part of the first answer.

Errors: ``EngineError`` where an engine cannot run a model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from anytime_bench.harness.clocks import Clock
from anytime_bench.methods.contract import AnytimeModel

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

    def prepare(self, prefixes: Iterable[int]) -> None:
        """Make ready, untimed, what ``prefix`` needs for these exits."""

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

    def __init__(self, model: AnytimeModel, images: Tensor, stream: Stream | None = None) -> None:
        if stream is not None:
            raise EngineError("further executions of a model are bound to it, and what is compiled is a copy")
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
            raise EngineError(f"torch.compile failed: {first_line(error)}") from error


def directly_called(model: AnytimeModel, images: Tensor) -> list[nn.Module]:
    """The modules that ``model.stream`` calls itself, not those called by other modules, in order of first call."""
    depth = 0
    called: dict[int, nn.Module] = {}

    def enter(module: nn.Module, args: Any) -> None:
        nonlocal depth
        if depth == 0:
            called.setdefault(id(module), module)
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
    return list(called.values())


def first_line(error: Exception) -> str:
    """The class of an error and the first line of its text."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
