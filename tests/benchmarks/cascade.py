"""Speed and memory of the cascade's layer-wise executor against the literal recursion, on the CPU.

    python tests/benchmarks/cascade.py [--widths 64 16] [--batch 64] [--rounds 7] [--threads 2] [--clock wall]

Prints, per width, the median over rounds of both times, measured alternately in one process, and the median of the
per-round ratios; then the growth of peak resident memory in one training step, each measured in a fresh process.
``--clock cpu --threads 1`` counts processor time instead, which holds on a machine that others use too.
A training step is forward, TD(0) loss, backward and an SGD step. The literal recursion is that of the tests.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from figure import Figure
from torch import Tensor, nn

from baselines.cascade.literal import LiteralCascade
from baselines.cascade.model import CascadedResNet
from baselines.cascade.td import td_loss

#: How many times as fast as the literal recursion, by width and work.
TARGETS = {(64, "eval"): 3.0, (64, "train"): 2.7, (16, "eval"): 5.0, (16, "train"): 3.3}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def training_step(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        td_loss(net(images), labels, 0.0).backward()
        optimiser.step()

    return step


def evaluation(net: nn.Module, images: Tensor) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        net(images)

    return run


def interleaved(
    first: Callable[[], None], second: Callable[[], None], rounds: int, clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Median seconds of both and median of the per-round ratios first / second."""
    times: list[tuple[float, float]] = []
    for round_ in range(rounds + 1):  # the first round warms up
        pair = []
        for work in (first, second):
            start = clock()
            work()
            pair.append(clock() - start)
        if round_:
            times.append((pair[0], pair[1]))
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, statistics.median(x / y for x, y in times)


def build(width: int, batch: int, literal: bool) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    net: nn.Module = CascadedResNet(width=width)
    if literal:
        net = LiteralCascade(net)  # type: ignore[arg-type]
    return net, torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))


def resident(field: str) -> float:
    """MiB of this process's resident memory, now (VmRSS) or at its highest (VmHWM). Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def peak_growth(width: int, batch: int, kind: str) -> float:
    """MiB by which one training step raises the peak resident memory of a fresh process."""
    command = [sys.executable, __file__, "--peak-of", kind, "--widths", str(width), "--batch", str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def speeds(
    width: int, batch: int, rounds: int, clock: Callable[[], float]
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """What ``interleaved`` says of the literal recursion against the layer-wise executor, for eval and train."""
    (fast, images, labels), (slow, _, _) = (build(width, batch, literal) for literal in (False, True))
    for name in ("eval", "train"):
        fast.train(name == "train"), slow.train(name == "train")
        works = [
            training_step(net, images, labels) if name == "train" else evaluation(net, images) for net in (slow, fast)
        ]
        yield name, interleaved(works[0], works[1], rounds, clock)


def figures(rounds: int = 5, batch: int = 64, threads: int = 2) -> Iterator[Figure]:
    """Both widths against their targets, on the wall clock."""
    torch.set_num_threads(threads)
    for width in (64, 16):
        for name, (a, b, ratio) in speeds(width, batch, rounds, time.perf_counter):
            target = TARGETS[width, name]
            measured = f"{ratio:.2f}x ({a * 1e3:.0f} ms and {b * 1e3:.0f} ms)"
            yield Figure(
                "cascade", f"layer-wise over literal, {name}, width {width}", f">= {target}x", measured, ratio,
                ratio >= target,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--peak-of", choices=["layerwise", "literal"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        net, images, labels = build(options.widths[0], options.batch, options.peak_of == "literal")
        training_step(net, images[:2], labels[:2])()  # libraries and optimiser state are in place before the reading
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
        before = resident("VmRSS")
        training_step(net, images, labels)()
        print(resident("VmHWM") - before)
        return
    print(
        f"torch {torch.__version__}, {options.threads} threads, batch {options.batch}, 3x32x32, {options.rounds} rounds"
    )
    print("width  work      literal   layer-wise  ratio")
    for width in options.widths:
        for name, (a, b, ratio) in speeds(width, options.batch, options.rounds, CLOCKS[options.clock]):
            print(f"{width:5d}  {name:5s} {a * 1e3:8.1f} ms {b * 1e3:9.1f} ms  {ratio:5.2f}x", flush=True)
        a, b = (peak_growth(width, options.batch, kind) for kind in ("literal", "layerwise"))
        print(f"{width:5d}  peak  {a:8.0f} MiB {b:8.0f} MiB  {b / a:5.2f}x of the literal recursion", flush=True)


if __name__ == "__main__":
    main()
