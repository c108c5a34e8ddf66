"""Checks of what a model costs: ticks, laziness, MACs per exit, and no work saved between calls.

Nothing is timed: MACs come from ``torch.utils.flop_counter`` and work without MACs is counted in dispatched
operations, so a check gives the same verdict on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.checks.subject import NotApplicable, Subject, require, seeded
from anytime_bench.method import AnytimeModel


class _OperationCounter(TorchDispatchMode):
    """Counts dispatched operations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def work(action: Callable[[], Any]) -> tuple[int, int]:
    """(MACs, dispatched operations) of ``action()``, gradients off."""
    with torch.no_grad(), FlopCounterMode(display=False) as flops, _OperationCounter() as operations:
        action()
    return flops.get_total_flops() // 2, operations.operations


def work_per_exit(model: AnytimeModel, images: Tensor) -> tuple[list[int], list[int]]:
    """MACs and dispatched operations spent until each exit's answer (cumulative), and last until the stream ends."""
    marks: list[tuple[int, int]] = []
    with torch.no_grad(), seeded(0), FlopCounterMode(display=False) as flops, _OperationCounter() as operations:
        for _ in model.stream(images):
            marks.append((flops.get_total_flops() // 2, operations.operations))
        marks.append((flops.get_total_flops() // 2, operations.operations))
    return [macs for macs, _ in marks], [count for _, count in marks]


def check_ticks(subject: Subject) -> None:
    """``ticks`` has one finite, positive entry per exit, strictly increasing."""
    model = subject.model()
    ticks = [float(tick) for tick in model.ticks]
    sound = all(math.isfinite(tick) and tick > 0 for tick in ticks)
    require(
        len(ticks) == model.num_exits and sound and all(a < b for a, b in zip(ticks, ticks[1:], strict=False)),
        f"ticks = {ticks} for {model.num_exits} exits: give one positive tick per exit, each later than the one before",
    )


def check_lazy(subject: Subject) -> None:
    """Work for a later exit starts only when that exit is asked for (a model of one exit is exempt)."""
    model = subject.model()
    if model.num_exits == 1:
        raise NotApplicable("one exit: there is nothing to stop")
    macs, operations = work_per_exit(model, subject.images("lazy", 2))
    spent, total, unit = (macs[0], macs[-1], "MACs") if macs[-1] else (operations[0], operations[-1], "operations")
    require(
        spent < total,
        f"all {total} {unit} are spent before the first answer: yield each exit before the work of the next begins",
    )


def check_macs_increase(subject: Subject) -> None:
    """Each further exit costs MACs, or there would be no reason to stop before it."""
    model = subject.model()
    macs, operations = work_per_exit(model, subject.images("macs", 2))
    spent = (macs if macs[-1] else operations)[: model.num_exits]
    free = [k for k, (before, after) in enumerate(zip([0, *spent], spent, strict=False)) if after <= before]
    require(
        not free,
        f"exits {free} cost no MACs beyond the exit before them (cumulative: {spent}): drop them, or start their work "
        "only when they are asked for",
    )


def check_same_input_twice(subject: Subject) -> None:
    """The second call on the same images does as much work as the first: nothing is cached between calls."""
    model = subject.model()
    images, others = subject.images("twice"), subject.images("before twice")
    ways: dict[str, Callable[[Tensor], Any]] = {
        "stream": lambda x: list(model.stream(x)),
        "forward": model,
        "answer": lambda x: model.answer(x, model.num_exits - 1),
    }
    for name, ask in ways.items():
        # One-time preparations that do not depend on the images, such as index tables, are done after this call.
        work(lambda ask=ask: ask(others))  # type: ignore[misc]
        first = work(lambda ask=ask: ask(images))  # type: ignore[misc]
        second = work(lambda ask=ask: ask(images))  # type: ignore[misc]
        require(
            second[0] >= first[0] and second[1] >= first[1],
            f"{name} did {second[0]} MACs and {second[1]} operations on images it had seen, {first[0]} and {first[1]} "
            "the first time: keep nothing of an input between calls",
        )
