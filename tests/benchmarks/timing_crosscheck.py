"""Can the timing harness be believed on this CPU? Four questions, one table.

    python tests/benchmarks/timing_crosscheck.py [a-a] [timer] [spin] [hog]

a-a      two copies of one model: the ratio's interval should contain 1 and be narrower than 5 %
timer    against torch.utils.benchmark.Timer, alternating: medians within 5 %
spin     known spins of 2, 4 and 8 ms: within 5 %
hog      every core kept busy by another process: the ratios within 10 % of the quiet ones, and not comparable

Run on an otherwise idle machine; each block says how busy it was. Takes about two minutes.
What a row's timing must hold is in ``timing_honest``.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from anytime_bench.harness.clocks import HostClock
from anytime_bench.harness.eager import Eager
from anytime_bench.harness.self_test import PlainResNet, self_test
from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.harness.timing_block import Timing
from anytime_bench.methods.contract import AnytimeModel
from baselines.cascade.model import CascadedResNet


class Spinner(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)
    steps = (0.002, 0.004, 0.008)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for step in self.steps:
            end = time.perf_counter() + step
            while time.perf_counter() < end:
                pass
            yield images.flatten(1)[:, :10]


def a_a() -> None:
    for seed in range(3):
        report = self_test("cpu", 6, threads=1, seed=seed)
        ratio = report["clocks"]["latency"]
        interval = f"{ratio['value']:.4f} [{ratio['low']:.4f}, {ratio['high']:.4f}]"
        print(f"a-a     seed {seed}: {interval}, width {ratio['width']:.1%}, passed {report['passed']}, "
              f"{report['rounds']} rounds; {'; '.join(report['reasons']) or 'undisturbed'}")  # fmt: skip


def timer() -> None:
    """Single inferences on our clock and on torch's take turns, so that both meet the same neighbours."""
    model, image = PlainResNet().eval(), torch.randn(1, 3, 32, 32)
    engine, clock = Eager(model, image), HostClock(torch.device("cpu"))
    theirs = Timer("model.answer(image, 0)", globals={"model": model, "image": image}, num_threads=1)
    ours, torchs = [], []
    with torch.inference_mode():
        for _ in range(600):
            ours += [float(engine.prefix(0, clock)[0][0]) for _ in range(5)]
            torchs += [theirs.timeit(1).median for _ in range(5)]
    off = statistics.median(ours[500:]) / statistics.median(torchs[500:]) - 1
    print(f"timer   ours over torch's Timer: {off:+.1%} (medians of {len(ours) - 500} inferences each)")


def spin() -> None:
    summary = time_exits(
        Spinner(), Spinner(), torch.randn(4, 1, 8, 8), "cpu", TimingSettings(budget_seconds=5)
    ).summary()
    known = [0.002, 0.006, 0.014]
    off = [row.p50 / true - 1 for row, true in zip(summary.latency.run_through, known, strict=True)]
    print(f"spin    off by {[f'{x:+.2%}' for x in off]}; {'; '.join(summary.headline.reasons) or 'undisturbed'}")


def _burn() -> None:
    while True:
        sum(range(10000))


@contextmanager
def hogs(count: int) -> Iterator[None]:
    processes = [multiprocessing.get_context("spawn").Process(target=_burn, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    time.sleep(1.5)
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def digits_pair() -> tuple[AnytimeModel, AnytimeModel]:
    parallel = CascadedResNet(width=16, in_channels=1, stem_pool=False)
    return parallel, CascadedResNet(width=16, in_channels=1, stem_pool=False, schedule="serial")


def hog() -> None:
    method, reference = digits_pair()
    images = torch.randn(64, 1, 8, 8)

    def ratios() -> tuple[list[float], Timing]:
        summary = time_exits(method, reference, images, "cpu", TimingSettings(budget_seconds=8, threads=1)).summary()
        return [row.value for row in summary.latency.ratio_to_reference], summary

    quiet, before = ratios()
    for count in (1, psutil.cpu_count()):
        with hogs(count):
            loud, summary = ratios()
        off = [b / a - 1 for a, b in zip(quiet, loud, strict=True)]
        print(f"hog     {count} hog(s): ratios off by {[f'{x:+.1%}' for x in off]}")
        print(f"        comparable {summary.comparable}: {'; '.join(summary.headline.reasons)}")
    print(f"hog     quiet ratios {[f'{x:.3f}' for x in quiet]}; {'; '.join(before.headline.reasons) or 'undisturbed'}")


QUESTIONS = {"a-a": a_a, "timer": timer, "spin": spin, "hog": hog}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {psutil.cpu_count()} cores, 1 thread, load {psutil.getloadavg()[0]:.1f}")
    for question in sys.argv[1:] or QUESTIONS:
        QUESTIONS[question]()
        sys.stdout.flush()
