"""The cascade on two real lanes: two threads on two cores against one, at batch 1, every answer given.

    python tests/benchmarks/cascade_lanes.py [--width 64] [--lanes 2] [--rounds 40]

Prints, over alternating rounds, the median time of all nine answers on one lane (``stream``, one thread), on one and on
several worker threads, and of the plain ResNet on one thread and on as many intra-op threads; medians of the per-round
ratios to one lane, with 95 % intervals; and the largest relative difference of the answers. On two idle cores the
several lanes should take less than 0.60 of one lane's time, and answers agree to 1e-6.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from figure import Figure
from torch import Tensor

from anytime_bench.harness.intervals_of_rounds import median_interval
from baselines.cascade.model import CascadedResNet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.thread_lanes import ThreadLanes, run_ahead


def measure(width: int, lanes: int, rounds: int) -> tuple[list[str], np.ndarray, float]:
    """Names of the works, their times ``(rounds, works)``, and the largest relative difference of an answer."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CascadedResNet(width=width).eval()
    image = torch.randn(1, 3, 32, 32)
    frames = [image, *[None] * (model.num_exits - 1)]

    def on_threads(count: int) -> Tensor:
        torch.set_num_threads(count)
        try:
            return model.answer(image, model.num_exits - 1)
        finally:
            torch.set_num_threads(1)

    with torch.inference_mode(), ThreadLanes(lanes) as several, ThreadLanes(1) as single:
        works: dict[str, Callable[[], Tensor]] = {
            "one lane": lambda: torch.stack(list(model.stream(image))),
            "one worker thread": lambda: run_ahead(model, single, frames),
            f"{lanes} worker threads": lambda: run_ahead(model, several, frames),
            "plain ResNet, one thread": lambda: on_threads(1),
            f"plain ResNet, {lanes} threads": lambda: on_threads(lanes),
        }
        times = np.zeros((rounds, len(works)))
        for round_ in range(-3, rounds):
            for column, work in enumerate(works.values()):
                start = time.perf_counter()
                work()
                times[round_, column] = time.perf_counter() - start
        expected, answers = works["one lane"](), run_ahead(model, several, frames)
    return list(works), times, float((answers - expected).abs().max() / expected.abs().max())


def figures(width: int = 64, rounds: int = 40) -> Iterator[Figure]:
    """Two lanes against one."""
    names, times, difference = measure(width, 2, rounds)
    ratio = median_interval(times / times[:, :1], seed=0)[names.index("2 worker threads")]
    interval = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    yield Figure("lanes", f"two lanes over one, width {width}", "< 0.60", interval, ratio.value, ratio.value < 0.60)
    yield Figure(
        "lanes", "answers of two lanes and one", "<= 1e-6", f"{difference:.1e} apart", difference, difference <= 1e-6
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    names, times, difference = measure(options.width, options.lanes, options.rounds)
    print(f"torch {torch.__version__}, {psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}, {options}")
    for name, column, ratio in zip(names, times.T, median_interval(times / times[:, :1], seed=0), strict=True):
        interval = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        print(f"{name:26s} {np.median(column) * 1e3:8.2f} ms  {interval}")
    print(f"largest relative difference of an answer: {difference:.1e}")


if __name__ == "__main__":
    main()
