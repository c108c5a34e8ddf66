"""Six ways to answer while frames arrive, each with its cost: what a deployed model may do under changing noise.

Time is counted in ticks; frame j arrives at the start of tick j+1, so that a model with ``ticks = (1, ..., E)`` has
answered exit k of the first frame when k+1 ticks have passed. A policy is a list of ``Answer``: when it is ready, what
it has cost, and which outputs of the model it averages. Nothing here runs a model, so the costs of every policy can be
checked by hand.

=================== ==========================================================================================
``onset``           the first frame only; exit k replaces exit k-1
``restart``         every frame in turn, one full pass after another; a later frame answers with its last exit only
``restart_mean``    the same passes; the answer is the mean over frames of the last exit's probabilities
``pipelined_mean``  a new frame enters at every arrival, as many in flight as the model is deep: the hardware of a
                    cascade; before the first full-depth answer, the exits of the first frame
``watch``           the stateful cascade: one step per tick, each on the newest frame
``watch_mean``      the same steps; the answer is the mean over steps of the probabilities so far
=================== ==========================================================================================

Every model can follow the first four, models that define ``watch`` the last two as well. Pipelining a cascade takes
as many cascades side by side as it is deep; its MACs say so. Frames are buffered: ``restart`` works on frame j when it
is done with frame j-1, and reads the same frames as all others, later. Equal hardware is ``pipelined_mean`` of a serial
net against ``watch``; equal MACs is ``restart_mean`` against ``watch``. MACs of a pass that is under way are
interpolated between its exits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError, did_you_mean

Floats = NDArray[np.float64]
#: The number of a frame without noise.
CLEAN = -1
POLICIES = ("onset", "restart", "restart_mean", "pipelined_mean", "watch", "watch_mean")
#: Policies that need a model with a ``watch`` of its own.
STATEFUL = ("watch", "watch_mean")


@dataclass(frozen=True)
class Schedule:
    """Which draw of the noise each frame shows.

    ``period`` is the number of ticks between two arrivals, None for one frame that is held for ever. ``window`` limits
    the noise to the frames that arrive in ticks ``start <= t < stop``; None means all of them, an empty one none.
    """

    mode: str
    num_frames: int
    period: int | None = None
    window: tuple[int, int] | None = None

    @property
    def arrivals(self) -> tuple[tuple[int, int], ...]:
        """(tick, draw) of every frame that arrives; draw -1 is clean. Draw n is the n-th arrival's."""
        every = self.period or self.num_frames
        return tuple((tick, self._draw(tick, every)) for tick in range(0, self.num_frames, every))

    @property
    def seen(self) -> tuple[int, ...]:
        """The draw that is on view during each tick, ``num_frames`` of them."""
        every = self.period or self.num_frames
        return tuple(self._draw(tick - tick % every, every) for tick in range(self.num_frames))

    def _draw(self, arrival: int, every: int) -> int:
        noisy = self.window is None or self.window[0] <= arrival < self.window[1]
        return arrival // every if noisy else CLEAN


def clean(num_frames: int) -> Schedule:
    """No noise at all, one held frame."""
    return Schedule("clean", num_frames, None, (0, 0))


def persistent(num_frames: int) -> Schedule:
    """One draw, held for all ticks."""
    return Schedule("persistent", num_frames)


def transient(num_frames: int, period: float) -> Schedule:
    """A fresh draw every ``period`` ticks; with an infinite period, the persistent schedule itself."""
    if period == float("inf"):
        return persistent(num_frames)
    if period < 1 or period != int(period):
        raise UserError(f"frame period: expected a whole number of ticks from 1 up, or inf, got {period}")
    return Schedule(f"transient_{int(period)}", num_frames, int(period))


def burst(num_frames: int, start: int, stop: int) -> Schedule:
    """A new frame every tick, with noise in ticks ``start <= t < stop`` only."""
    if not 0 <= start < stop <= num_frames:
        raise UserError(f"burst: expected 0 <= start < stop <= {num_frames} ticks, got {start} and {stop}")
    return Schedule(f"burst_{start}_{stop}", num_frames, 1, (start, stop))


@dataclass(frozen=True)
class Answer:
    """One answer of a policy: the mean probabilities of some outputs, and the cost of having it.

    With source ``frame`` the outputs are exit ``exit`` of the draws in ``members``; with source ``watch`` they are the
    steps in ``members``. Costs are cumulative.
    """

    source: Literal["frame", "watch"]
    members: tuple[int, ...]
    exit: int
    ticks: float
    macs: float

    @property
    def costs(self) -> dict[str, float]:
        """Cost per axis that a policy can be charged on; no policy runs in real time, so none is measured."""
        return {"ticks": self.ticks, "macs": self.macs}


@dataclass(frozen=True)
class PassCosts:
    """Cumulative cost of each exit of one pass over one frame, ``(E,)`` per axis.

    ``answer`` is what the last answer costs alone in MACs, without the heads on the way, as every frame after the first
    is answered; None where that costs as much.
    """

    ticks: Sequence[float]
    macs: Sequence[float]
    answer: float | None = None

    @property
    def later(self) -> float:
        """MACs of a frame after the first."""
        return float(self.macs[-1] if self.answer is None else self.answer)

    def __post_init__(self) -> None:
        if len(self.macs) != len(self.ticks):
            raise UserError(f"macs: expected one cost per exit ({len(self.ticks)}), got {len(self.macs)}")


def answers(policy: str, schedule: Schedule, costs: PassCosts, step_macs: Sequence[float] = ()) -> list[Answer]:
    """What ``policy`` answers on ``schedule``, in order of time.

    ``step_macs (E,)`` are the cumulative MACs of the stateful model's steps on these frames, for the two ``watch``
    policies. Raises ``UserError`` for an unknown policy.
    """
    if policy not in _PLANS:
        raise UserError(f"unknown policy '{policy}'.{did_you_mean(policy, POLICIES)}")
    return _PLANS[policy](schedule, costs, step_macs)


def _onset(schedule: Schedule, costs: PassCosts, step_macs: Sequence[float]) -> list[Answer]:
    first = schedule.arrivals[0][1]
    return [Answer("frame", (first,), k, float(costs.ticks[k]), float(costs.macs[k])) for k in range(len(costs.ticks))]


def _restart(schedule: Schedule, costs: PassCosts, step_macs: Sequence[float], mean: bool = False) -> list[Answer]:
    planned = _onset(schedule, costs, step_macs)
    last = len(costs.ticks) - 1
    draws = [draw for _, draw in schedule.arrivals]
    for passes in range(1, len(draws)):
        ready = max((passes + 1) * float(costs.ticks[-1]), schedule.arrivals[passes][0] + float(costs.ticks[-1]))
        members = tuple(draws[: passes + 1]) if mean else (draws[passes],)
        macs = float(costs.macs[-1]) + passes * costs.later
        planned.append(Answer("frame", members, last, ready, macs))
    return planned


def _restart_mean(schedule: Schedule, costs: PassCosts, step_macs: Sequence[float]) -> list[Answer]:
    return _restart(schedule, costs, step_macs, mean=True)


def _pipelined_mean(schedule: Schedule, costs: PassCosts, step_macs: Sequence[float]) -> list[Answer]:
    last = len(costs.ticks) - 1
    depth = float(costs.ticks[-1])
    draws = tuple(draw for _, draw in schedule.arrivals)
    ready = [(float(tick), draws[:1], k) for k, tick in enumerate(costs.ticks)]
    ready += [(arrival + depth, draws[: n + 1], last) for n, (arrival, _) in enumerate(schedule.arrivals) if n]
    stages = np.concatenate([[0.0], np.asarray(costs.ticks, dtype=np.float64)])
    work = np.concatenate([[0.0], np.asarray(costs.macs, dtype=np.float64)])

    def macs_until(time: float) -> float:
        passes = [np.interp(time - arrival, stages, work) for arrival, _ in schedule.arrivals if arrival < time]
        return float(sum(passes[:1]) + sum(passes[1:]) * costs.later / work[-1])

    return [Answer("frame", members, k, time, macs_until(time)) for time, members, k in ready]


def _watch(schedule: Schedule, costs: PassCosts, step_macs: Sequence[float], mean: bool = False) -> list[Answer]:
    if len(step_macs) != len(costs.ticks):
        raise UserError(f"step_macs: expected one cost per step ({len(costs.ticks)}), got {len(step_macs)}")
    return [
        Answer("watch", tuple(range(k + 1)) if mean else (k,), k, float(costs.ticks[k]), float(step_macs[k]))
        for k in range(len(costs.ticks))
    ]


def _watch_mean(schedule: Schedule, costs: PassCosts, step_macs: Sequence[float]) -> list[Answer]:
    return _watch(schedule, costs, step_macs, mean=True)


_Plan = Callable[[Schedule, PassCosts, Sequence[float]], list[Answer]]
_PLANS: dict[str, _Plan] = {
    "onset": _onset,
    "restart": _restart,
    "restart_mean": _restart_mean,
    "pipelined_mean": _pipelined_mean,
    "watch": _watch,
    "watch_mean": _watch_mean,
}
