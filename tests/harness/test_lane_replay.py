"""Real lanes: threads that run a schedule give the very answers of the model, so no dependency is missing."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from anytime_bench import AnytimeModel, load_method, load_task
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.lane_replay import RealLanes, _Run, program_of
from anytime_bench.harness.operator_graph import SpanError
from anytime_bench.harness.operator_recording import record
from anytime_bench.harness.schedule import best_schedule, greedy

DIGITS = {
    "serial_ce": {"width": 8, "stem_pool": False},
    "cascaded_td": {"width": 8, "stem_pool": False, "delay": "ews"},
    "cascaded_td_multihead": {"width": 8, "stem_pool": False},
    "sdn": {"width": 8, "stem_pool": False},
    "msdnet": {"blocks": 3, "base": 1, "step": 1, "channels": 8, "growth": 4, "scale_factors": [1, 2],
               "bottleneck_factors": [1, 2], "classifier_channels": 16},
}  # fmt: skip


@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_lanes_give_the_answers_of_the_stream(name: str, lanes: int) -> None:
    """Costs at random, so that every run tries another order of the operators."""
    card = load_task("digits").card
    model = load_method(name, **DIGITS[name]).build(card)
    images = torch.randn(2, *card.shape)
    recording = record(model, images)
    with evaluating(model):
        program = program_of(model, images, recording)
        expected = list(model.stream(images))
        with RealLanes(lanes) as real:
            for seed in range(3):
                costs = np.random.default_rng(seed).uniform(0, 1, len(recording.graph))
                _, answers = real.run(program, best_schedule(recording.graph, costs, lanes))
                assert all(torch.equal(one, other) for one, other in zip(answers, expected, strict=True))


class Writes(AnytimeModel):
    """Views, writes in place, a shared buffer, a number that Python reads, and an answer that is a constant."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("guess", torch.full((1, 4), 0.25))

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        yield self.guess
        buffer = torch.empty(1, 4)
        y = images.flatten(1).exp()
        left, right = y.chunk(2, dim=1)
        torch.add(left, right, out=buffer)
        left.mul_(2)
        first = buffer.neg()
        torch.sub(left, right, out=buffer)
        yield first + buffer
        yield (y.sum(1, keepdim=True) if buffer.sum().item() > 0 else y).expand(1, -1) + buffer.sum()


def test_writes_in_place_are_kept_in_order() -> None:
    model, images = Writes(), torch.rand(1, 2, 2, 2)
    recording = record(model, images)
    with evaluating(model):
        program, expected = program_of(model, images, recording), list(model.stream(images))
        with RealLanes(3) as real:
            for seed in range(20):
                costs = np.random.default_rng(seed).uniform(0, 1, (1, len(recording.graph)))
                _, answers = real.run(program, greedy(recording.graph, costs, 3))
                assert all(torch.equal(one, other) for one, other in zip(answers, expected, strict=True))


def test_a_program_keeps_no_tensor_of_the_pass_it_was_noted_in() -> None:
    class Watched(Writes):
        made: list[weakref.ref] = []  # noqa: RUF012

        def stream(self, images: Tensor) -> Iterator[Tensor]:
            for logits in super().stream(images):
                self.made.append(weakref.ref(logits))
                yield logits

    model, images = Watched(), torch.rand(1, 2, 2, 2)
    recording = record(model, images)
    model.made.clear()
    with evaluating(model):
        program_of(model, images, recording)
    assert [reference() is not None for reference in model.made] == [True, False, False]  # the constant alone


def test_a_lane_that_fails_stops_the_others() -> None:
    model, images = Writes(), torch.rand(1, 2, 2, 2)
    recording = record(model, images)
    with evaluating(model):
        program = program_of(model, images, recording)
        (fails,) = (place for place, step in enumerate(program.steps) if step.function.name() == "aten::exp")

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("lost a lane")

        object.__setattr__(program.steps[fails], "function", broken)
        schedule = best_schedule(recording.graph, [1.0] * len(recording.graph), 2)
        with RealLanes(2) as real, pytest.raises(SpanError, match="a lane stopped: RuntimeError: lost a lane"):
            real.run(program, schedule)
        with RealLanes(1) as real, pytest.raises(SpanError, match="the schedule uses 2 lanes, expected at most 1"):
            real.run(program, schedule)


def test_ctrl_c_leaves_no_lane_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the calling thread alone, which others wait for."""
    model, images = Writes(), torch.rand(1, 2, 2, 2)
    recording = record(model, images)

    def interrupted(run: _Run, call: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        call_(run, call)

    call_ = _Run._call
    monkeypatch.setattr(_Run, "_call", interrupted)
    with evaluating(model):
        program = program_of(model, images, recording)
        schedule = greedy(recording.graph, np.ones((1, len(recording.graph))), 2)
        with RealLanes(2) as real, pytest.raises(KeyboardInterrupt):
            real.run(program, schedule)
    assert schedule.lanes_used == 2


def test_an_interrupt_at_the_start_ends_the_lanes_that_wait_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = Writes(), torch.rand(1, 2, 2, 2)
    recording = record(model, images)
    wait = threading.Barrier.wait

    def interrupted(barrier: threading.Barrier) -> int:
        if threading.current_thread() is not threading.main_thread():
            return wait(barrier)
        while not barrier.n_waiting:
            time.sleep(0.001)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Barrier, "wait", interrupted)
    with evaluating(model):
        program = program_of(model, images, recording)
        schedule = greedy(recording.graph, np.ones((1, len(recording.graph))), 2)
        with RealLanes(2) as real, pytest.raises(KeyboardInterrupt):
            real.run(program, schedule)


def test_other_calls_than_recorded_are_refused() -> None:
    model, images = Writes(), torch.rand(1, 2, 2, 2)
    recording = record(model, images)
    other = torch.tensor([0.0, 5.0]).repeat_interleave(4).view(1, 2, 2, 2)  # the number that Python reads is negative
    with evaluating(model), pytest.raises(SpanError, match="other calls than in its recording"):
        program_of(model, other, recording)
