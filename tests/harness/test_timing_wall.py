"""Timing on the wall clock: known waits, and torch's own timer. Slow, because a second of quiet is what they need."""

import time

import numpy as np
import pytest
import torch
from torch.utils.benchmark import Timer

from anytime_bench.harness.clocks import HostClock
from anytime_bench.harness.eager import Eager
from anytime_bench.harness.self_test import PlainResNet
from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.methods.contract import AnytimeModel

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
    timing = time_exits(Spinner(), Spinner(), images, "cpu", TimingSettings(rounds=30, budget_seconds=5))
    expected = np.cumsum(Spinner.steps)
    for kind in ("run_through", "prefix"):
        # A spin that lost its core overruns, as it should; the tenth percentile is the spin that did not.
        seen = np.percentile(timing.samples[f"batch1_latency_{kind}"], 10, axis=(0, 1))
        np.testing.assert_allclose(seen, expected, rtol=0.05)


def test_torch_timer_agrees():
    """Single inferences on either clock take turns, so that a neighbour visits both alike."""
    model, image = PlainResNet().eval(), torch.randn(1, 3, 32, 32)
    engine, clock = Eager(model, image), HostClock(torch.device("cpu"))
    timer = Timer("model.answer(image, 0)", globals={"model": model, "image": image}, num_threads=1)
    ours, theirs = [], []
    with torch.inference_mode():
        for _ in range(300):
            ours += [engine.prefix(0, clock)[0][0] for _ in range(5)]
            theirs += [timer.timeit(1).median for _ in range(5)]
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.05)
