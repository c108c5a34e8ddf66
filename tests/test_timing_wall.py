"""Timing on the wall clock: known waits, and torch's own timer. Slow, because a second of quiet is what they need."""

import time

import numpy as np
import pytest
import torch
from torch.utils.benchmark import Timer

from anytime_bench.harness.selftest import PlainResNet
from anytime_bench.harness.timing import time_exits
from anytime_bench.method import AnytimeModel

pytestmark = pytest.mark.slow


class Spinner(AnytimeModel):
    """Spins 2, 4 and 8 ms; a sleep would measure the scheduler's timer instead."""

    num_exits, ticks = 3, (1, 2, 3)
    steps = (0.002, 0.004, 0.008)

    def stream(self, images):
        for step in self.steps:
            end = time.perf_counter() + step
            while time.perf_counter() < end:
                pass
            yield images.flatten(1)[:, :10]


def test_known_spins_are_timed_to_five_percent():
    images = torch.randn(4, 1, 8, 8)
    summary = time_exits(Spinner(), Spinner(), images, device="cpu", rounds=30, budget_seconds=5).summary()
    expected = np.cumsum(Spinner.steps)
    np.testing.assert_allclose([row["p50"] for row in summary["run_through"]], expected, rtol=0.05)
    np.testing.assert_allclose([row["p50"] for row in summary["prefix"]], expected, rtol=0.05)


def test_torch_timer_agrees():
    """The two take turns; the best of three tries, because a neighbour may visit one of them and not the other."""
    model, images = PlainResNet().eval(), torch.randn(16, 3, 32, 32)
    timer = Timer("model.answer(image, 0)", globals={"model": model, "image": images[:1]}, num_threads=1)
    off = []
    for _ in range(3):
        ours = time_exits(model, model, images, device="cpu", budget_seconds=2, threads=1)
        with torch.inference_mode():
            theirs = timer.blocked_autorange(min_run_time=1).median
        off.append(abs(ours.summary()["reference_full"]["p50"] / theirs - 1))
    assert min(off) < 0.05
