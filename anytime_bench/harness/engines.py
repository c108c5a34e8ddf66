"""Which engine runs a model while it is timed, and that what is compared runs alike.

======== ==================================================================================================
eager    the model's own Python; the generator really pauses after each exit
compile  each module that the stream calls directly is compiled by ``torch.compile``; the generator stays Python
graph    CUDA only: see ``cuda_graphs``
======== ==================================================================================================

``matched_engines`` gives a method and the copies of its reference one engine. Where that is not the one that was asked
for, it says so; and where only one of method and reference can be run as asked, the times are not those by which other
rows are ranked, and the reason against comparing them is given.

Errors: ``EngineError`` where an engine cannot run a model, ``ValueError`` for an engine that is unknown or impossible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anytime_bench.harness.cuda_graphs import Graphs
from anytime_bench.harness.eager import Compiled, Eager, EngineError, Stream
from anytime_bench.methods.contract import AnytimeModel

ENGINES = ("auto", "eager", "compile", "graph")
_CLASSES: dict[str, type[Eager]] = {"eager": Eager, "compile": Compiled, "graph": Graphs}


def chosen_engine(name: str, device: torch.device) -> str:
    """The engine meant by ``name`` on ``device``: auto is graph on CUDA and eager elsewhere. Raises ValueError."""
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}, expected one of {', '.join(ENGINES)}")
    if name == "auto":
        return "graph" if device.type == "cuda" else "eager"
    if name == "graph" and device.type != "cuda":
        raise ValueError("engine is 'graph', but CUDA graphs need a CUDA device: use eager or compile on the CPU")
    return name


def make_engine(
    name: str, model: AnytimeModel, images: Tensor, stream: Stream | None = None, prefixes: Iterable[int] = ()
) -> Eager:
    """The engine called ``name`` for ``model``, or one of its executions, and inputs like ``images``.

    ``prefixes`` are the exits whose ``answer(images, k)`` will be asked for. Raises EngineError where the engine cannot
    run the model.
    """
    engine = _CLASSES[name](model, images, stream)
    engine.prepare(prefixes)
    return engine


@dataclass(frozen=True)
class Matched:
    """Engines of one kind: the method's and those of the copies of its reference.

    ``notes`` say what had to give way; ``reasons`` why these times must not be compared with those of other rows.
    """

    method: Eager
    references: list[Eager]
    notes: list[str]
    reasons: list[str]

    @property
    def name(self) -> str:
        return self.method.name


def matched_engines(
    name: str, model: AnytimeModel, references: Sequence[AnytimeModel], images: Tensor, prefixes: Iterable[int] = ()
) -> Matched:
    """The engine called ``name`` for all, or eager for all where it cannot run one of them.

    ``prefixes`` are the method's exits that will be timed alone; of a reference it is the last.
    """
    engines: list[Eager] = []
    refused: dict[str, str] = {}
    for place, each in enumerate((model, *references)):
        try:
            engines.append(make_engine(name, each, images, prefixes=[each.num_exits - 1] if place else prefixes))
        except EngineError as error:
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            refused.setdefault("reference" if place else "method", str(error))
    if refused:
        engines = [Eager(each, images) for each in (model, *references)]
    notes = [f"engine {name} gave way to eager for the {who}: {why}" for who, why in refused.items()]
    reasons = []
    if len(refused) == 1:
        (who,) = refused
        other = "reference" if who == "method" else "method"
        reasons.append(
            f"the {who} cannot be run by engine {name} and the {other} can, so both were timed eagerly, unlike rows "
            f"of engine {name}"
        )
    return Matched(engines[0], engines[1:], notes, reasons)


def engine_verdict(name: str, model: AnytimeModel, reference: AnytimeModel, images: Tensor) -> str:
    """One line: the engine by which ``model`` will be timed, and why it is not the one asked for, if it is not."""
    matched = matched_engines(name, model, [reference], images)
    return "; ".join([f"engine: {matched.name}", *matched.notes, *(f"not comparable: {r}" for r in matched.reasons)])
