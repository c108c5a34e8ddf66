"""A task of 90 small images and methods that train in milliseconds, or go wrong while the environment says so.

The faults happen while the folder ``SWEEP_FAULTS`` exists. Nothing else changes, so a run stays the same run.
"""

import os
import subprocess
import time

import numpy as np
import torch
from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.registry import tasks
from anytime_bench.tasks.task import Split, make_task


def read(root, argument):
    rng = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % 3
        images = rng.integers(0, 99, (count, 1, 4, 4)) + labels[:, None, None, None] * 70
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return make_task("specks", "Specks", ("a", "b", "c"), split(90), split(30), split(30))


tasks.add("specks", read)


class Net(AnytimeModel):
    num_exits, ticks = 2, (1, 2)

    def __init__(self):
        super().__init__()
        self.body, self.early, self.late = nn.Linear(16, 8), nn.Linear(16, 3), nn.Linear(8, 3)

    def stream(self, images):
        x = images.flatten(1)
        yield self.early(x)
        yield self.late(self.body(x).relu())


class Plain(Method):
    card = MethodCard("Plain")

    def build(self, task):
        return Net()


class Taker(Plain):
    card = MethodCard("Taker")
    weights_from = "plain"


class Tuner(Plain):
    card = MethodCard("Tuner")
    starts_from = "plain"


class Slow(Plain):
    """Sleeps a little in each step, so that a signal finds it at work."""

    card = MethodCard("Slow")

    def training_loss(self, model, images, targets, progress):
        time.sleep(0.01)
        return super().training_loss(model, images, targets, progress)


class NotHere(Plain):
    card = MethodCard("Not here")

    def skip(self, task):
        return "never fits"


class Faulty(Plain):
    """Trains, but for its fault in the second epoch."""

    card = MethodCard("Faulty")

    def training_loss(self, model, images, targets, progress):
        if progress.epoch == 2 and os.path.isdir(os.environ.get("SWEEP_FAULTS", "")):
            self.fault()
        return super().training_loss(model, images, targets, progress)

    def fault(self):
        raise RuntimeError("the planted fault")


class Hangs(Faulty):
    card = MethodCard("Hangs")

    def fault(self):
        time.sleep(600)


class Exits(Faulty):
    card = MethodCard("Exits")

    def fault(self):
        os._exit(7)


class Hogs(Faulty):
    card = MethodCard("Hogs")

    def fault(self):
        self.hoard = [torch.ones(2**26) for _ in range(256)]  # 64 GiB


class Kills(Faulty):
    """Leaves a child behind that ignores the hang-up, and is then killed as by the kernel."""

    card = MethodCard("Kills")

    def fault(self):
        subprocess.Popen(["sleep", "599.5"])
        os.kill(os.getpid(), 9)
