"""The interleaved rounds: who runs when, for how long, and why it ended.

A *round* runs every task once, in random order, one inference each, and after each of them every copy of the reference.
So method and reference alternate within milliseconds, each comes round after as many others, and whatever the machine
does, it does to both. What is used less often is colder, even right after it has run: where a neighbour shares the
cache, a copy of the reference, as a method of nine exits, took 0.86 of its time with one visit to a reference a round,
and 0.97 with the copies taking turns. At least ``Effort.rounds`` rounds are run, then more until every ratio is known
well enough or the time is over.

One inference a round, because the median over rounds is what counts: that of medians of three has an interval a sixth
wider from as many inferences, and a mean of two catches the long tail of a latency, which made a network 1 % slower
than its own copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.intervals_of_rounds import median_interval, widest
from anytime_bench.harness.timing_summary import A_A_WIDTH, ratios_of, twins_ratio

#: Rounds between two looks at the intervals: at least so many, and a tenth of those that are done.
CHECK_EVERY = 5

#: A block compares if its A/A is known to ``A_A_WIDTH``, and ends when the ratios are known to 2 %.
A_A_SHARE = 0.02 / A_A_WIDTH

Measured = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Task:
    """One inference: ``run() -> {array name: seconds}``; ``slot`` is the exit it fills, None where it fills all."""

    run: Callable[[], Measured]
    slot: int | None = None


@dataclass(frozen=True)
class Group:
    """Tasks on one clock, and the ``copies`` of the reference that run after each task.

    Which of them comes first changes from round to round: it runs behind another network, the next behind its like.
    """

    tasks: Sequence[Task]
    copies: Sequence[Callable[[], Measured]] = ()


@dataclass(frozen=True)
class Effort:
    """How much to measure: at least ``rounds``, until every ratio's interval is narrower than ``width`` of it.

    No longer than ``seconds``, or ``patience`` times as long where even the least rounds are not done by then.
    """

    rounds: int
    seconds: float
    width: float
    patience: float = 10.0


@dataclass(frozen=True)
class Rounds:
    """``samples`` name -> ``(R, 1, E)``, or ``(R, V)`` of a reference's V visits, and why the rounds ended."""

    samples: dict[str, NDArray[np.float32]]
    stopped_because: str


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
    _warm_up(groups, effort.seconds)
    rows: list[dict[str, NDArray[np.float64]]] = []
    begun, look_at, why = perf_counter(), effort.rounds, ""
    while not why:
        rows.append(_one_round(groups, rng, len(rows)))
        done = len(rows)
        on_round()
        used = (perf_counter() - begun) / effort.seconds
        progress(min(1.0, used))
        if done >= look_at:
            look_at = done + max(CHECK_EVERY, done // 10)
            if widest_ratio(_stack(rows), size, seed) < effort.width:
                why = f"every ratio's interval is narrower than {effort.width:.1%} after {done} rounds"
        if not why and used >= (1 if done >= effort.rounds else effort.patience):
            times = "" if done >= effort.rounds else f"{effort.patience:g} times "
            why = f"{times}the time of {effort.seconds:.3g} s ended after {done} rounds"
    progress(1.0)
    return Rounds(_stack(rows), why)


def widest_ratio(samples: Mapping[str, NDArray[np.float32]], size: int, seed: int) -> float:
    """Width, relative to its value, of the widest interval among the ratios that a board shows.

    The A/A counts by ``A_A_SHARE`` of its width: with the ratios known to 2 %, it is known well enough to compare.
    """
    whats = [what for what in ("run_through", "prefix") if f"batch{size}_latency_{what}" in samples]
    intervals = [median_interval(ratios_of(samples, size, what=what), seed, resamples=200) for what in whats]
    widths = [widest(each) for each in intervals]
    if f"batch{size}_latency_twin" in samples:
        widths.append(A_A_SHARE * widest([twins_ratio(samples, size, "latency", seed)]))
    return max(widths)


def _warm_up(groups: Sequence[Group], budget_seconds: float) -> None:
    """Run everything a few times: caches, allocator, clocks, code paths."""
    begun, rng, done = perf_counter(), np.random.default_rng(0), 0
    while done < 3 or (done < 20 and perf_counter() - begun < 0.05 * budget_seconds):
        _one_round(groups, rng, done)
        done += 1


def _one_round(groups: Sequence[Group], rng: np.random.Generator, turn: int) -> dict[str, NDArray[np.float64]]:
    """Every task once: ``(E,)`` per name, ``(V,)`` of a copy, visited after each of V tasks."""
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


def _stack(rows: Sequence[Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float32]]:
    """``{name: (R, 1, E)}``; a reference has no exits, and as many times a round as it was visited."""
    stacked = {name: np.array([row[name] for row in rows], dtype=np.float32) for name in rows[0]}
    return {
        name: values if name.endswith("_twin") or "_reference" in name else values[:, None]
        for name, values in stacked.items()
    }
