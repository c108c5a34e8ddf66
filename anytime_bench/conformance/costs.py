"""Checks of what a model costs: ticks, laziness, MACs per exit, and no work saved between calls.

Nothing is timed: MACs come from ``torch.utils.flop_counter`` and work without MACs is counted in dispatched
operations, so a check gives the same verdict on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.conformance.fixture import Doubt, NotApplicable, Subject, require, seeded
from anytime_bench.harness.operator_recording import operator_graph
from anytime_bench.harness.schedule import growth_gap, span

#: A chain of operators may grow by this factor faster than the declared ticks; the suite's own rows stay below 1.5.
TICKS_FACTOR = 2.0


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


@lru_cache(maxsize=1)
def spent_until(subject: Subject) -> tuple[list[int], str]:
    """What one image costs until each exit's answer (cumulative) and, last, until the stream ends; and the unit."""
    model, images = subject.model(), subject.images("cost")
    marks: list[tuple[int, int]] = []
    with torch.no_grad(), seeded(0), FlopCounterMode(display=False) as flops, _OperationCounter() as operations:
        for _ in model.stream(images):
            marks.append((flops.get_total_flops() // 2, operations.operations))
        marks.append((flops.get_total_flops() // 2, operations.operations))
    counts_macs = marks[-1][0] > 0
    return [macs if counts_macs else count for macs, count in marks], "MACs" if counts_macs else "operations"


def check_ticks(subject: Subject) -> None:
    """``ticks`` has one finite, positive entry per exit, strictly increasing."""
    model = subject.model()
    ticks = [float(tick) for tick in model.ticks]
    sound = all(math.isfinite(tick) and tick > 0 for tick in ticks)
    require(
        len(ticks) == model.num_exits and sound and all(a < b for a, b in pairwise(ticks)),
        f"ticks = {ticks} for {model.num_exits} exits: give one positive tick per exit, each later than the one before",
    )


def check_lazy(subject: Subject) -> None:
    """Work for a later exit starts only when that exit is asked for (a model of one exit is exempt)."""
    if subject.model().num_exits == 1:
        raise NotApplicable("one exit: there is nothing to stop")
    spent, unit = spent_until(subject)
    require(
        spent[0] < spent[-1],
        f"all {spent[-1]} {unit} are spent before the first answer: yield each exit before the work of the next begins",
    )


def check_macs_increase(subject: Subject) -> None:
    """Each further exit costs MACs, or there would be no reason to stop before it."""
    spent = spent_until(subject)[0][:-1]
    free = [k for k, (before, after) in enumerate(pairwise([0, *spent])) if after <= before]
    require(
        not free,
        f"exits {free} cost no MACs beyond the exit before them (cumulative: {spent}): drop them, or start their work "
        "only when they are asked for",
    )


def check_ticks_span(subject: Subject) -> None:
    """``ticks`` grow about as fast as the longest chain of operators behind each exit (otherwise a warning).

    A chain of operators takes parallel time in proportion to its MACs where operators are large, and to its length
    where they are small; only where ticks fall behind both is there no hardware on which they could hold.
    """
    model = subject.model()
    graph = operator_graph(model, subject.images("span"))
    lengths = {"MACs": span(graph, graph.macs), "operators": span(graph, [1.0] * len(graph))}
    gap = growth_gap(model.ticks, *lengths.values())
    if gap.factor > TICKS_FACTOR:
        ticks = [float(model.ticks[k]) for k in gap.exits]
        chains = [
            f"{length[gap.exits[0]]:.0f} to {length[gap.exits[1]]:.0f} {what}" for what, length in lengths.items()
        ]
        raise Doubt(
            f"from exit {gap.exits[0]} to exit {gap.exits[1]} ticks grow from {ticks[0]:g} to {ticks[1]:g}, but the "
            f"longest chain of operators from {' and '.join(chains)}: {gap.factor:.1f} times as fast, expected at most "
            f"{TICKS_FACTOR:g}. Ticks are ideal parallel time: count every step that waits for the one before it"
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
