"""Weights that move: new memory, the same values, and what must not move stays."""

import numpy as np
import torch
from torch import nn

from anytime_bench.harness.placement import moved
from anytime_bench.harness.timing import TimingSettings, time_exits
from baselines.cascade.model import CascadedResNet

IMAGES = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def tensors(model):
    return [*model.parameters(), *model.buffers()]


def test_all_weights_move_and_the_answers_stay():
    model = CascadedResNet(width=4, blocks=(1, 1)).eval()
    before, answers = [(id(each), each.data_ptr(), each.stride()) for each in tensors(model)], model(IMAGES)
    held = moved([model], np.random.default_rng(0))
    after = [(id(each), each.data_ptr(), each.stride()) for each in tensors(model)]
    assert [each[::2] for each in before] == [each[::2] for each in after]
    assert all(old[1] != new[1] for old, new in zip(before, after, strict=True))
    assert len(held) == len(before)
    assert torch.equal(model(IMAGES), answers)


def test_a_layout_of_strides_stays():
    conv = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
    before = conv.weight.stride(), conv.weight.data_ptr()
    moved([conv], np.random.default_rng(0))
    assert conv.weight.stride() == before[0]
    assert conv.weight.data_ptr() != before[1]


def test_what_shares_memory_goes_on_to_share_it():
    tied = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    tied[1].weight = tied[0].weight
    moved([tied], np.random.default_rng(0))
    assert tied[1].weight is tied[0].weight
    views = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    flat = torch.randn(32)
    for index, layer in enumerate(views):
        layer.weight.data = flat[16 * index : 16 * index + 16].view(4, 4)
    before = [layer.weight.data_ptr() for layer in views]
    moved([views], np.random.default_rng(0))
    assert [layer.weight.data_ptr() for layer in views] == before
    expanded = nn.Module()
    expanded.register_buffer("same", torch.ones(1).expand(7))
    moved([expanded], np.random.default_rng(0))
    assert expanded.same.stride() == (0,)


def test_what_has_no_memory_here_stays():
    odd = nn.Module()
    odd.register_buffer("meta", torch.empty(3, device="meta"))
    odd.register_buffer("sparse", torch.eye(3).to_sparse())
    odd.register_buffer("empty", torch.empty(0))
    assert moved([odd], np.random.default_rng(0)) == []


def test_weights_that_moved_in_inference_mode_still_learn():
    layer = nn.Linear(3, 3)
    with torch.inference_mode():
        moved([layer], np.random.default_rng(0))
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None


def test_both_networks_move_while_they_are_timed():
    model, reference = (CascadedResNet(width=4, blocks=(1, 1)).eval() for _ in range(2))
    places, whole = set(), model.stream

    def watched(images):
        places.add(next(model.parameters()).data_ptr())
        return whole(images)

    model.stream = watched
    timing = time_exits(model, reference, IMAGES, "cpu", TimingSettings(budget_seconds=0.5, threads=1))
    assert len(places) > 5
    assert timing.meta.answers_agree == 1.0
