"""Does a GPU compute what a CPU computes? Answers of every way to run a model, corruptions, early stop.

In float64 all ways agree to 1e-12 of the largest logit, in float32 without TF32 to 1e-5. Norms' running statistics are
moved off their start first, where all steps of a norm would be alike.

The device is a parameter, so that all of this can be tried on a CPU too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from anytime_bench.conformance.gpu_lines import Line, judged
from anytime_bench.corruptions import conditions, corrupt
from anytime_bench.corruptions.catalogue import named
from anytime_bench.harness.clocks import HostClock
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.early_stop import confident, stop_early
from anytime_bench.harness.engines import chosen_engine, engine_verdict, matched_engines
from anytime_bench.harness.torch_settings import tf32
from anytime_bench.methods.contract import AnytimeModel

#: Largest difference of two ways to compute an answer, relative to the largest logit.
EXACT, SINGLE, ACROSS_DEVICES = 1e-12, 1e-5, 1e-9


def answers_agree(
    name: str, model: AnytimeModel, reference: AnytimeModel, images: Tensor, device: torch.device
) -> Iterator[Line]:
    """``forward``, ``stream`` and the engine of timing against each other, and ``forward`` against the CPU's."""
    model, reference = (unsettled(copy.deepcopy(each).cpu()) for each in (model, reference))
    with tf32(False):
        for dtype, bound in ((torch.float64, EXACT), (torch.float32, SINGLE)):
            on_cpu = copy.deepcopy(model).to(dtype)
            there, other = copy.deepcopy(on_cpu).to(device), copy.deepcopy(reference).to(device, dtype)
            x = images.to(device, dtype)
            with evaluating(on_cpu), evaluating(there), evaluating(other):
                whole = there(x)
                engine = matched_engines(chosen_engine("auto", device), there, [other], x).method
                engine.load(x)
                engine.run_through(HostClock(device))
                ways = {"stream": torch.stack(list(there.stream(x))), engine.name: torch.stack(engine.answers)}
                gaps = {f"forward and {way}": gap(answers, whole) for way, answers in ways.items()}
                if dtype is torch.float64:
                    gaps["GPU and CPU"] = gap(whole.cpu(), on_cpu(x.cpu()))
            for what, size in gaps.items():
                limit = ACROSS_DEVICES if what == "GPU and CPU" else bound
                yield judged(
                    "answers", f"{name}: {what}, {str(dtype).removeprefix('torch.')}", f"{size:.1e}", f"<= {limit:.0e}",
                    size <= limit, correctness=True, values={"gap": size},
                )  # fmt: skip


def engine_line(name: str, model: AnytimeModel, reference: AnytimeModel, images: Tensor) -> Line:
    """Whether the row is timed by the engine that this device's rows should have."""
    wanted = chosen_engine("auto", images.device)
    with evaluating(model), evaluating(reference):
        verdict = engine_verdict(wanted, model, reference, images)
    return judged("engine", name, verdict, wanted, verdict == f"engine: {wanted}", values={"verdict": verdict})


def corruption_bits(images: Tensor, device: torch.device, choice: str = "all") -> Iterator[Line]:
    """Every kind of noise on ``images (B, D, H, W)``, pixels in [0, 1], on the device and on the CPU."""
    mean, std = [0.5] * images.shape[1], [0.25] * images.shape[1]
    normalised, indices = (images - 0.5) / 0.25, torch.arange(len(images))
    for kind, severity in conditions(named(choice), (1, 5)):
        here, there = (
            corrupt(
                normalised.to(place), kind, severity=severity, seed=0, indices=indices.to(place), mean=mean, std=std
            )
            for place in (torch.device("cpu"), device)
        )
        there = there.cpu()
        differs, largest = float((here != there).float().mean()), float((here - there).abs().max())
        yield judged(
            "corruption", kind if severity is None else f"{kind}, severity {severity}",
            "equal bits" if differs == 0 else f"{differs:.2%} of the values differ, by {largest:.1e} at most",
            "equal bits", differs == 0, correctness=True, values={"differing": differs, "largest": largest},
        )  # fmt: skip


def stops_alike(
    name: str, model: AnytimeModel, images: Tensor, device: torch.device, sizes: Sequence[int] = (1, 16)
) -> Iterator[Line]:
    """Real early stop on the device: where each image leaves is where it leaves on the CPU, ties of rounding apart."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    with evaluating(model):
        top = model(images.to(device)).float().softmax(2).amax(2)  # (E, N)
    threshold = float(top[: max(model.num_exits // 2, 1)].median())
    for size in sizes:
        with tf32(False):
            there = stop_early(model, images.to(device), labels.to(device), confident(threshold), batch_size=size)
            here = stop_early(copy.deepcopy(model).cpu(), images, labels, confident(threshold), batch_size=size)
        same = float((there.exits == here.exits).mean())
        share = float(there.policy_seconds.sum() / there.seconds.sum())
        yield judged(
            "early stop", f"{name}, batch {size}, {there.stop}",
            f"{same:.1%} leave at the CPU's exit; p50 {sorted(there.seconds)[len(there.seconds) // 2] * 1e3:.2f} ms, "
            f"deciding takes {share:.0%}",
            ">= 97 % alike", same >= 0.97, correctness=True, values={"alike": same, "policy_share": share},
        )  # fmt: skip


def unsettled(model: AnytimeModel) -> AnytimeModel:
    """``model`` with running statistics off their start, in place."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return model


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest magnitude."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
