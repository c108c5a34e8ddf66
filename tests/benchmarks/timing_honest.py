"""Is the denominator honest, and is a row's timing as narrow and as short as promised? On digits, as a run times it.

    python tests/benchmarks/timing_honest.py [serial_ce] [serial_td] [rows]

serial_ce, serial_td  the reference's own architecture, timed ten times: its full prefix over the reference's full time
                      must have a median within 1 % of 1, and intervals that contain 1 in nine of ten
rows                  ten rows with a run's own settings: at most 60 s each; at least nine of ten timing blocks, one per
                      row and batch size, know every ratio to 2 %

Run on an otherwise idle machine. The first two questions take at most three minutes each, the last at most ten.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

import psutil
import torch
from figure import Figure

from anytime_bench import load_task
from anytime_bench.harness.cost import count_costs
from anytime_bench.harness.timing import TimingSettings
from anytime_bench.harness.timing_block import Timing
from anytime_bench.harness.timing_processes import time_in_processes
from anytime_bench.runs.plan import resolve
from anytime_bench.training.config import EvaluationConfig
from anytime_bench.training.recipes import recipe_for

TARGET = 0.02
ROWS = (
    "cascaded_td", "sdn", "msdnet", "serial_ce", "serial_td_multihead", "cascaded_ce", "static", "ztw", "boostnet",
    "ranet",
)  # fmt: skip


def timed(name: str, seed: int, settings: TimingSettings) -> Timing:
    """``name`` against ``serial_ce``, untrained, on images of digits' shape, one thread."""
    card, recipe = load_task("digits").card, recipe_for("digits", None, "cpu")
    torch.manual_seed(seed)
    row, reference = (resolve(each, recipe).method.build(card) for each in (name, "serial_ce"))
    return time_in_processes(row, reference, torch.randn(297, *card.shape), "cpu", settings).summary()


def denominator(name: str, repetitions: int = 10, seconds: float = 9.0) -> Iterator[Figure]:
    """The row's whole network against the reference's, which are the same: two processes each time."""
    blocks = [
        timed(name, seed, TimingSettings(budget_seconds=seconds, processes=2, threads=1, seed=seed))
        for seed in range(repetitions)
    ]
    ratios = [block.latency.prefix_ratio_to_reference[-1] for block in blocks]
    middle = statistics.median(ratio.value for ratio in ratios)
    contain = sum(ratio.low <= 1 <= ratio.high for ratio in ratios) / len(ratios)
    values = [ratio.value for ratio in ratios]
    said = f"{middle:.4f} ({min(values):.4f} to {max(values):.4f}; {disturbed(blocks)})"
    yield Figure("denominator", f"{name}: median ratio", "within 1 % of 1", said, middle, abs(middle - 1) <= 0.01)
    yield Figure(
        "denominator", f"{name}: intervals that contain 1", ">= 90 %", f"{contain:.0%} of {len(ratios)}", contain,
        contain >= 0.9,
    )  # fmt: skip


def rows(names: tuple[str, ...] = ROWS, budget: float = EvaluationConfig.timing_budget) -> Iterator[Figure]:
    """Seconds a row, and the share of timing blocks, one per row and batch size, that reach their target."""
    card, recipe = load_task("digits").card, recipe_for("digits", None, "cpu")
    blocks = []
    for name in names:
        macs = tuple(count_costs(resolve(name, recipe).method.build(card), card.shape).macs)
        settings = TimingSettings(
            batch_sizes=(1, 64), budget_seconds=budget, processes=3, threads=1, beside=("threads",), macs=macs
        )
        begun = time.perf_counter()
        blocks.append(timed(name, 0, settings))
        seconds = time.perf_counter() - begun
        widths = ", ".join(f"batch {size} {batch.widest:.1%}" for size, batch in blocks[-1].batches.items())
        said = f"{seconds:.0f} s; widest interval at {widths}; {disturbed(blocks[-1:])}"
        yield Figure("timing", f"seconds of {name}", "<= 60 s", said, seconds, seconds <= 60)
    reached = [(batch.widest or 1.0) < TARGET for block in blocks for batch in block.batches.values()]
    share = sum(reached) / len(reached)
    yield Figure(
        "timing", "blocks that know every ratio to 2 %", ">= 90 %", f"{sum(reached)} of {len(reached)}", share,
        share >= 0.9,
    )  # fmt: skip


def disturbed(blocks: list[Timing]) -> str:
    reasons = [reason for block in blocks for reason in block.headline.reasons]
    count = sum(not block.comparable for block in blocks)
    return f"{count} of {len(blocks)} not comparable: {'; '.join(reasons)}" if count else "undisturbed"


QUESTIONS = {
    "serial_ce": lambda: denominator("serial_ce"),
    "serial_td": lambda: denominator("serial_td"),
    "rows": rows,
}

if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - set(QUESTIONS):
        sys.exit(f"{', '.join(sorted(unknown))}: expected one of {', '.join(QUESTIONS)}")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {psutil.cpu_count()} cores, 1 thread, load {psutil.getloadavg()[0]:.1f}")
    for question in sys.argv[1:] or QUESTIONS:
        for figure in QUESTIONS[question]():
            print(figure, flush=True)
