"""The cascaded ViT side by side on lanes: on threads, on a GPU, and on a CUDA of paper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.paper_cuda import paper_cuda
from support.small_vit import built, gap, images_for
from support.thread_lanes import ThreadLanes
from torch import Tensor

from baselines.cascade import parallel
from baselines.cascade.parallel import StreamLanes
from baselines.vit.cascade import LazyStream

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("workers", [1, 2, 5])
@torch.inference_mode()
def test_side_by_side_on_threads_the_answers_stay(workers: int) -> None:
    model = built(depth=3)
    x, frames = images_for(model), torch.randn(model.num_exits, 2, 3, 8, 8, dtype=torch.float64)
    with ThreadLanes(workers) as lanes:
        for inputs, expected in (([x] + [None] * model.length, model(x)), (list(frames), list(model.watch(frames)))):
            run = LazyStream(model, lanes)
            for images, answer in zip(inputs, expected, strict=True):
                run.advance(images)
                assert gap(run.logits(), answer) <= 1e-12


@needs_cuda
@pytest.mark.gpu
@torch.no_grad()
def test_side_by_side_on_a_gpu_the_answers_stay() -> None:
    model = built(torch.float32, depth=4).cuda()
    x = images_for(model).cuda()
    expected = model(x)
    assert gap(torch.stack(list(model.stream(x))), expected) <= 1e-4
    assert gap(torch.stack(list(model.executions()["one_lane"](x))), expected) <= 1e-4


@torch.no_grad()
def test_branches_on_streams_never_read_what_may_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA of paper: eagerly, in one graph per answer, and in one graph for all."""
    monkeypatch.setattr(parallel, "_side_streams", {})
    machine = paper_cuda(monkeypatch)
    model = built()
    images = images_for(model)
    expected = model(images)

    def run() -> Iterator[Tensor]:
        inputs = [images] + [None] * model.length
        return model._answers(inputs, LazyStream(model, StreamLanes(model.length + 2, torch.device("cuda:0"))))

    with machine:
        eager = list(run())
        segments, answers = [], None
        for _ in range(model.num_exits):
            with machine.captured():
                answers = answers or run()
                segments.append(next(answers))
        with machine.captured():
            whole = list(run())
    for logits in (eager, segments, whole):
        assert gap(torch.stack(logits), expected) <= 1e-12
    assert machine.unannounced == 0
