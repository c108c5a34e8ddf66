"""Training speed of every row: images per second of one step in float32 and in bfloat16, interleaved in one process.

    OMP_NUM_THREADS=1 python tests/benchmarks/training.py                # all installed rows that train, width 16
    OMP_NUM_THREADS=1 python tests/benchmarks/training.py --methods sdn,msdnet --rounds 9 --compile

Random images of CIFAR-10's shape, the options of ``cifar10_jpeg``'s CPU recipe, the whole step: loss, gradient, update.
Each round times one step of every variant in turn; the table gives the median rate and the median of the rounds'
ratios to float32. Quote it with processor, threads, rounds and versions, taken on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable

import torch

from anytime_bench.methods.contract import Progress
from anytime_bench.registry import methods
from anytime_bench.runs.plan import resolve
from anytime_bench.tasks.task import TaskCard
from anytime_bench.training.optimisers import make_optimiser
from anytime_bench.training.recipes import recipe_for

CARD = TaskCard(
    "cifar10_jpeg", "CIFAR-10", tuple("0123456789"), (3, 32, 32), {"train": 45000, "val": 5000, "test": 10000},
    (0.5,) * 3, (0.25,) * 3,
)  # fmt: skip


def step_of(name: str, batch: int, bf16: bool, compiled: bool) -> Callable[[], None]:
    """A function that makes one training step of a fresh model of ``name``."""
    row = resolve(name, recipe_for("cifar10_jpeg", device="cpu"))
    torch.manual_seed(0)
    model = row.method.build(CARD).to(memory_format=torch.channels_last).train()
    if compiled:
        model.compile()
    optimiser = make_optimiser(row.method, model, row.config.training)
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(10, (batch,))
    position = Progress(1, 10, 1, 100)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = row.method.training_loss(model, images, targets, position)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--compile", action="store_true", help="also with a compiled forward pass")
    options = parser.parse_args()
    names = options.methods.split(",") if options.methods else [n for n in methods.names() if n != "timm"]
    variants = [("fp32", False, False), ("bf16", True, False)]
    variants += [("fp32 compiled", False, True), ("bf16 compiled", True, True)] if options.compile else []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), batch {options.batch}, "
          f"median of {options.rounds} rounds\n")  # fmt: skip
    print(f"| row | {' | '.join(f'{v[0]} images/s' for v in variants)} | {' | '.join(v[0] for v in variants[1:])} |")
    print(f"|:--|{'--:|' * (2 * len(variants) - 1)}")
    for name in names:
        row = resolve(name, recipe_for("cifar10_jpeg", device="cpu"))
        if row.method.weights_from or row.method.skip(CARD):
            continue
        steps = [step_of(name, options.batch, bf16, compiled) for _, bf16, compiled in variants]
        for step in steps:
            step()
        seconds: list[list[float]] = [[] for _ in variants]
        for _ in range(options.rounds):
            for number, step in enumerate(steps):
                begun = time.perf_counter()
                step()
                seconds[number].append(time.perf_counter() - begun)
        rates = [options.batch / statistics.median(values) for values in seconds]
        ratios = [
            statistics.median(base / one for base, one in zip(seconds[0], values, strict=True))
            for values in seconds[1:]
        ]
        print(f"| {name} | {' | '.join(f'{r:.0f}' for r in rates)} | {' | '.join(f'{r:.2f}x' for r in ratios)} |")


if __name__ == "__main__":
    main()
