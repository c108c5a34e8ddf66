"""What a check looks at: a freshly built, deliberately unsettled model of a method, and seeded inputs for it.

Images are ``(B, D, H, W)``, answers ``(E, B, C)``. The model runs in float64 wherever it can, so that "equal" means
equal to rounding and a small fault cannot pass for noise; a model that only runs in float32 is compared with a wider
tolerance. Its parameters are jittered and its batch norms have seen data, because a zero-initialised head or an
untouched batch norm would make every answer alike and hide most faults.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from anytime_bench.methods.contract import AnytimeModel, Method
from anytime_bench.tasks.task import TaskCard

#: Largest difference, relative to the largest logit, that still counts as rounding.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
#: Standard deviation of the jitter, relative to a parameter's root mean square (to 1 where that is 0).
JITTER = 0.1


class CheckFailure(AssertionError):
    """The method breaks the contract; the message says where and how to fix it."""


class NotApplicable(Exception):
    """The check asks nothing of this method; the message is the reason."""


class Doubt(Exception):
    """The check holds as far as it can be proved, but the message is what a reader must know: a warning."""


def require(condition: bool, message: str) -> None:
    """Raise ``CheckFailure`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise CheckFailure(message)


def synthetic_task(size: int = 16, channels: int = 3, classes: int = 4) -> TaskCard:
    """A task card of ``channels x size x size`` images without any data: checks draw random images."""
    return TaskCard(
        name=f"synthetic{size}",
        title=f"Synthetic ({size}x{size})",
        classes=tuple(str(index) for index in range(classes)),
        shape=(channels, size, size),
        sizes={"train": 64, "val": 32, "test": 32},
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        source="drawn at random by the checks",
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Fix the random state of torch, NumPy and Python inside the block and put the old one back after it."""
    # NumPy's legacy global state is what a plugin's np.random.normal() draws from.
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


class Subject:
    """One method on one task. Every ``model()`` is an independent copy, so that no check disturbs another."""

    def __init__(self, method: Method, task: TaskCard, seed: int = 0) -> None:
        self.method, self.task, self.seed = method, task, seed
        self.dtype = torch.float64

    def build(self, seed: int | None = None) -> AnytimeModel:
        """A new float32 model in training mode, its lazy parameters made real by one batch."""
        with seeded(self.seed if seed is None else seed):
            model = self.method.build(self.task)
            if any(is_lazy(parameter) for parameter in model.parameters()):
                with torch.no_grad():
                    list(model.eval().stream(torch.zeros(2, *self.task.shape)))
        return model.train()

    @cached_property
    def _prepared(self) -> AnytimeModel:
        model = self.build()
        require(
            isinstance(model, AnytimeModel),
            f"build returned {type(model).__name__}: derive the model from anytime_bench.methods.contract.AnytimeModel",
        )
        unsettle(model, self.task, self.seed)
        in_float64 = copy.deepcopy(model).double().eval()
        try:
            with torch.no_grad(), seeded(self.seed):
                list(in_float64.stream(self.images("dtype", 1)))
                in_float64(self.images("dtype", 1))
        except (RuntimeError, TypeError):  # a model that mixes dtypes is fit for use, but only in float32
            self.dtype = torch.float32
            return model.eval()
        return in_float64

    def model(self) -> AnytimeModel:
        """An independent copy of the prepared model, in eval mode."""
        return copy.deepcopy(self._prepared)

    def images(self, purpose: str, batch: int = 1) -> Tensor:
        """Random images ``(batch, D, H, W)``, always the same for one purpose and never shared by two."""
        return self._normal(purpose, batch, *self.task.shape)

    def frames(self, purpose: str, count: int, batch: int = 2) -> Tensor:
        """Random frames ``(count, batch, D, H, W)``."""
        return self._normal(purpose, count, batch, *self.task.shape)

    def _normal(self, purpose: str, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + zlib.crc32(purpose.encode()))
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.dtype)


def unsettle(model: AnytimeModel, task: TaskCard, seed: int) -> None:
    """Jitter all trainable parameters and let batch norms see data; in place."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad(), seeded(seed):
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                size = float(parameter.square().mean().sqrt()) or 1.0
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_((JITTER * size * noise).to(parameter.dtype))
        try:
            model.train()(torch.randn(4, *task.shape, generator=generator))
        except Exception:  # a model that cannot run in training mode is reported by the gradient check
            return
        finally:
            model.eval()


def stream_answers(model: AnytimeModel, images: Tensor, stop: int | None = None, seed: int = 0) -> list[Tensor]:
    """Answers of ``stream`` up to and including exit ``stop`` (None: all), gradients off, random state fixed."""
    answers: list[Tensor] = []
    with torch.no_grad(), seeded(seed):
        stream = model.stream(images.clone())
        for logits in stream:
            answers.append(logits.clone() if isinstance(logits, Tensor) else logits)
            if stop is not None and len(answers) > stop:
                break
    return answers


def forward_answers(model: AnytimeModel, images: Tensor, seed: int = 0) -> Tensor:
    """Answers ``(E, B, C)`` of ``forward``, gradients off, random state fixed."""
    with torch.no_grad(), seeded(seed):
        return model(images.clone())


def watch_answers(model: AnytimeModel, frames: Tensor, stop: int | None = None, seed: int = 0) -> list[Tensor]:
    """Answers of ``watch`` up to and including exit ``stop``, gradients off, random state fixed."""
    answers: list[Tensor] = []
    with torch.no_grad(), seeded(seed):
        for logits in model.watch(frames.clone()):
            answers.append(logits.clone() if isinstance(logits, Tensor) else logits)
            if stop is not None and len(answers) > stop:
                break
    return answers


def differing_exit(answers: list[Tensor] | Tensor, expected: list[Tensor] | Tensor) -> tuple[int, float] | None:
    """The first exit whose answers differ by more than rounding, with the relative difference; None where equal.

    NaN equals NaN here: finiteness is a check of its own.
    """
    for index, (one, other) in enumerate(zip(answers, expected, strict=True)):
        tolerance = TOLERANCE.get(one.dtype, TOLERANCE[torch.float32])
        one, other = one.double(), other.double()
        if one.shape != other.shape:
            return index, float("inf")
        apart = (one - other).abs()
        apart = torch.where((one == other) | (one.isnan() & other.isnan()), torch.zeros_like(apart), apart)
        apart = apart.nan_to_num(nan=float("inf"))
        scale = max(float(other[other.isfinite()].abs().max()) if bool(other.isfinite().any()) else 0.0, 1e-6)
        if float(apart.max()) > tolerance * scale:
            return index, float(apart.max()) / scale
    return None


def require_equal(
    answers: list[Tensor] | Tensor, expected: list[Tensor] | Tensor, describe: Callable[[int], str]
) -> None:
    """Fail with ``describe(exit)`` and the size of the difference at the first exit that differs."""
    different = differing_exit(answers, expected)
    if different is not None:
        raise CheckFailure(f"{describe(different[0])} (relative difference {different[1]:.1e})")
