"""The interleaved rounds: who runs when, for how long, and why it ended.

A *pass* runs every task once, in random order, one inference each; a *round* is a few passes. So reference and method
alternate within milliseconds and whatever the machine does, it does to both. At least ``rounds_least`` rounds are run,
then more until the ratios are narrow enough or the time budget ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.timing_summary import median_interval, ratios_of, widest

#: A ratio is known well enough when the widest interval among the exits is narrower than this share of it.
WIDTH_WANTED = 0.02
#: More inferences than this per round add little: the median over rounds is what counts.
PASSES_MOST = 9
#: Rounds between two looks at the interval.
CHECK_EVERY = 5

Measured = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Task:
    """One inference: ``run() -> {array name: seconds}``; ``slot`` is the exit it fills, None where it fills all."""

    run: Callable[[], Measured]
    slot: int | None = None


@dataclass(frozen=True)
class Rounds:
    """``samples`` name -> ``(R, I, E)``, why the rounds ended, and how long a pass took in seconds."""

    samples: dict[str, NDArray[np.float32]]
    stopped_because: str
    pass_seconds: float


def run_rounds(
    tasks: Sequence[Task],
    size: int,
    rounds_least: int,
    budget_seconds: float,
    patience: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
    on_round: Callable[[], None] = lambda: None,
) -> Rounds:
    """Run ``tasks`` (batch ``size``) in interleaved rounds; ``progress`` gets the share done, 0..1.

    Past ``patience`` times the budget the rounds end even where fewer than ``rounds_least`` are done.
    """
    rng = np.random.default_rng(seed)
    pass_seconds = _warm_up(tasks, budget_seconds)
    # Half the budget for the rounds that must be, the other half for those that noise asks for.
    passes = int(np.clip(0.5 * budget_seconds / (rounds_least * pass_seconds), 1, PASSES_MOST))
    rows: list[dict[str, NDArray[np.float64]]] = []
    begun, done, why = perf_counter(), 0, ""
    while not why:
        for _ in range(passes):
            rows.append(_one_pass(tasks, rng))
        done += 1
        on_round()
        used = (perf_counter() - begun) / budget_seconds
        progress(min(1.0, max(used, 0.5 * done / rounds_least)))
        if done < rounds_least:
            if used >= patience:
                why = f"{patience:g} times the time budget of {budget_seconds:g} s ended after {done} rounds"
            continue
        if (done - rounds_least) % CHECK_EVERY == 0:
            width = widest(median_interval(ratios_of(_stack(rows, passes), size), seed, resamples=200))
            if width < WIDTH_WANTED:
                why = f"every ratio's interval is narrower than {WIDTH_WANTED:.0%}"
        if not why and used >= 1:
            why = f"the time budget of {budget_seconds:g} s ended after {done} rounds"
    progress(1.0)
    return Rounds(_stack(rows, passes), why, pass_seconds)


def _warm_up(tasks: Sequence[Task], budget_seconds: float) -> float:
    """Run everything a few times (caches, allocator, clocks, code paths), then say how long one pass takes."""
    begun = perf_counter()
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and perf_counter() - begun < 0.05 * budget_seconds):
        start = perf_counter()
        for task in tasks:
            task.run()
        times.append(perf_counter() - start)
    return float(np.median(times[1:]))


def _one_pass(tasks: Sequence[Task], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    single: dict[str, NDArray[np.float64]] = {}
    slotted: dict[str, dict[int, float]] = {}
    for index in rng.permutation(len(tasks)):
        task = tasks[index]
        for name, seconds in task.run().items():
            if task.slot is None:
                single[name] = seconds
            else:
                slotted.setdefault(name, {})[task.slot] = float(seconds[0])
    for name, by_exit in slotted.items():
        single[name] = np.array([by_exit[k] for k in sorted(by_exit)])
    return single


def _stack(rows: Sequence[Mapping[str, NDArray[np.float64]]], passes: int) -> dict[str, NDArray[np.float32]]:
    """``{name: (R, I, E)}``; the reference has no exits and loses that axis."""
    stacked = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], dtype=np.float32)
        values = values.reshape(-1, passes, values.shape[-1])
        stacked[name] = values[..., 0] if name.endswith("_reference") else values
    return stacked
