"""Streaming: frames arrive at a fixed rate, and at every instant the newest finished answer is held against the frame
of that instant.

Frame j of a clip of F is on view in [j p, (j + 1) p), p being the *period*. A way of following is a list of
``Finished``: when an answer is finished, and from what. The *streaming accuracy* is the share of [0, F p] in which the
newest finished answer names the class of the frame on view, a blind guess counting before the first (the measure of Li,
Wang and Ramanan, *Towards Streaming Perception*, ECCV 2020, for classes):

============= =====================================================================================================
``restart``   one full answer after another, each of the newest frame
``ask``       exit by exit on the newest frame, left at the first exit that finishes after the next frame has arrived
``pipelined`` a frame enters as often as the slowest stage allows, a stage being the way from one exit to the next, with
              a lane of its own each: hardware that the others do not have, and nothing is charged for going between
``watch``     the stateful model: one step after another, each on the newest frame, and charged as one on a new frame
============= =====================================================================================================

A frame that was answered is not begun again but by ``watch``; who is done before the next frame waits for it. Pure
functions of times and classes, in any one unit of time; no model is run here.

Shapes: times of exits ``(E,)``, of Finished ``(A,)``, classes and labels ``(A, C)`` and ``(F, C)`` for C clips that are
played side by side. Errors: ``ValueError`` for times that are not positive or do not increase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Way = Literal["restart", "ask", "pipelined", "watch"]
WAYS: tuple[Way, ...] = ("restart", "ask", "pipelined", "watch")
#: An instant this near to an arrival, as a share of the period, is one.
NEAR = 1e-9


@dataclass(frozen=True)
class Clock:
    """How long things take: ``exits`` of a frame one after the other, its ``full`` answer alone, one ``step`` of watch.

    ``step`` is None for a model without state.
    """

    exits: tuple[float, ...]
    full: float
    step: float | None = None

    def __post_init__(self) -> None:
        times = [0.0, *self.exits]
        if not self.exits or any(b < a for a, b in pairwise(times)) or times[1] <= 0:
            raise ValueError(f"exits at {list(self.exits)}: expected positive times that do not fall")
        if self.full <= 0 or (self.step is not None and self.step <= 0):
            raise ValueError(f"a full answer of {self.full} and a step of {self.step}: expected more than 0")


@dataclass(frozen=True)
class Finished:
    """An answer at ``at``, of ``frame``: its exit ``exit``, or step ``exit`` of the stateful model that saw it last."""

    at: float
    frame: int
    exit: int


def follow(way: Way, clock: Clock, period: float, frames: int) -> list[Finished]:
    """All answers that are finished while ``frames`` frames are on view, in order of time."""
    return [each for each in _WAYS[way](clock, period, frames) if each.at <= frames * period]


def ways_of(clock: Clock) -> tuple[Way, ...]:
    """The ways that a model can follow."""
    return WAYS if clock.step is not None else WAYS[:-1]


def on_view(instant: float, period: float, frames: int) -> int:
    """The newest frame at ``instant``."""
    return min(int(instant / period + NEAR), frames - 1)


def streaming_accuracy(
    finished: Sequence[Finished], classes: NDArray[Any], labels: NDArray[Any], period: float, chance: float
) -> Floats:
    """Per clip ``(C,)`` the share of the time in which the newest answer was right.

    ``classes (A, C)`` are those of ``finished``, ``labels (F, C)`` of the frames.

    >>> one = [Finished(at=1.5, frame=0, exit=0)]  # right about both frames, but half a frame late
    >>> streaming_accuracy(one, np.array([[3]]), np.array([[3], [3]]), 1.0, chance=0.0)
    array([0.25])
    """
    frames = len(labels)
    ready = np.array([each.at for each in finished], dtype=np.float64)
    bounds = np.unique(np.concatenate([np.arange(frames + 1) * period, ready]))
    bounds = bounds[bounds <= frames * period]
    right = np.zeros(labels.shape[1])
    for begin, end in pairwise(bounds):
        newest = int(np.searchsorted(ready, begin, side="right")) - 1
        frame = on_view((begin + end) / 2, period, frames)
        right += (end - begin) * (chance if newest < 0 else classes[newest] == labels[frame])
    total: Floats = right / (frames * period)
    return total


def _restart(clock: Clock, period: float, frames: int) -> list[Finished]:
    answers: list[Finished] = []
    now, frame = 0.0, 0
    while frame < frames:
        now = max(now, frame * period)
        frame = on_view(now, period, frames)
        now += clock.full
        answers.append(Finished(now, frame, len(clock.exits) - 1))
        frame = max(frame + 1, on_view(now, period, frames))
    return answers


def _ask(clock: Clock, period: float, frames: int) -> list[Finished]:
    answers: list[Finished] = []
    now, frame = 0.0, 0
    while frame < frames:
        begun = max(now, frame * period)
        frame = on_view(begun, period, frames)
        for k, seconds in enumerate(clock.exits):
            now = begun + seconds
            answers.append(Finished(now, frame, k))
            if on_view(now, period, frames) > frame:
                break
        frame = max(frame + 1, on_view(now, period, frames))
    return answers


def _pipelined(clock: Clock, period: float, frames: int) -> list[Finished]:
    slowest = max(np.diff([0.0, *clock.exits]))
    answers: list[Finished] = []
    begun, frame = -slowest, 0
    while frame < frames:
        begun = max(begun + slowest, frame * period)
        frame = on_view(begun, period, frames)
        answers.append(Finished(begun + clock.exits[-1], frame, len(clock.exits) - 1))
        frame = max(frame + 1, on_view(begun + slowest, period, frames))
    return answers


def _watch(clock: Clock, period: float, frames: int) -> list[Finished]:
    if clock.step is None:
        raise ValueError("the model has no state to watch with")
    steps = int(frames * period / clock.step + NEAR)
    return [Finished((n + 1) * clock.step, on_view(n * clock.step, period, frames), n) for n in range(steps)]


_WAYS: dict[Way, Callable[[Clock, float, int], list[Finished]]] = {
    "restart": _restart,
    "ask": _ask,
    "pipelined": _pipelined,
    "watch": _watch,
}
