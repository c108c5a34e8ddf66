"""The fork and join of the parallel executor: on threads here, on CUDA streams and graphs where there is a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from support.cascades import gap, image, randomised
from torch import Tensor

from baselines.cascade.model import CascadedResNet
from baselines.cascade.parallel import GraphedAnswers, Inline, lanes_for
from baselines.cascade.stepwise import LazySteps

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class ThreadLanes:
    """Lanes on threads, which really run side by side and finish in any order; a log of what was forked and joined."""

    def __init__(self, workers: int) -> None:
        self.pool = ThreadPoolExecutor(workers)
        self.log: list[tuple[str, int]] = []
        self.lane_of: dict[Future[Tensor], int] = {}

    def mark(self) -> None:
        return None

    def launch(self, lane: int, after: None, work: Callable[[Tensor], Tensor], x: Tensor) -> Future[Tensor]:
        self.log.append(("fork", lane))

        @torch.no_grad()
        def late() -> Tensor:
            time.sleep(0.002 * (lane % 3))
            return work(x)

        future = self.pool.submit(late)
        self.lane_of[future] = lane
        return future

    def join(self, pending: Future[Tensor]) -> Tensor:
        self.log.append(("join", self.lane_of[pending]))
        return pending.result()


def run_in_threads(model: CascadedResNet, frames: list[Tensor | None]) -> tuple[Tensor, list[list[tuple[str, int]]]]:
    """Logits of all exits, and per step what was forked and joined."""
    lanes, logits, logs = ThreadLanes(4), [], []
    run = LazySteps(model, lanes)
    for k, frame in enumerate(frames):
        logits.append(model.head(run.advance(frame)[-1], k))
        logs.append(lanes.log[:])
        lanes.log.clear()
    return torch.stack(logits), logs


@pytest.mark.parametrize("options", [{}, {"stem_delay": True}, {"schedule": "serial"}, {"heads": "multi"}])
@torch.no_grad()
def test_residuals_in_lanes_give_the_same_answers(options: dict[str, Any]) -> None:
    model = randomised(blocks=(2, 1, 1), **options)
    x = image(model)
    still, _ = run_in_threads(model, [x] + [None] * (model.num_exits - 1))
    assert gap(still, model(x)) <= 1e-12
    frames = torch.randn(model.num_exits, *x.shape, dtype=x.dtype)
    moving, _ = run_in_threads(model, list(frames))
    assert gap(moving, torch.stack(list(model.watch(frames)))) <= 1e-12


@torch.no_grad()
def test_all_residuals_of_a_step_are_forked_before_the_first_join_and_all_are_joined() -> None:
    model = randomised(blocks=(2, 1, 1))
    _, logs = run_in_threads(model, [image(model), None, None, None, None])
    for k, log in enumerate(logs):
        changed = range(k - 1, 4) if k else ()  # a still image: block l (from 1) settles at step l
        assert log == [("fork", lane) for lane in changed] + [("join", lane) for lane in changed]


def test_there_is_nothing_to_fork_on_a_cpu_or_in_training() -> None:
    assert isinstance(lanes_for(torch.zeros(1), 8, forks=True), Inline)


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="images are on cpu, but a CUDA graph needs a CUDA device"):
        GraphedAnswers(CascadedResNet(width=2).eval(), torch.zeros(1, 3, 32, 32))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("options", [{}, {"stem_delay": True}, {"heads": "multi"}, {"delay": "ews"}])
@torch.no_grad()
def test_streams_agree_with_the_layerwise_executor_on_a_gpu(options: dict[str, Any]) -> None:
    model = randomised(blocks=(2, 2, 1), **options).cuda()
    x = image(model).cuda()
    assert gap(torch.stack(list(model.stream(x))), model(x)) <= 1e-12
    single, y = model.float(), x.float()
    assert gap(torch.stack(list(single.stream(y))), single(y)) <= 1e-5


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("schedule", ["parallel", "serial"])
@torch.no_grad()
def test_a_graph_replays_new_images_and_new_weights(schedule: str) -> None:
    model = randomised(blocks=(2, 2, 1), schedule=schedule).cuda()
    x, y = image(model).cuda(), image(model).cuda()
    graphed, last = GraphedAnswers(model, x), GraphedAnswers(model, x, exits=6, alone=True)
    for images in (y, x, y):
        assert gap(graphed(images), model(images)) <= 1e-12
        assert gap(last(images)[0], model(images)[5]) <= 1e-12
    model.heads[0].weight.mul_(2)
    assert gap(graphed(x), model(x)) <= 1e-12


@pytest.mark.gpu
@needs_gpu
def test_training_on_a_gpu_gives_the_cpus_gradients() -> None:
    model = randomised(blocks=(1, 1)).train()
    x = image(model)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model = model.cuda()
    ours = torch.autograd.grad(model(x.cuda()).square().sum(), list(model.parameters()))
    assert all(gap(a.cpu(), b) <= 1e-9 for a, b in zip(ours, expected, strict=True))
