"""Models whose exits take known times, interrupted hundreds of times: deliveries, misses and lateness as they must be.

Tests of what a clock reads are ``slow`` and sleep for tens of milliseconds, so that a busy machine does not break them.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from support.sleeping_models import Convolutions, Raises, Sleeper

from anytime_bench.errors import UserError
from anytime_bench.harness.deadline_summary import MODES, summarise_deadlines
from anytime_bench.harness.deadlines import DeadlineSession, DeadlineSettings, serve_deadlines
from anytime_bench.trace.answers import Trace

SLEEP = 0.05
HORIZON = 4 * SLEEP
#: What the issue allows: 2 % of the horizon, or 1 ms.
TOLERANCE = max(0.02 * HORIZON, 0.001)
IMAGES = torch.zeros(8, 1, 4, 4)
FEW = DeadlineSettings(uniform=12, others=4)


def serve(sleep: float, settings: DeadlineSettings = FEW) -> DeadlineSession:
    return serve_deadlines(Sleeper(sleep), Sleeper(sleep), IMAGES, settings)


def test_every_draw_is_served_in_every_mode_and_the_draws_repeat() -> None:
    interval = sys.getswitchinterval()
    first, second = serve(0.001), serve(0.001)
    assert sys.getswitchinterval() == interval
    assert first.samples["exit"].shape == (3, 20)
    assert np.bincount(first.samples["kind"]).tolist() == [12, 4, 4]
    for name in ("kind", "image"):
        assert np.array_equal(first.samples[name], second.samples[name])
    share = first.samples["deadline"] / first.samples["horizon"]
    assert share == pytest.approx(second.samples["deadline"] / second.samples["horizon"], rel=1e-4)
    assert first.samples["run_through"].shape == (1, 4)


def test_the_horizon_is_what_the_reference_takes_between_requests_and_not_in_a_row() -> None:
    """A reference whose next few answers are slow once another model has run, as with cold caches."""
    cold = [0]

    class Model(Sleeper):
        def stream(self, images):
            cold[0] = 4
            return super().stream(images)

    class Reference(Sleeper):
        def answer(self, images, exit):
            cold[0], slow = max(cold[0] - 1, 0), cold[0] > 0
            time.sleep(0.006 if slow else 0.003)
            return torch.zeros(len(images), 4)

    settings = DeadlineSettings(uniform=60, others=0)
    session = serve_deadlines(Model(0.001), Reference(0.001), IMAGES, settings)
    assert session.samples["horizon"] >= 0.006, "and not the 3 ms of answers in a row,"
    drift = np.median(session.samples["reference"].astype(float)) / session.samples["horizon"]
    assert 2 / 3 < drift < 3 / 2, "so that a reference among other work has not drifted"


def test_a_session_that_runs_out_of_time_keeps_whole_blocks_and_says_so() -> None:
    session = serve(0.001, DeadlineSettings(uniform=300, others=0, seconds=1e-3))
    assert session.samples["exit"].shape == (3, 20)
    assert session.meta.notes == ["ended after 20 of 300 deadlines, when 0.001 s were over"]


def test_a_model_that_raises_ends_the_session_with_its_error_and_no_thread() -> None:
    threads = threading.active_count()
    with pytest.raises(ValueError, match="no third exit today"):
        serve_deadlines(Raises(0.001, 90), Sleeper(0.001), IMAGES, FEW)
    assert threading.active_count() == threads


def test_a_model_that_never_yields_ends_the_session_with_one_line() -> None:
    class Stuck(Sleeper):
        def stream(self, images):
            while not self.released.is_set():
                time.sleep(0.01)
            yield torch.zeros(1, 4)

    model = Stuck(0.0)
    model.released = threading.Event()
    try:
        with pytest.raises(UserError, match=r"did not reach its next exit within 0\.2 s"):
            serve_deadlines(model, Sleeper(0.001), IMAGES, DeadlineSettings(uniform=4, others=0, limit=0.2))
    finally:
        model.released.set()


@pytest.mark.slow
def test_known_sleeps_give_the_answers_misses_and_lateness_that_they_must() -> None:
    session = serve(SLEEP, DeadlineSettings(uniform=30, others=10))
    raw = session.samples
    # Neighbours who take a core wake every sleeper late, and then the session says so.
    slack = 0.5 * SLEEP if session.meta.reasons else TOLERANCE
    deadline = raw["deadline"].astype(float)
    ready = np.array([(k + 1) * SLEEP for k in range(4)])
    assert np.median(raw["run_through"], axis=0) == pytest.approx(ready, abs=slack)
    near = np.abs(deadline[:, None] - ready).min(axis=1) < slack
    expected = np.searchsorted(ready, deadline, side="right") - 1
    for row, mode in enumerate(MODES):
        wrong = (raw["exit"][row] != expected) & ~near
        assert wrong.mean() <= 0.05, f"{mode}: {deadline[wrong]} gave {raw['exit'][row][wrong]}"
        assert (raw["prediction"][row] == np.maximum(raw["exit"][row], 0)).all(), "exit k answers class k"
        assert np.quantile(raw["late"][row].astype(float), 0.9) <= slack, mode
    under_way = ~near & (expected < 3)
    let_go = raw["release"][1, under_way].astype(float)
    assert let_go.min() > 0, "the exit under way at the deadline runs to its end,"
    assert np.quantile(let_go, 0.9) <= 1.5 * SLEEP, "and no further exit is begun"
    # Class k is right for image k: half of the images are never answered right.
    labels = np.arange(8) % 4
    trace = Trace.from_logits(5 * np.eye(4)[:, None].repeat(8, axis=1), labels)
    block = summarise_deadlines(raw, session.meta, trace, {})
    for mode in MODES:
        row_ = block.row(mode)
        assert row_.misses.value == pytest.approx(row_.promised_misses, abs=0.1)
        assert abs(row_.difference.value) <= 0.1


def _busy(stop: float) -> None:
    while time.time() < stop:
        pass


@pytest.mark.slow
def test_under_a_cpu_hog_lateness_rises_and_the_session_says_so() -> None:
    torch.manual_seed(0)
    model, images = Convolutions(48), torch.randn(4, 1, 96, 96)
    settings = DeadlineSettings(uniform=60, others=0)
    calm = serve_deadlines(model, model, images, settings)
    context = multiprocessing.get_context("fork")
    until = time.time() + 120
    hogs = [context.Process(target=_busy, args=(until,), daemon=True) for _ in range(4 * (psutil.cpu_count() or 1))]
    for hog in hogs:
        hog.start()
    try:
        busy = serve_deadlines(model, model, images, settings)
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()
    late = [session.samples["late"].astype(float) for session in (calm, busy)]
    assert np.quantile(late[1], 0.99) > np.quantile(late[0], 0.99)
    assert late[1].mean() > late[0].mean()
    assert any("other processes kept" in reason for reason in busy.meta.reasons)
