"""One training loop for every method: seeded per epoch, checkpointed per epoch, resumable to the bit.

Each epoch reseeds torch and the data generator from (seed, epoch), so a checkpoint needs weights, the optimiser's
state and the epoch's number, and nothing else: a run killed at any moment and resumed ends, on a CPU, with the same
bits as one that was not. On a GPU the same holds as far as ``training.deterministic`` reaches: convolutions and
attention are asked for repeatable algorithms. Files in the run's folder: ``checkpoint.safetensors`` while training,
``weights.safetensors`` when done, ``log.jsonl`` with a line per epoch. Safetensors cannot carry code.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from anytime_bench.files import file_sha256, write_atomically
from anytime_bench.methods.contract import AnytimeModel, Method, Progress
from anytime_bench.training import ddp
from anytime_bench.training.checkpoints import (
    TrainingReport,
    read_tensors,
    restore,
    snapshot,
    storage_errors,
    write_tensors,
)
from anytime_bench.training.config import RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit, seeded
from anytime_bench.training.graphs import Step, StepGraph, check_graph
from anytime_bench.training.optimisers import learning_rate, make_optimiser, set_learning_rate

VALIDATION_IMAGES = 1000

Loss = Callable[[AnytimeModel, Tensor, Tensor, Progress], Tensor]


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message says when."""


@dataclass(frozen=True)
class TrainingStep:
    """What a progress display shows: where training is, the running loss, validation accuracy per exit."""

    epoch: int
    epochs: int
    fraction: float
    loss: float | None
    accuracies: list[float]


def train(
    method: Method,
    model: AnytimeModel,
    train_split: DeviceSplit,
    val_split: DeviceSplit,
    config: RunConfig,
    *,
    seed: int,
    folder: Path,
    resume: bool,
    on_step: Callable[[TrainingStep], None] = lambda step: None,
    warn: Callable[[str], None] = lambda text: None,
) -> TrainingReport:
    """Train ``model`` in place and write its weights to ``folder``; returns what the record needs.

    Under torchrun all processes train together (see ``ddp``), and the first one writes.
    Raises ``Diverged`` when an epoch's loss is not finite and ``UserError`` when the folder cannot be written.
    """
    settings = config.training
    check_graph(settings, train_split.device, ddp.processes())
    optimiser = make_optimiser(method, model, settings)
    repeatable = settings.deterministic and train_split.device.type == "cuda"
    train_split = train_split.sample(settings.train_images)
    ddp.check_batches(len(train_split), settings.batch_size)
    checkpoint = folder / "checkpoint.safetensors"
    precision = training_precision(settings.precision, train_split.device)
    new: tuple[float, list[float], str] = (0.0, [], precision)
    earlier = _resumed(checkpoint, model, optimiser, settings, warn) if resume else None
    before, losses, precision = earlier or new
    started = time.perf_counter()
    accuracies: list[float] = []
    validate_every = max(1, settings.epochs // 20)
    with _repeatable(repeatable), _compiled(model, settings.compile):
        step = _step(ddp.loss_over_processes(method, model), model, optimiser, settings, precision, train_split.device)
        if settings.graph:
            step = StepGraph(step, optimiser, warn)
        for epoch in range(len(losses) + 1, settings.epochs + 1):
            report = lambda fraction, loss: on_step(  # noqa: E731
                TrainingStep(epoch, settings.epochs, fraction, loss, accuracies)  # noqa: B023
            )
            losses.append(_train_epoch(step, model, optimiser, train_split, config, seed, epoch, report))
            if ddp.rank() != 0:
                continue
            if epoch % validate_every == 0 or epoch == settings.epochs:
                accuracies = validation_accuracy(model, val_split.sample(VALIDATION_IMAGES))
            seconds = before + time.perf_counter() - started
            with storage_errors(folder):
                rate = learning_rate(settings, epoch)
                _append_log(folder / "log.jsonl", epoch, losses[-1], rate, accuracies, seconds)
                state = snapshot(model, optimiser)
                write_tensors(checkpoint, state, seconds=seconds, losses=losses, precision=precision)
    weights = folder / "weights.safetensors"
    if ddp.rank() != 0:
        return TrainingReport("", settings.epochs, before + time.perf_counter() - started, losses, precision)
    with _repeatable(repeatable):
        _finish(method, model, train_split, config, seed)
    seconds = before + time.perf_counter() - started
    with storage_errors(folder):
        write_tensors(weights, dict(model.state_dict()), seconds=seconds, losses=losses, precision=precision)
        for leftover in (checkpoint, checkpoint.with_suffix(".seconds")):
            leftover.unlink(missing_ok=True)
    return TrainingReport(file_sha256(weights), settings.epochs, seconds, losses, precision)


def _step(
    loss_of: Loss,
    model: AnytimeModel,
    optimiser: torch.optim.Optimizer,
    settings: TrainingConfig,
    precision: str,
    device: torch.device,
) -> Step:
    """Forward, backward, clipping and update for one batch, as one function; returns its loss.

    With ``training.accumulate`` a step of the optimiser has several batches, this one being number ``place`` of them.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def step(images: Tensor, targets: Tensor, position: Progress, place: int = 1, batches: int = 1) -> Tensor:
        if place == 1:
            optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            loss = loss_of(model, images, targets, position)
        (loss / batches if batches > 1 else loss).backward()
        if place == batches:
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimiser.step()
        return loss.detach()

    return step


def _train_epoch(
    step_of: Step,
    model: AnytimeModel,
    optimiser: torch.optim.Optimizer,
    split: DeviceSplit,
    config: RunConfig,
    seed: int,
    epoch: int,
    report: Callable[[float, float | None], None],
) -> float:
    """One pass over ``split``; returns its mean loss. ``report(fraction, loss)`` after every batch."""
    settings, device = config.training, split.device
    generator = seeded(seed, epoch, 1)
    torch.manual_seed(int(torch.randint(0, 2**62, (), generator=generator)) + ddp.rank())
    model.train()
    steps = split.steps_per_epoch(settings.batch_size)
    total, shown = torch.zeros((), device=device), None
    for step, (images, targets) in enumerate(split.shuffled(settings.batch_size, config.augment, generator), start=1):
        if settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        position = Progress(epoch, settings.epochs, step, steps)
        # The batches of one optimiser step share its rate; the last step of an epoch may have fewer of them.
        first = (step - 1) // settings.accumulate * settings.accumulate
        batches = min(settings.accumulate, steps - first)
        set_learning_rate(optimiser, learning_rate(settings, epoch - 1 + first / steps))
        loss = step_of(images, targets, position, step - first, batches)
        total += loss
        if device.type == "cpu" or step % 20 == 0:
            shown = float(loss)
        report(position.fraction, shown)
    optimiser.zero_grad(set_to_none=True)
    mean_loss = float(ddp.mean(total)) / steps
    if not math.isfinite(mean_loss):
        raise Diverged(
            f"the loss became {mean_loss} in epoch {epoch} of {settings.epochs} "
            f"at learning rate {learning_rate(settings, epoch - 1):.3g}; try a smaller training.lr"
        )
    return mean_loss


def _finish(method: Method, model: AnytimeModel, split: DeviceSplit, config: RunConfig, seed: int) -> None:
    """Let ``method`` fit what it fits after training, on draws that no epoch of the training had."""
    generator = seeded(seed, config.training.epochs + 1, 1)
    torch.manual_seed(int(torch.randint(0, 2**62, (), generator=generator)))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return split.shuffled(config.training.batch_size, config.augment, generator)

    method.finish(model.eval(), batches)


def training_precision(choice: str, device: torch.device) -> str:
    """What ``training.precision`` comes to on ``device``.

    "auto" is bfloat16 on a GPU and on a CPU that multiplies in it (AMX or AVX512-BF16), else float32: where it is
    emulated it is slower than float32.
    """
    if choice != "auto":
        return choice
    if device.type == "cpu":
        # Younger than the oldest torch supported here.
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"
    return "bf16" if device.type == "cuda" else "fp32"


def _resumed(
    checkpoint: Path,
    model: AnytimeModel,
    optimiser: torch.optim.Optimizer,
    settings: TrainingConfig,
    warn: Callable[[str], None],
) -> tuple[float, list[float], str] | None:
    """Seconds, losses and precision of the epochs that a checkpoint holds, which go on in that precision.

    None where there is none; a damaged one changes nothing and is named.
    """
    if not checkpoint.is_file():
        return None
    try:
        tensors, seconds, losses, precision = read_tensors(checkpoint)
        if len(losses) > settings.epochs:
            raise ValueError(f"it holds {len(losses)} epochs of {settings.epochs}")
        restore(tensors, model, optimiser)
    except (SafetensorError, KeyError, IndexError, ValueError, RuntimeError) as error:
        warn(f"'{checkpoint}' is damaged ({error}); training starts from the first epoch.")
        return None
    return seconds, losses, precision or training_precision(settings.precision, next(model.parameters()).device)


@contextlib.contextmanager
def _repeatable(wanted: bool) -> Iterator[None]:
    """Ask a GPU's convolutions and attention for algorithms that repeat bit for bit; the state before is restored.

    Matrix products repeat by themselves: torch gives cuBLAS a workspace per stream, and training has one stream.
    """
    if not wanted:
        yield
        return
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the gradients of the fused kernels add up in any order
            yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def _compiled(model: AnytimeModel, wanted: bool) -> Iterator[None]:
    """``model(...)`` runs compiled inside the block; parameters, names and the other methods are left alone."""
    if not wanted:
        yield
        return
    model.compile()
    try:
        yield
    finally:
        model._compiled_call_impl = None


@torch.no_grad()
def validation_accuracy(model: AnytimeModel, split: DeviceSplit) -> list[float]:
    """Accuracy per exit on ``split``; leaves the model in evaluation mode."""
    model.eval()
    right = torch.zeros(model.num_exits, device=split.device)
    for images, labels in split.batches(250):
        right += (model(images).argmax(dim=2) == labels).sum(dim=1)
    return (right / len(split)).tolist()


def _append_log(path: Path, epoch: int, loss: float, lr: float, accuracies: list[float], seconds: float) -> None:
    """One JSON line per epoch. A resumed run repeats no line: lines from an epoch that is redone are dropped first."""
    line = {"epoch": epoch, "loss": loss, "lr": lr, "val_accuracy": accuracies, "seconds": round(seconds, 3)}
    earlier = []
    if path.is_file() and epoch > 1:
        lines = path.read_text(errors="replace").splitlines()
        earlier = [old for old in lines if _epoch_of(old) < epoch]
    write_atomically(path, ("\n".join([*earlier, json.dumps(line)]) + "\n").encode())


def _epoch_of(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf
