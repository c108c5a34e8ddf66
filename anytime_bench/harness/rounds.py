"""The interleaved rounds: who runs when, for how long, and why it ended.

A *pass* runs every task once, in random order, one inference each, and after each of them every copy of the reference.
A *round* is a few passes. So method and reference alternate within milliseconds, each comes round after as many others,
and whatever the machine does, it does to both. What is used less often is colder, even right after it has run: where
a neighbour shares the cache, a copy of the reference, as a method of nine exits, took 0.86 of its time with one visit
to the reference a pass, and 0.97 with the copies taking turns. At least ``Effort.rounds`` rounds are run, then more
until every ratio is known well enough or the time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.intervals_of_rounds import median_interval, widest
from anytime_bench.harness.timing_summary import ratios_of

#: Inferences per round, as many as the time allows; more add little, because the median over rounds is what counts.
#: Odd, because the median of an even number of them is a mean of two: latencies have a long tail, and with two a round
#: the network that is visited so came out 1 % slower than its own copies, which are visited ten times.
INFERENCES = (1, 3, 5)
#: The least rounds may take this share of the time; the rest is for those that noise asks for.
LEAST_SHARE = 0.25
#: Rounds between two looks at the intervals: at least so many, and a tenth of those that are done.
CHECK_EVERY = 5

Measured = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Task:
    """One inference: ``run() -> {array name: seconds}``; ``slot`` is the exit it fills, None where it fills all."""

    run: Callable[[], Measured]
    slot: int | None = None


@dataclass(frozen=True)
class Group:
    """Tasks on one clock, and the ``copies`` of the reference that run after each task.

    Which of them comes first changes from pass to pass: it runs behind another network, the next behind its like.
    """

    tasks: Sequence[Task]
    copies: Sequence[Callable[[], Measured]] = ()


@dataclass(frozen=True)
class Effort:
    """How much to measure: at least ``rounds``, until every ratio's interval is narrower than ``width`` of it.

    No longer than ``seconds``, or ``patience`` times as long where even the least rounds are not done by then.
    ``inferences`` make a round (None: as many as the time allows).
    """

    rounds: int
    seconds: float
    width: float
    patience: float = 10.0
    inferences: int | None = None


@dataclass(frozen=True)
class Rounds:
    """``samples`` name -> ``(R, I, E)``, or ``(R, V)`` of a reference's V visits, and why the rounds ended."""

    samples: dict[str, NDArray[np.float32]]
    stopped_because: str
    inferences: int


def run_rounds(
    groups: Sequence[Group],
    size: int,
    effort: Effort,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
    on_round: Callable[[], None] = lambda: None,
) -> Rounds:
    """Run all tasks (batch ``size``) in interleaved rounds; ``progress`` gets the share done, 0..1."""
    rng = np.random.default_rng(seed)
    pass_seconds = _warm_up(groups, effort.seconds)
    affordable = LEAST_SHARE * effort.seconds / (effort.rounds * pass_seconds)
    passes = effort.inferences or max(each for each in INFERENCES if each <= max(affordable, 1))
    rows: list[dict[str, NDArray[np.float64]]] = []
    begun, done, look_at, why = perf_counter(), 0, effort.rounds, ""
    while not why:
        rows += [_one_pass(groups, rng, len(rows) + each) for each in range(passes)]
        done += 1
        on_round()
        used = (perf_counter() - begun) / effort.seconds
        progress(min(1.0, max(used, LEAST_SHARE * done / effort.rounds)))
        if done >= look_at:
            look_at = done + max(CHECK_EVERY, done // 10)
            if widest_ratio(_stack(rows, passes), size, seed) < effort.width:
                why = f"every ratio's interval is narrower than {effort.width:.1%} after {done} rounds"
        if not why and used >= (1 if done >= effort.rounds else effort.patience):
            times = "" if done >= effort.rounds else f"{effort.patience:g} times "
            why = f"{times}the time of {effort.seconds:.3g} s ended after {done} rounds"
    progress(1.0)
    return Rounds(_stack(rows, passes), why, passes)


def widest_ratio(samples: Mapping[str, NDArray[np.float32]], size: int, seed: int) -> float:
    """Width, relative to its value, of the widest interval among the ratios that a board shows."""
    whats = [what for what in ("run_through", "prefix") if f"batch{size}_latency_{what}" in samples]
    intervals = [median_interval(ratios_of(samples, size, what=what), seed, resamples=200) for what in whats]
    return max(widest(each) for each in intervals)


def _warm_up(groups: Sequence[Group], budget_seconds: float) -> float:
    """Run everything a few times (caches, allocator, clocks, code paths), then say how long one pass takes."""
    begun, rng = perf_counter(), np.random.default_rng(0)
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and perf_counter() - begun < 0.05 * budget_seconds):
        start = perf_counter()
        _one_pass(groups, rng, len(times))
        times.append(perf_counter() - start)
    return float(np.median(times[1:]))


def _one_pass(groups: Sequence[Group], rng: np.random.Generator, turn: int) -> dict[str, NDArray[np.float64]]:
    """Pass number ``turn``, every task once: ``(E,)`` per name, ``(V,)`` of a copy, visited after each of V tasks."""
    tasks = [(number, task) for number, group in enumerate(groups) for task in group.tasks]
    single: dict[str, NDArray[np.float64]] = {}
    slotted: dict[str, dict[int, float]] = {}
    visits: dict[str, list[float]] = {}
    for index in rng.permutation(len(tasks)):
        number, task = tasks[index]
        for name, seconds in task.run().items():
            if task.slot is None:
                single[name] = seconds
            else:
                slotted.setdefault(name, {})[task.slot] = float(seconds[0])
        copies = groups[number].copies
        for copy in copies if turn % 2 == 0 else reversed(copies):
            for name, seconds in copy().items():
                visits.setdefault(name, []).append(float(seconds[0]))
    exits = {name: np.array([by_exit[k] for k in sorted(by_exit)]) for name, by_exit in slotted.items()}
    return {**single, **exits, **{name: np.array(seconds) for name, seconds in visits.items()}}


def _stack(rows: Sequence[Mapping[str, NDArray[np.float64]]], passes: int) -> dict[str, NDArray[np.float32]]:
    """``{name: (R, I, E)}``; a reference has no exits, and as many times a round as it was visited."""
    stacked = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], dtype=np.float32)
        plain = name.endswith("_twin") or "_reference" in name
        stacked[name] = (
            values.reshape(-1, passes * values.shape[1]) if plain else values.reshape(-1, passes, values.shape[1])
        )
    return stacked
