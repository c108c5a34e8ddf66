"""A cascade on lanes announces to the allocator who reads what; no recording takes the announcements for work."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from anytime_bench.harness import operator_times
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.lane_replay import program_of
from anytime_bench.harness.operator_recording import record
from anytime_bench.harness.operator_times import time_operators
from baselines.cascade.fast import add_relu
from baselines.cascade.model import CascadedResNet
from baselines.cascade.parallel import Inline
from baselines.cascade.stepwise import LazySteps

IMAGES = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class OneLane(Inline):
    add_relu = staticmethod(add_relu)


class Announcing(OneLane):
    """Announces, as lanes do, every tensor that is read elsewhere; ``count`` of them so far."""

    count = 0

    def run(self, lane, work, *inputs):
        for tensor in inputs:
            self.take(tensor)
        return work(*inputs)

    def take(self, token: Tensor) -> Tensor:
        token.record_stream(torch.Stream(device="cpu"))
        Announcing.count += 1
        return token


class OnLanes(CascadedResNet):
    lanes: type[OneLane] = OneLane

    def _run(self, images: Tensor) -> LazySteps:
        return LazySteps(self, self.lanes())


@pytest.fixture(autouse=True)
def announced() -> Iterator[None]:
    """``record_stream`` is dispatched and does nothing, since a CPU has none."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("record_stream", lambda tensor, stream: None, "CPU")
    yield
    library._destroy()


@pytest.fixture
def models() -> tuple[OnLanes, OnLanes]:
    """On one lane, and on lanes that announce; the same weights."""
    one, many = (OnLanes(blocks=(1, 1), width=8).eval() for _ in range(2))
    many.load_state_dict(one.state_dict())
    many.lanes = Announcing
    return one, many


def test_the_graph_of_lanes_is_that_of_one_lane(models):
    one, many = (record(model, IMAGES) for model in models)
    assert Announcing.count > 10
    assert many.graph == one.graph
    assert [call.function for call in many.calls] == [call.function for call in one.calls]


def test_neither_a_stopwatch_nor_a_program_notes_them(models, monkeypatch):
    _, many = models
    recording = record(many, IMAGES)
    with evaluating(many):
        assert len(time_operators(many, IMAGES, recording).seconds) == len(recording.graph.operators)
        functions = [step.function for step in program_of(many, IMAGES, recording).steps]
        monkeypatch.setattr(operator_times, "torch", SimpleNamespace(cuda=PaperEvents))
        watch = operator_times._DeviceWatch(recording, torch.device("cuda"))
        with watch:
            list(many.stream(IMAGES))
    assert functions == [call.function for call in recording.calls] == [function for function, _ in watch.calls]


class PaperEvents:
    """What of ``torch.cuda`` the stopwatch of a device uses."""

    synchronize = _sleep = staticmethod(lambda argument: None)
    Event = staticmethod(lambda enable_timing: SimpleNamespace(record=lambda: None))
