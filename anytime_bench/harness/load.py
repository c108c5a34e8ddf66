"""A stream of requests with deadlines against one model: what arrives right and in time, by policy of serving.

Requests arrive as a Poisson process at ``rate`` per full answer of the model (1: as fast as it can just answer in
full), each with a deadline of ``deadline`` full answers from its arrival, and wait in one queue, first come, first
served. One model serves one request at a time, for real and in this process. A request whose deadline has passed when
its turn comes is dropped. Policies:

``exit k``
    ``answer(images, k)``, whatever time is left; an answer after the deadline is worth nothing.
``ask``, ``run_ahead``
    the best answer by the deadline, by ``Interruptible``.

*Goodput* is the share of all requests that were answered in time and right. Arrivals and images are the same for every
policy. Each policy is bounded by ``requests`` and ``seconds`` of arrivals.

Units: seconds. Errors: ``UserError`` for a load that cannot be played; a model's own errors pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.harness.clocks import answer_seconds
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.interruptible import Interruptible
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.training.data import Normalised

#: One request served: the exit of the answer that was there by the deadline, or -1.
Serve = Callable[[Tensor, float], int]

#: Full answers by which the load's unit of time is measured.
UNIT_RUNS = 20


@dataclass(frozen=True)
class LoadSettings:
    """``rate`` and ``deadline`` in full answers of the model; per policy at most ``requests`` in ``seconds``."""

    rate: float
    deadline: float = 2.0
    requests: int = 500
    seconds: float = 10.0
    limit: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rate", "deadline", "requests", "seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"a load with {name} {getattr(self, name)}: expected a number above 0.")


@dataclass(frozen=True)
class PlayedLoad:
    """What one policy gave: per request the exit answered in time (-1: none) and the seconds from its arrival."""

    policy: str
    exits: NDArray[np.int64]
    waited: NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """All policies under one load; ``images`` are the requests' test images, ``full`` the model's full answer."""

    settings: LoadSettings
    full: float
    images: NDArray[np.int64]
    played: list[PlayedLoad]


def play_load(model: AnytimeModel, images: Tensor | Normalised, settings: LoadSettings) -> Load:
    """Play the load against ``model`` under every policy, on ``images (N, D, H, W)``."""
    rng = np.random.default_rng([settings.seed, 0x10AD])
    last = model.num_exits - 1
    with evaluating(model):
        full = float(np.median([answer_seconds(model, images[:1], last) for _ in range(UNIT_RUNS + 3)][3:]))
        arrivals = np.cumsum(rng.exponential(full / settings.rate, settings.requests))
        arrivals = arrivals[arrivals < settings.seconds]
        if not len(arrivals):
            raise UserError(
                f"no request arrives within {settings.seconds:g} s at {settings.rate:g} per full answer of "
                f"{1e3 * full:.1f} ms: give a larger load."
            )
        chosen = rng.integers(0, len(images), len(arrivals))
        played = []
        for policy, server in _policies(model, images[:1], settings):
            with server as serve:
                played.append(_play(policy, serve, images, chosen, arrivals, settings.deadline * full))
    return Load(settings, full, chosen, played)


def _play(
    policy: str, serve: Serve, images: Tensor | Normalised, chosen: Sequence[Any] | NDArray[np.int64],
    arrivals: NDArray[np.float64], patience: float,
) -> PlayedLoad:  # fmt: skip
    exits, waited = np.full(len(arrivals), -1), np.zeros(len(arrivals))
    serve(images[:1], 60.0)
    begun = perf_counter()
    for number, arrival in enumerate(arrivals):
        idle = arrival - (perf_counter() - begun)
        if idle > 0:
            sleep(idle)
        left = arrival + patience - (perf_counter() - begun)
        if left > 0:
            image = int(chosen[number])
            exits[number] = serve(images[image : image + 1], left)
        waited[number] = perf_counter() - begun - arrival
    return PlayedLoad(policy, exits, waited)


def _policies(model: AnytimeModel, example: Tensor, settings: LoadSettings) -> Iterator[tuple[str, Any]]:
    """First, middle and last exit, then both ways of interrupting."""
    for k in sorted({0, (model.num_exits - 1) // 2, model.num_exits - 1}):
        yield f"exit {k}", _fixed(model, k)
    yield "ask", _interrupted(Interruptible(model, example, "ask", limit=settings.limit))
    yield "run_ahead", _interrupted(Interruptible(model, example, "run_ahead", limit=settings.limit))


@contextmanager
def _fixed(model: AnytimeModel, k: int) -> Iterator[Serve]:
    yield lambda image, left: k if answer_seconds(model, image, k) <= left else -1


@contextmanager
def _interrupted(server: Interruptible) -> Iterator[Serve]:
    def serve(image: Tensor, left: float) -> int:
        delivered = server.answer(image, left).exit
        return -1 if delivered is None else delivered

    with server:
        yield serve
