"""What every exit costs in ticks, MACs and parameters, read off a run and not asked of the method.

MACs (multiply-accumulates) are half the FLOPs that ``torch.utils.flop_counter`` counts: convolutions, matrix products
and attention. Normalisation, activations and pooling count zero, as in the literature.

Two ways to reach exit k are counted at batch 1 in eval mode: *run-through* (every answer given on the way, the cost of
being interruptible) and *prefix* (``model.answer(images, k)``, the cost under a deadline known in advance).

A model may offer further ways to run the same computation, as ``executions() -> {name: stream function}``; a cascade
offers ``dense`` (nothing reused between steps) and so shows what reuse saves. The harness knows none of the names.

Errors: ``CostError`` for a method whose exits cannot be costed, naming the exit and the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import AnytimeModel

Stream = Callable[[Tensor], Iterator[Tensor]]


class CostError(ValueError):
    """A model whose exits cannot be costed; the message says what the method does wrong."""


@dataclass(frozen=True)
class ExitCosts:
    """Cost of every exit 0..E-1 for one image.

    ``macs`` is cumulative run-through, ``macs_prefix`` the cost of ``answer(images, k)``. ``parameters`` counts the
    whole model. ``macs_by_execution`` holds the cumulative MACs of each further execution the model offers.
    """

    ticks: tuple[float, ...]
    macs: tuple[int, ...]
    macs_prefix: tuple[int, ...]
    parameters: int
    macs_by_execution: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each module's own mode and the random state come back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [] if not torch.cuda.is_available() else list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def executions(model: AnytimeModel) -> dict[str, Stream]:
    """The further ways a model offers to run its computation, by name; empty for most models."""
    offer = getattr(model, "executions", None)
    return dict(offer()) if callable(offer) else {}


def count_costs(model: AnytimeModel, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> ExitCosts:
    """Cost of every exit of ``model`` for one image of ``shape (D, H, W)``; the model is left as it was.

    Raises CostError where ticks or MACs do not increase from exit to exit, where the stream ends early or goes on
    after its last exit, where logits are not ``(1, C)``, and where ``answer(images, k)`` costs more than the stream.
    """
    ticks = _checked_ticks(model)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with evaluating(model):
        macs = _cumulative(model, model.stream, images, "stream")
        _require_increase("MACs", macs, "work for exit k+1 must start only when exit k+1 is asked for")
        prefix = tuple(_macs_of(partial(_answer, model, images, k)) for k in range(model.num_exits))
        for k, (alone, through) in enumerate(zip(prefix, macs, strict=True)):
            if alone > through:
                raise CostError(
                    f"answer(images, {k}) takes {alone} MACs, more than the {through} that stream needs to reach exit "
                    f"{k}: answer must be the cheapest way to one exit"
                )
        others = {name: _cumulative(model, run, images, name) for name, run in executions(model).items()}
    return ExitCosts(ticks, macs, prefix, sum(p.numel() for p in model.parameters()), others)


def _checked_ticks(model: AnytimeModel) -> tuple[float, ...]:
    ticks = tuple(float(tick) for tick in model.ticks)
    if len(ticks) != model.num_exits:
        raise CostError(f"ticks has {len(ticks)} entries, expected one per exit: {model.num_exits}")
    if ticks and ticks[0] <= 0:
        raise CostError(f"ticks starts at {ticks[0]}, but no answer is free: expected a positive time")
    _require_increase("ticks", ticks, "ticks[k] is the time at which exit k is ready")
    return ticks


def _require_increase(what: str, values: tuple[float, ...] | tuple[int, ...], why: str) -> None:
    for k, (before, after) in enumerate(pairwise(values)):
        if after <= before:
            raise CostError(f"{what} do not increase: exit {k} costs {before} and exit {k + 1} costs {after}; {why}")


def _cumulative(model: AnytimeModel, run: Stream, images: Tensor, name: str) -> tuple[int, ...]:
    """MACs at each of the model's exits."""
    macs: list[int] = []
    classes = None
    with FlopCounterMode(display=False) as counter:
        for k, logits in enumerate(run(images)):
            if k >= model.num_exits:
                raise CostError(f"{name} yielded more than num_exits = {model.num_exits} answers")
            classes = _checked_classes(logits, classes, f"{name} gave exit {k}")
            macs.append(counter.get_total_flops() // 2)
    if len(macs) < model.num_exits:
        raise CostError(f"{name} yielded {len(macs)} answers, but num_exits is {model.num_exits}")
    return tuple(macs)


def _checked_classes(logits: Tensor, classes: int | None, source: str) -> int:
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if (
        not isinstance(logits, Tensor)
        or logits.ndim != 2
        or logits.shape[0] != 1
        or logits.shape[1] != (classes or logits.shape[1])
    ):
        raise CostError(f"{source} logits of shape {shape}, expected (B, C) = (1, {classes or 'number of classes'})")
    return int(logits.shape[1])


def _answer(model: AnytimeModel, images: Tensor, k: int) -> None:
    _checked_classes(model.answer(images, k), None, f"answer(images, {k}) gave")


def _macs_of(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2
