"""The cascade on a GPU: latency of the parallel executor under CUDA graphs, and training speed. One command:

    python tests/benchmarks/cascade_gpu.py [--width 64] [--rounds 200] [--batch 512] [--out cascade_gpu.md]

Latency: batch 1, one CUDA graph per row, rows replayed alternately, median over rounds of host time (synchronise,
replay, synchronise) and of device time (CUDA events), and the median per-round ratio to the serial ResNet's graph.
Training: forward, TD(0) loss and backward at ``--batch`` against the literal recursion, in float32 and in bfloat16
autocast, with peak memory. The literal recursion is that of the tests, always in float32. The table goes to standard
output and, with ``--out``, to a file. Without a CUDA device it says so and leaves with status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.cascade.literal import LiteralCascade
from baselines.cascade.model import CascadedResNet
from baselines.cascade.parallel import GraphedAnswers
from baselines.cascade.td import td_loss


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of host time and of device time."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start = time.perf_counter()
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3, begin.elapsed_time(end)


def alternate(
    works: Mapping[str, Callable[[], object]], rounds: int, warm_up: int
) -> dict[str, list[tuple[float, float]]]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for round_ in range(rounds + warm_up):
        for name, work in works.items():
            pair = timed(work)
            if round_ >= warm_up:
                times[name].append(pair)
    return times


def rows_of(times: dict[str, list[tuple[float, float]]]) -> list[str]:
    """One table row per work; ratios are to the first, medians over rounds."""
    reference = next(iter(times.values()))
    rows = []
    for name, pairs in times.items():
        host, device = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(pairs, reference, strict=True)) for i in range(2)]
        rows.append(f"| {name} | {host:.3f} | {device:.3f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return rows


def latency(width: int, rounds: int) -> list[str]:
    images = torch.randn(1, 3, 32, 32, device="cuda")
    models = {s: CascadedResNet(width=width, schedule=s).cuda().eval() for s in ("serial", "parallel")}
    last = models["serial"].num_exits
    graphs = {"serial ResNet, last exit": GraphedAnswers(models["serial"], images, last, alone=True)}
    graphs["parallel cascade, last exit"] = GraphedAnswers(models["parallel"], images, last, alone=True)
    for exits in (1, 3, 5, 7, last):
        graphs[f"parallel cascade, exits 0 to {exits - 1}"] = GraphedAnswers(models["parallel"], images, exits)
    graphs["serial ResNet, all exits"] = GraphedAnswers(models["serial"], images)
    return rows_of(alternate({name: graph.replay for name, graph in graphs.items()}, rounds, warm_up=20))


def training(width: int, batch: int, rounds: int) -> list[str]:
    images, labels = torch.randn(batch, 3, 32, 32, device="cuda"), torch.randint(0, 10, (batch,), device="cuda")

    def step(net: nn.Module, bf16: bool) -> Callable[[], None]:
        def run() -> None:
            net.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                logits: Tensor = net(images)
            td_loss(logits.float(), labels, 0.0).backward()

        return run

    literal = LiteralCascade(CascadedResNet(width=width).cuda()).train()
    fast = CascadedResNet(width=width).cuda().train()
    works = {
        "literal recursion, float32": step(literal, False),
        "layer-wise, float32": step(fast, False),
        "layer-wise, bfloat16 autocast": step(fast, True),
    }
    rows = rows_of(alternate(works, max(rounds // 20, 5), warm_up=3))
    for i, work in enumerate(works.values()):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        rows[i] += f" {(torch.cuda.max_memory_allocated() - before) / 2**20:.0f} |"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("needs a CUDA device, and none is visible: run this where there is one")
    torch.manual_seed(0)
    head = "| | host ms | device ms | host ratio | device ratio |"
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, width {options.width}",
        "",
        f"Latency, batch 1, CUDA graphs, median of {options.rounds} alternating rounds; ratio to the serial ResNet",
        "",
        head,
        "|---|---|---|---|---|",
        *latency(options.width, options.rounds),
        "",
        f"Training step, batch {options.batch}; ratio to the literal recursion",
        "",
        head + " peak MiB |",
        "|---|---|---|---|---|---|",
        *training(options.width, options.batch, options.rounds),
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
