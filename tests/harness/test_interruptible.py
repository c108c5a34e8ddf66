"""A model with known sleeps per exit, interrupted: what is delivered, what is missed, what is let go."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import torch
from support.sleeping_models import Convolutions, Raises, Sleeper
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.harness.deadline_summary import MODES, Mode
from anytime_bench.harness.interruptible import Interruptible

#: Seconds each exit takes.
SLEEP = 0.03
IMAGES = torch.zeros(1, 1, 4, 4)


@pytest.fixture(params=MODES)
def serve(request: pytest.FixtureRequest) -> Iterator[Interruptible]:
    with Interruptible(Sleeper(SLEEP), IMAGES, mode=request.param, rounds=2) as served:
        yield served


@pytest.mark.parametrize(("sleeps", "exit_"), [(0.5, None), (1.6, 0), (2.6, 1), (9.0, 3)])
def test_the_newest_finished_answer_is_delivered(serve: Interruptible, sleeps: float, exit_: int | None) -> None:
    # A busy machine makes an answer late, never early: the best of a few is what the sleeps allow.
    answers = [serve.answer(IMAGES, deadline=sleeps * SLEEP) for _ in range(3)]
    answer = max(answers, key=lambda each: -1 if each.exit is None else each.exit)
    assert answer.exit == exit_
    if exit_ is None:
        assert answer.logits is None
        assert answer.finished_at is None
    else:
        assert answer.logits is not None
        assert int(answer.logits[0].argmax()) == exit_
        assert answer.finished_at is not None
        assert (exit_ + 1) * SLEEP - 1e-3 <= answer.finished_at <= sleeps * SLEEP


def test_what_still_runs_is_let_go_at_its_next_exit() -> None:
    with Interruptible(Sleeper(SLEEP), IMAGES, mode="run_ahead", rounds=1) as serve:
        begun = time.perf_counter()
        answer = serve.answer(IMAGES, deadline=1.5 * SLEEP)
        returned = time.perf_counter() - begun
        assert answer.exit == 0
        assert returned < 2 * SLEEP, "the caller has its answer at the deadline"
        assert 0.2 * SLEEP < serve.release_time() < 1.5 * SLEEP, "the model is free after the exit it was in"


@pytest.mark.parametrize("deadline", [math.inf, 1e300, 10**400])
def test_a_deadline_beyond_all_clocks_gives_the_last_answer(serve: Interruptible, deadline: float) -> None:
    answer = serve.answer(IMAGES, deadline)
    assert (answer.exit, answer.late_by) == (3, 0.0)


@pytest.mark.parametrize("deadline", [0, -1.0])
def test_no_time_gives_no_answer(serve: Interruptible, deadline: float) -> None:
    answer = serve.answer(IMAGES, deadline)
    assert (answer.exit, answer.logits, answer.late_by) == (None, None, 0.0)


@pytest.mark.parametrize("deadline", [float("nan"), "soon", None])
def test_a_deadline_that_is_no_number_is_one_line(serve: Interruptible, deadline: object) -> None:
    with pytest.raises(UserError, match="expected seconds as a number"):
        serve.answer(IMAGES, deadline)  # type: ignore[arg-type]


def test_an_unknown_mode_names_those_there_are() -> None:
    with pytest.raises(UserError, match="ask, run_ahead, known"):
        Interruptible(Sleeper(SLEEP), IMAGES, mode="soon")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["ask", "run_ahead"])
def test_a_model_that_raises_ends_the_call_with_its_own_error(mode: Mode) -> None:
    with (
        Interruptible(Raises(0.001, 9), IMAGES, mode=mode, rounds=6) as serve,
        pytest.raises(ValueError, match="no third"),
    ):
        serve.answer(IMAGES, deadline=5.0)


def test_a_model_that_raises_when_an_exit_is_asked_for_alone_ends_the_measuring_with_its_own_error() -> None:
    threads = threading.active_count()
    with pytest.raises(ValueError, match="no third"):
        Interruptible(Raises(0.001, 9), IMAGES, mode="known", rounds=6)
    gc.collect()
    assert threading.active_count() == threads


class Stuck(Sleeper):
    def stream(self, images: Tensor) -> Iterator[Tensor]:
        while not self.released.is_set():
            time.sleep(0.01)
        yield torch.zeros(1, 4)


def test_a_model_that_never_yields_is_given_up_with_one_line() -> None:
    model = Stuck(SLEEP)
    model.released = threading.Event()
    try:
        with pytest.raises(UserError, match=r"did not reach its next exit within 0\.2 s"):
            Interruptible(model, IMAGES, limit=0.2)
    finally:
        model.released.set()


def test_a_model_that_gets_stuck_later_is_given_up_too() -> None:
    model = Stuck(SLEEP)
    model.released = threading.Event()
    model.released.set()
    model.num_exits = 1
    try:
        with Interruptible(model, IMAGES, mode="run_ahead", rounds=1, limit=0.2) as serve:
            model.released.clear()
            with pytest.raises(UserError, match=r"did not reach its next exit within 0\.2 s"):
                serve.answer(IMAGES, deadline=math.inf)
    finally:
        model.released.set()


@pytest.mark.slow
# ask begins exit 1 after 3 sleeps, since the fastest took 1, and has it after 6; known asks for exit 3, which takes 12.
@pytest.mark.parametrize(("mode", "sleeps", "late"), [("ask", 5, 1), ("known", 10, 2), ("run_ahead", 4.5, 0)])
def test_an_exit_that_takes_longer_than_ever_before_is_late_by_what_its_caller_waits(
    mode: Mode, sleeps: float, late: float
) -> None:
    """Measured at ``SLEEP`` per exit, served at three times that; a busy machine adds to it, and is counted too."""
    model, waited = Sleeper(SLEEP), []
    for _ in range(5):
        with Interruptible(model, IMAGES, mode=mode, rounds=2) as serve:
            model.sleep = 3 * SLEEP
            begun = time.perf_counter()
            answer = serve.answer(IMAGES, sleeps * SLEEP)
            waited.append((answer, time.perf_counter() - begun - sleeps * SLEEP))
            model.sleep = SLEEP
    assert min(abs(answer.late_by - max(beyond, 0.0)) for answer, beyond in waited) <= 1e-3, "by the caller's own clock"
    calmest = min((answer for answer, _ in waited), key=lambda answer: abs(answer.late_by - late * SLEEP))
    assert calmest.exit == (None if mode == "known" else 0)
    assert late * SLEEP - 1e-3 <= calmest.late_by <= (late + 0.5) * SLEEP


def test_known_trusts_the_latest_times() -> None:
    model = Sleeper(0.001)
    with Interruptible(model, IMAGES, mode="known", rounds=1) as serve:
        assert serve.answer(IMAGES, deadline=10.0).exit == 3
        model.sleep = 0.05
        serve.remeasure()
        assert serve.answer(IMAGES, deadline=0.12).exit in (0, 1), "four sleeps no longer fit"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answers", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_interrupted_answers_leak_nothing_and_change_nothing(mode: Mode, answers: int) -> None:
    torch.manual_seed(0)
    model, images = Convolutions(), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        expected = list(model.eval().stream(images))[-1]
    threads = threading.active_count()
    with Interruptible(model, images, mode=mode, rounds=5) as serve:
        for number in range(answers):
            if number == 100:
                gc.collect()
                memory = psutil.Process().memory_info().rss
            serve.answer(images, deadline=(number % 7) * 1e-4)
        gc.collect()
        assert psutil.Process().memory_info().rss - memory < 20e6
        full = serve.answer(images, deadline=30.0)
        assert full.exit == 2
        assert full.logits is not None
        assert torch.equal(full.logits, expected)
    assert threading.active_count() == threads


def test_an_object_that_is_dropped_ends_its_thread() -> None:
    threads = threading.active_count()
    serve = Interruptible(Sleeper(0.001), IMAGES, rounds=1)
    assert threading.active_count() == threads + 1
    del serve
    gc.collect()
    assert threading.active_count() == threads


def test_a_closed_one_says_so() -> None:
    serve = Interruptible(Sleeper(0.001), IMAGES, mode="run_ahead", rounds=1)
    serve.close()
    with pytest.raises(UserError, match="is closed"):
        serve.answer(IMAGES, 1.0)
