"""Everything about timing that needs a GPU, in one command and one table, in under ten minutes.

    python tests/benchmarks/timing_gpu.py [--seconds 20] [--out timing_gpu.md]

Checks: the A/A self-test on both clocks and each engine (interval contains 1, narrower than 1 %), known busy kernels
(equal shares to 5 %), prefix graphs against triton.testing.do_bench (5 %), answers in graphs against the accuracy pass,
and the parallel and serial cascade with every exit's latency and device time. GPU settings are only read.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from anytime_bench.harness.environment import capture, findings
from anytime_bench.harness.self_test import PlainResNet, self_test
from anytime_bench.harness.timing import time_exits
from anytime_bench.harness.timing_block import Timing
from anytime_bench.methods.contract import AnytimeModel
from baselines.cascade.model import CascadedResNet

Row = tuple[str, str, str, str]


class Busy(AnytimeModel):
    """Three exits, each keeping the GPU busy for the same number of clock cycles."""

    num_exits, ticks = 3, (1, 2, 3)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for _ in range(3):
            torch.cuda._sleep(2_000_000)
            yield images.flatten(1)[:, :10]


def verdict(good: bool) -> str:
    return "holds" if good else "FAILS"


def self_tests(seconds: float) -> Iterator[Row]:
    for engine in ("graph", "eager"):
        report = self_test("cuda", seconds, engine=engine)
        for clock, ratio in report["clocks"].items():
            interval = f"{ratio['value']:.4f} [{ratio['low']:.4f}, {ratio['high']:.4f}]"
            good = ratio["contains_one"] and ratio["narrow"]
            yield f"A/A, {report['engine']}, {clock}", interval, "contains 1, width < 1 %", verdict(good)
        for reason in report["reasons"]:
            yield f"A/A, {report['engine']}", reason, "comparable", "disturbed"


def busy_kernels(seconds: float) -> Iterator[Row]:
    images = torch.randn(8, 3, 8, 8, device="cuda")
    for engine in ("graph", "eager"):
        summary = time_exits(Busy(), Busy(), images, device="cuda", engine=engine, budget_seconds=seconds).summary()
        for clock, block in summary.headline.clocks.items():
            p50 = [row.p50 for row in block.run_through]
            off = max(abs(p50[k] / (p50[2] * (k + 1) / 3) - 1) for k in range(3))
            yield (
                f"busy kernels, {summary.meta.engine}, {clock}",
                f"off by {off:.2%}",
                "equal shares, 5 %",
                verdict(off < 0.05),
            )


def do_bench(seconds: float) -> Iterator[Row]:
    try:
        from triton.testing import do_bench as theirs
    except ImportError:
        yield "triton.testing.do_bench", "triton is not installed", "5 %", "skipped"
        return
    # Wide and batched, so that kernels outlast their launches and an eager stream has no gaps.
    model = PlainResNet(width=256).cuda().eval()
    images = torch.randn(64, 3, 64, 64, device="cuda")
    ours = time_exits(model, model, images, device="cuda", batch_sizes=(64,), cache="flushed", budget_seconds=seconds)
    mine = ours.summary().headline.clocks["device_time"].reference_full.p50
    with torch.inference_mode():
        other = theirs(lambda: model.answer(images, 0), return_mode="median") * 1e-3
    off = mine / other - 1
    yield "reference against do_bench", f"{mine * 1e3:.3f} and {other * 1e3:.3f} ms", "5 %", verdict(abs(off) < 0.05)


def cascades(seconds: float) -> Iterator[Row]:
    shape, width = (3, 32, 32), 64
    reference = CascadedResNet(width=width, schedule="serial").cuda()
    images = torch.randn(256, *shape, device="cuda")
    models = {
        "parallel cascade": CascadedResNet(width=width).cuda(),
        "serial": CascadedResNet(width=width, schedule="serial").cuda(),
    }
    for name, model in models.items():
        timing = time_exits(
            model, reference, images, device="cuda", batch_sizes=(1, 64, 256), budget_seconds=2 * seconds
        )
        summary = timing.summary()
        agree = summary.meta.answers_agree
        yield f"{name}: answers while timing", f"{agree:.2%} agree", "100 %", verdict(agree == 1)
        for k in range(model.num_exits):
            yield f"{name}: exit {k}", exit_line(summary, k), "-", summary.meta.engine
        for size, block in list(summary.batches.items())[1:]:
            yield (
                f"{name}: batch {size}",
                f"{block.clocks['latency'].throughput[-1]:,.0f} images/s",
                "-",
                summary.meta.engine,
            )
        for reason in summary.headline.reasons + summary.notes:
            yield name, reason, "comparable", "disturbed"


def exit_line(summary: Timing, k: int) -> str:
    parts = []
    for clock, block in summary.headline.clocks.items():
        ratio = block.ratio_to_reference[k]
        through, prefix = (1e3 * getattr(block, kind)[k].p50 for kind in ("run_through", "prefix"))
        parts.append(f"{clock} {through:.3f} ms run-through, {prefix:.3f} ms prefix, ratio {ratio.value:.3f}")
    return "; ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="budget of each block; fifteen blocks at the most")
    parser.add_argument("--out", type=Path, default=Path("timing_gpu.md"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a CUDA device: nothing was measured")
        return 1
    begun = time.perf_counter()
    environment = capture("cuda")
    head = (
        f"# {environment['device_name']}, driver {(environment['gpu'] or {}).get('driver')}, torch {torch.__version__}"
    )
    rows: list[Row] = [("environment", f.what, f.effect, f.level) for f in findings(environment)]
    for block in (self_tests, busy_kernels, do_bench, cascades):
        print(f"{time.perf_counter() - begun:5.0f} s  {block.__name__}", flush=True)
        try:
            rows += block(options.seconds)
        except Exception as error:  # one block's failure must not cost the others' numbers
            rows.append((block.__name__, f"{type(error).__name__}: {error}".replace("\n", " "), "-", "FAILS"))
    table = [head, "", "| what | measured | expected | verdict |", "|---|---|---|---|"]
    table += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    table += ["", f"{time.perf_counter() - begun:.0f} s in all. Medians; intervals are 95 % block bootstrap."]
    options.out.write_text("\n".join(table) + "\n")
    print("\n".join(table))
    return int(any(row[3] == "FAILS" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
