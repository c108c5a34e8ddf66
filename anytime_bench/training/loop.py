"""One training loop for every method: seeded per epoch, checkpointed per epoch, resumable to the bit.

Each epoch reseeds torch and the data generator from (seed, epoch), so a checkpoint needs weights, momentum and the
epoch's number, and nothing else: a run killed at any moment and resumed ends with the same bits as one that was
not. Files in the run's folder: ``checkpoint.safetensors`` while training, ``weights.safetensors`` when done,
``log.jsonl`` with a line per epoch. Safetensors cannot carry code.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from anytime_bench.files import file_sha256, write_atomically
from anytime_bench.methods.contract import AnytimeModel, Method, Progress
from anytime_bench.training import ddp as distributed
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

VALIDATION_IMAGES = 1000


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


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Learning rate at ``epoch`` in [0, epochs], a real number: linear warm-up, then cosine, steps or constant."""
    if config.warmup and epoch < config.warmup:
        return config.lr * (epoch + 1e-2) / (config.warmup + 1e-2)
    if config.schedule == "cosine":
        done = (epoch - config.warmup) / max(config.epochs - config.warmup, 1e-9)
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    return config.lr


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

    Under torchrun all processes train together (see ``distributed``), and the first one writes.
    Raises ``Diverged`` when an epoch's loss is not finite and ``UserError`` when the folder cannot be written.
    """
    settings = config.training
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay,
        nesterov=settings.nesterov and settings.momentum > 0,
    )  # fmt: skip
    device = train_split.images.device
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and device.type == "cuda")
    train_split = train_split.sample(settings.train_images)
    steps = train_split.steps_per_epoch(settings.batch_size)
    distributed.check_batches(len(train_split), settings.batch_size)
    loss_of = distributed.loss_over_processes(method, model)
    first_process = distributed.rank() == 0
    checkpoint = folder / "checkpoint.safetensors"
    losses: list[float] = []
    before, first_epoch = 0.0, 1
    if resume and checkpoint.exists():
        try:
            state = read_tensors(checkpoint)
            before, losses = restore(state, model, optimizer, parameters)
            first_epoch = len(losses) + 1
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            warn(f"'{checkpoint}' is damaged ({error}); training starts from the first epoch.")
    started = time.perf_counter()
    accuracies: list[float] = []
    validate_every = max(1, settings.epochs // 20)
    for epoch in range(first_epoch, settings.epochs + 1):
        generator = seeded(seed, epoch, 1)
        torch.manual_seed(int(torch.randint(0, 2**62, (), generator=generator)) + distributed.rank())
        model.train()
        total, shown = torch.zeros((), device=device), None
        for step, (images, targets) in enumerate(
            train_split.shuffled(settings.batch_size, config.augment, generator), start=1
        ):
            if settings.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            position = Progress(epoch, settings.epochs, step, steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch - 1 + (step - 1) / steps)
            with torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
                loss = loss_of(model, images, targets, position)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            total += loss.detach()
            if device.type == "cpu" or step % 20 == 0:
                shown = float(loss.detach())
            on_step(TrainingStep(epoch, settings.epochs, position.fraction, shown, accuracies))
        mean_loss = float(distributed.mean(total)) / steps
        if not math.isfinite(mean_loss):
            raise Diverged(
                f"the loss became {mean_loss} in epoch {epoch} of {settings.epochs} "
                f"at learning rate {learning_rate(settings, epoch - 1):.3g}; try a smaller training.lr"
            )
        losses.append(mean_loss)
        if not first_process:
            continue
        if epoch % validate_every == 0 or epoch == settings.epochs:
            accuracies = validation_accuracy(model, val_split.sample(VALIDATION_IMAGES))
        seconds = before + time.perf_counter() - started
        with storage_errors(folder):
            _append_log(folder / "log.jsonl", epoch, mean_loss, learning_rate(settings, epoch), accuracies, seconds)
            write_tensors(checkpoint, snapshot(model, optimizer, parameters), seconds=seconds, losses=losses)
    weights = folder / "weights.safetensors"
    if not first_process:
        return TrainingReport("", settings.epochs, before + time.perf_counter() - started, losses)
    finish(method, model, train_split, config, seed)
    seconds = before + time.perf_counter() - started
    with storage_errors(folder):
        # The hash is removed first and written last: a crash between leaves weights without one, never a wrong one.
        weights.with_suffix(".sha256").unlink(missing_ok=True)
        write_tensors(weights, dict(model.state_dict()), seconds=seconds, losses=losses)
        write_atomically(weights.with_suffix(".sha256"), file_sha256(weights).encode() + b"\n")
        for leftover in (checkpoint, checkpoint.with_suffix(".seconds")):
            leftover.unlink(missing_ok=True)
    return TrainingReport(file_sha256(weights), settings.epochs, seconds, losses)


def finish(method: Method, model: AnytimeModel, split: DeviceSplit, config: RunConfig, seed: int) -> None:
    """Let ``method`` fit what it fits after training, on draws that no epoch of the training had."""
    generator = seeded(seed, config.training.epochs + 1, 1)
    torch.manual_seed(int(torch.randint(0, 2**62, (), generator=generator)))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return split.shuffled(config.training.batch_size, config.augment, generator)

    method.finish(model.eval(), batches)


@torch.inference_mode()
def validation_accuracy(model: AnytimeModel, split: DeviceSplit) -> list[float]:
    """Accuracy per exit on ``split``; leaves the model in evaluation mode."""
    model.eval()
    right = torch.zeros(model.num_exits, device=split.images.device)
    for images, labels in split.batches(250):
        right += (model(images).argmax(dim=2) == labels).sum(dim=1)
    return (right / len(split)).tolist()


def _append_log(path: Path, epoch: int, loss: float, lr: float, accuracies: list[float], seconds: float) -> None:
    """One JSON line per epoch. A resumed run repeats no line: lines from an epoch that is redone are dropped first."""
    line = {"epoch": epoch, "loss": loss, "lr": lr, "val_accuracy": accuracies, "seconds": round(seconds, 3)}
    kept = []
    if path.exists() and epoch > 1:
        kept = [old for old in path.read_text().splitlines() if _epoch_of(old) < epoch]
    write_atomically(path, ("\n".join([*kept, json.dumps(line)]) + "\n").encode())


def _epoch_of(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError):
        return math.inf
