"""How fast is a GPU, and by what path? Latencies of every row, side-by-side lanes, training steps.

All comparisons run in turn within one process, so that clocks and heat meet them alike. What a model offers beside its
``stream`` (``executions``) tells what can be compared: one that has ``one_lane`` runs its blocks side by side, one that
has ``dense`` has a literal recursion that computes everything at every step.

The device is a parameter, so that all of this can be tried on a CPU too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anytime_bench.conformance.gpu_lines import Line, judged
from anytime_bench.harness.clocks import synchroniser
from anytime_bench.harness.cost import evaluating, executions
from anytime_bench.harness.self_test import PlainResNet, self_test
from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.harness.timing_block import ClockBlock, Timing
from anytime_bench.harness.torch_settings import tf32
from anytime_bench.methods.contract import AnytimeModel

#: What was expected of an H100 before any GPU had run this, by reading: the experiments' names are those of the lines.
PREDICTIONS = {
    "all exits in one graph, device": "1.2 to 1.9, about 1.4; at most 1.2 as a wave over lanes",
    "last exit, a graph per exit, latency": "2.0 to 2.5",
    "reference, one graph, device": "about 0.30 ms at width 64, 66 kernels",
    "training, TF32": "0.5 of the dense recursion in TF32, which takes about 45 ms at batch 512",
    "training, bf16": "0.25 of the dense recursion in TF32",
}


def a_a(device: torch.device, seconds: float) -> Iterator[Line]:
    """Two copies of one network, by each engine this device has."""
    for engine in ("graph", "eager") if device.type == "cuda" else ("eager",):
        report = self_test(device, seconds, engine=engine)
        for clock, ratio in report.clocks.items():
            interval = f"{ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"
            expected = f"contains 1, narrower than {report.width_allowed:.0%}"
            values = ratio.model_dump()
            yield judged("A/A", f"{report.engine}, {clock}", interval, expected, ratio.holds, values=values)
        for reason in report.reasons:
            yield Line("A/A", report.engine, reason, "undisturbed")


def against_do_bench(device: torch.device, seconds: float) -> Iterator[Line]:
    """Device time of one network on this harness's clock and on triton's, with the cache flushed before each."""
    if device.type != "cuda":
        return
    try:
        from triton.testing import do_bench
    except ImportError:
        yield Line("A/A", "triton.testing.do_bench", "triton is not installed", verdict="skipped")
        return
    # Wide and batched, so that kernels outlast their launches and an eager stream has no gaps.
    model = PlainResNet(width=256).to(device).eval()
    images = torch.randn(64, 3, 64, 64, device=device)
    settings = TimingSettings(batch_sizes=(64,), cache="flushed", budget_seconds=seconds)
    block = time_exits(model, model, images, device, settings).summary().headline.clocks["device_time"]
    with torch.inference_mode():
        theirs = do_bench(lambda: model.answer(images, 0), return_mode="median") * 1e-3
    ours = block.reference_full.p50
    measured = f"{ours * 1e3:.3f} ms here, {theirs * 1e3:.3f} ms there"
    yield judged("A/A", "triton.testing.do_bench", measured, "5 % apart at most", abs(ours / theirs - 1) <= 0.05)


def latencies(
    name: str, model: AnytimeModel, reference: AnytimeModel, images: Tensor, seconds: float
) -> Iterator[Line]:
    """A row at batch 1 and 64, by the engine of its board and eagerly."""
    device = images.device
    for engine in ("auto", "eager") if device.type == "cuda" else ("eager",):
        settings = TimingSettings(engine=engine, batch_sizes=(1, 64), budget_seconds=seconds, rounds=10)
        summary = time_exits(model, reference, images, device, settings).summary()
        for size, batch in summary.batches.items():
            parts = [_times(clock, block) for clock, block in batch.clocks.items()]
            yield Line(
                "latency", f"{name}, {summary.meta.engine}, batch {size}", "; ".join(parts),
                values={"engine": summary.meta.engine, "clocks": _clocks(summary, size), "reasons": batch.reasons},
            )  # fmt: skip
        if engine == "auto" and summary.meta.engine == "graph":
            yield from _lanes(name, model, summary)


def _lanes(name: str, model: AnytimeModel, summary: Timing) -> Iterator[Line]:
    """Side-by-side lanes against the reference: all exits in one graph, and a graph per exit."""
    if "one_lane" not in executions(model):
        return
    device, latency = summary.headline.clocks.get("device_time"), summary.latency
    if device is None:
        return
    one_lane = device.executions.get("one_lane")
    ratio = device.ratio_to_reference[-1]
    rows: dict[str, tuple[str, float, bool]] = {
        "all exits in one graph, device": (f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]", ratio.value, True),
        "last exit, a graph per exit, latency": (
            f"{latency.ratio_to_reference[-1].value:.2f}", latency.ratio_to_reference[-1].value, False,
        ),
        "reference, one graph, device": (f"{device.reference_full.p50 * 1e3:.3f} ms", device.reference_full.p50, False),
    }  # fmt: skip
    for what, (measured, value, bound) in rows.items():
        line: dict[str, Any] = {"predicted": PREDICTIONS[what], "values": {"value": value}}
        if bound:
            yield judged("lanes", f"{name}: {what}", measured, "at most 1.5 of the reference", value <= 1.5, **line)
        else:
            yield Line("lanes", f"{name}: {what}", measured, **line)
    if one_lane is not None:
        gain = one_lane.run_through[-1].p50 / device.run_through[-1].p50
        yield Line("lanes", f"{name}: one lane over lanes, device", f"{gain:.2f}", values={"value": gain})


def _times(clock: str, block: ClockBlock) -> str:
    first, last = (1e3 * block.run_through[k].p50 for k in (0, -1))
    ratio = block.ratio_to_reference[-1].value
    return f"{clock.replace('_', ' ')} {first:.3f} to {last:.3f} ms, last exit {ratio:.2f} of the reference"


def _clocks(summary: Timing, size: str) -> dict[str, dict[str, list[float]]]:
    return {
        clock: {
            "milliseconds": [each.p50 * 1e3 for each in block.run_through],
            "ratios": [each.value for each in block.ratio_to_reference],
        }
        for clock, block in summary.batches[size].clocks.items()
    }


def training_steps(
    name: str, model: AnytimeModel, device: torch.device, shape: tuple[int, int, int], batch: int, rounds: int
) -> Iterator[Line]:
    """One step of SGD on the mean cross-entropy over exits, against the dense recursion; with peak memory on a GPU."""
    dense = executions(model).get("dense")
    if dense is None:
        return
    images = torch.randn(batch, *shape, device=device)
    with evaluating(model):
        classes = model(images[:1]).shape[-1]
    labels = torch.randint(0, classes, (batch,), device=device)
    ways: dict[str, Callable[[], Tensor]] = {
        "dense recursion": lambda: torch.stack(list(dense(images))),
        "forward": lambda: model(images),
    }
    precisions: dict[str, dict[str, bool]] = {"float32": {}, "TF32": {"fast": True}, "bf16": {"bf16": True}}
    # So small a rate that weights stay what they are, however many rounds there are.
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = {
        (way, precision): _step(model, answers, labels, device, optimiser, **flags)
        for precision, flags in precisions.items()
        for way, answers in ways.items()
    }
    model.train()
    times = _alternating(steps, rounds, device)
    model.eval()
    base = times["dense recursion", "TF32"]
    for (way, precision), milliseconds in times.items():
        ratio, peak = milliseconds / base, _peak(steps[way, precision], model, device)
        what = f"training, {precision}"
        measured = f"{milliseconds:.1f} ms, {ratio:.2f} of the dense recursion in TF32, peak {peak}"
        rest: dict[str, Any] = {"values": {"milliseconds": milliseconds, "ratio": ratio}}
        bounds = {"TF32": 0.5, "bf16": 0.25}
        if way == "forward" and precision in bounds:
            rest["predicted"] = PREDICTIONS[what]
            good = ratio <= bounds[precision]
            yield judged(
                "training", f"{name}: {what}, batch {batch}", measured, f"<= {bounds[precision]}", good, **rest
            )
        else:
            yield Line("training", f"{name}: {way}, {precision}, batch {batch}", measured, **rest)


def _step(
    model: AnytimeModel,
    answers: Callable[[], Tensor],
    labels: Tensor,
    device: torch.device,
    optimiser: torch.optim.Optimizer,
    fast: bool = False,
    bf16: bool = False,
) -> Callable[[], None]:
    """Forward, backward and the optimiser's step; ``fast`` lets float32 be multiplied in TF32."""

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with tf32(fast):  # the backward pass too
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = answers()
            targets = labels.repeat(len(logits))
            F.cross_entropy(logits.float().flatten(0, 1), targets).backward()
            optimiser.step()

    return run


def _alternating(
    steps: Mapping[tuple[str, str], Callable[[], None]], rounds: int, device: torch.device
) -> dict[tuple[str, str], float]:
    """Median milliseconds of each, run in turn, the first two rounds to warm up."""
    synchronise = synchroniser(device)
    times: dict[tuple[str, str], list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 2):
        for name, run in steps.items():
            synchronise()
            begun = perf_counter()
            run()
            synchronise()
            if round_ >= 2:
                times[name].append((perf_counter() - begun) * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def _peak(run: Callable[[], None], model: AnytimeModel, device: torch.device) -> str:
    if device.type != "cuda":
        return "not known"
    model.train()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    model.eval()
    return f"{(torch.cuda.max_memory_allocated(device) - before) / 2**20:.0f} MiB"
