"""The harness itself as a check: what ``run`` does to a method, on a few images and for a moment.

Counting, one epoch of training, prediction, timing and a noise evaluation, in the suite's own code and in float32, so
that a method which passes the kit does not fail in a run.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from anytime_bench.conformance.fixture import Subject, require, seeded
from anytime_bench.harness.cost import count_costs
from anytime_bench.harness.noise import NoiseSettings, evaluate_noise
from anytime_bench.harness.predict import predict
from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.tasks.task import Split, TaskCard
from anytime_bench.training.config import RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.loop import train

IMAGES = 16


def check_harness(subject: Subject) -> None:
    """The suite's own counting, training, prediction, timing and noise evaluation run on it."""
    model, task = subject.build(), subject.task
    split = _split(subject)
    if subject.method.weights_from is None:
        config = RunConfig(training=TrainingConfig(epochs=1, batch_size=IMAGES // 2, lr=1e-4))
        with tempfile.TemporaryDirectory() as folder, seeded(subject.seed):
            train(subject.method, model, split, split, config, seed=0, folder=Path(folder), resume=False)
    count_costs(model, task.shape)
    logits = predict(model, split, IMAGES)
    require(
        logits.shape == (model.num_exits, IMAGES, task.num_classes),
        f"prediction gave logits of shape {logits.shape}, expected (exits, images, classes)",
    )
    images = split.normalised(0, 4)
    # Two rounds, since weights move between them.
    time_exits(model, _OneLayer(task), images, "cpu", TimingSettings(rounds=2, budget_seconds=0.05))
    noise = NoiseSettings(kinds=("occlusion",), periods=(1,), batch_size=4)
    evaluate_noise(model, images, split.labels[:4], task, noise)


class _OneLayer(AnytimeModel):
    """A reference that takes no time of its own."""

    num_exits, ticks = 1, (1.0,)

    def __init__(self, task: TaskCard) -> None:
        super().__init__()
        # Not drawn: a check leaves the random state as it was.
        self.weight = nn.Parameter(torch.zeros(math.prod(task.shape), task.num_classes))

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        yield images.flatten(1) @ self.weight


def _split(subject: Subject) -> DeviceSplit:
    """Random images with random labels, the same for one seed."""
    rng = np.random.default_rng(subject.seed)
    images = rng.integers(0, 256, (IMAGES, *subject.task.shape), dtype=np.uint8)
    labels = rng.integers(0, subject.task.num_classes, IMAGES)
    return DeviceSplit.place(Split(images, labels.astype(np.int64)), subject.task, "cpu")
