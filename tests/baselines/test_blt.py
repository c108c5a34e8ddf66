"""The recurrent network against its equations written out, its feed-forward net, and costs counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.harness.cost import count_costs
from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.blt.methods import BLT, BLTOptions
from baselines.blt.model import RecurrentNet

CARD = TaskCard("t", "t", tuple("abcde"), (2, 12, 12), {}, (0.0,), (1.0,))
KINDS = [(True, True), (True, False), (False, True), (False, False)]


def network(lateral: bool = True, top_down: bool = True, steps: int = 4, stem_pool: bool = False) -> RecurrentNet:
    """Three areas of 3, 6 and 12 channels in float64, whose norms have seen other data at every step."""
    torch.manual_seed(0)
    model = RecurrentNet(5, 2, 3, 3, steps, lateral, top_down, stem_pool).double()
    model.train()(torch.randn(9, 2, 12, 12, dtype=torch.float64))
    return model.eval()


def images(batch: int = 3, size: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(batch, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out(model: RecurrentNet, frames: list[Tensor]) -> list[Tensor]:
    """The equations of the module's docstring, one image per step, nothing shared or left out."""
    areas, before, answers = list(model.areas), None, []
    for step, frame in enumerate(frames):
        below, now = model.stem(frame), []
        for n, area in enumerate(areas):
            x = F.conv2d(below, area.bottom_up.weight, padding=1)
            if before is not None and area.lateral is not None:
                x = x + F.conv2d(before[n], area.lateral.weight, padding=1)
            if before is not None and area.top_down is not None:
                # A transposed convolution by its definition: zeros between the pixels, then the flipped kernel.
                above = before[n + 1]
                spread = above.new_zeros(*above.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
                spread[:, :, : 2 * above.shape[2] : 2, : 2 * above.shape[3] : 2] = above
                kernel = area.top_down.weight.flip(2, 3).transpose(0, 1)
                x = x + F.conv2d(spread, kernel, padding=1)[:, :, : x.shape[2], : x.shape[3]]
            norm = area.norm
            scale = norm.weight / (norm.running_var[step] + norm.eps).sqrt()
            x = (x - norm.running_mean[step].view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
            now.append(x.clamp(min=0))
            below = F.max_pool2d(now[-1], 2, ceil_mode=True)
        before = now
        answers.append(model.readout.linear(now[-1].mean((2, 3))))
    return answers


@torch.no_grad()
@pytest.mark.parametrize("size", [7, 12, 13])
@pytest.mark.parametrize(("lateral", "top_down"), KINDS)
def test_the_answers_are_the_written_out_equations(lateral, top_down, size):
    model, x = network(lateral, top_down), images(size=size)
    expected = torch.stack(written_out(model, [x] * 4))
    assert torch.allclose(model(x), expected, atol=1e-12)
    assert torch.allclose(torch.stack([model.answer(x, k) for k in range(4)]), expected, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("top_down", [True, False])
def test_watch_feeds_each_step_the_frame_of_its_tick(top_down):
    model = network(top_down=top_down)
    frames = torch.stack([images(seed=j) for j in range(9)])
    every = 2 if top_down else 1
    expected = written_out(model, [frames[every * step] for step in range(4)])
    assert torch.allclose(torch.stack(list(model.watch(frames))), torch.stack(expected), atol=1e-12)
    still = images().expand(9, -1, -1, -1, -1)
    assert torch.equal(torch.stack(list(model.watch(still))), model(images()))


@torch.no_grad()
def test_watch_remembers_earlier_frames():
    model = network()
    one, other = (images(seed=j) for j in (1, 2))
    frames = torch.stack([one, one, *[other] * 5])
    assert not torch.allclose(list(model.watch(frames))[1], model(other)[1], atol=1e-3)
    with pytest.raises(ValueError, match=r"frames have shape \(6, 3, 2, 12, 12\), expected \(7 or more"):
        next(model.watch(frames[:6]))


def feed_forward(model: RecurrentNet) -> nn.Sequential:
    """The plain net of the same bottom-up weights, in torch.nn alone, with fresh batch norms."""
    layers: list[nn.Module] = [model.stem]
    for n, area in enumerate(model.areas):
        convolution = area.bottom_up
        norm = nn.BatchNorm2d(convolution.out_channels).double()
        layers += [nn.MaxPool2d(2, ceil_mode=True)] * (n > 0) + [convolution, norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.readout.linear)


@pytest.mark.parametrize("training", [True, False])
def test_without_recurrent_weights_every_answer_is_the_feed_forward_nets(training):
    torch.manual_seed(0)
    model = RecurrentNet(5, 2, 3, 3, 4, stem_pool=False).double()
    with torch.no_grad():
        for area in model.areas:
            area.lateral.weight.zero_()
            if area.top_down is not None:
                area.top_down.weight.zero_()
    plain = feed_forward(model)
    model.train(training)
    plain.train(training)
    answers, expected = model(images()), plain(images())
    for answer in answers:
        assert torch.allclose(answer, expected, atol=1e-12)


@torch.no_grad()
def test_switched_off_connections_are_connections_of_weight_zero():
    without, full = network(lateral=False, top_down=False), network()
    for area in full.areas:
        area.lateral.weight.zero_()
        if area.top_down is not None:
            area.top_down.weight.zero_()
    full.load_state_dict(without.state_dict(), strict=False)
    assert torch.allclose(full(images()), without(images()), atol=1e-12)


@pytest.mark.parametrize(("lateral", "top_down"), KINDS)
def test_ticks_are_the_longest_chain_of_layers(lateral, top_down):
    areas, steps = 3, 4
    done = {(0, step): 1 for step in range(steps)}  # the image is still: the stem runs once
    for step in range(steps):
        for n in range(1, areas + 1):
            waits = [done[n - 1, step]]
            # A layer works on one step at a time, with lateral connections or without.
            waits += [done[n, step - 1]] if step else []
            waits += [done[n + 1, step - 1]] if step and top_down and n < areas else []
            done[n, step] = max(waits) + 1
    assert network(lateral, top_down).ticks == tuple(done[areas, step] for step in range(steps))


def test_macs_per_exit_counted_by_hand():
    # 8x8 grey images, 4 channels in the stem: areas of 4, 8 and 16 channels on maps of 8x8, 4x4 and 2x2.
    card = TaskCard("t", "t", tuple("abcdefghij"), (1, 8, 8), {}, (0.0,), (1.0,))
    model = BLT(BLTOptions(width=4, areas=3, steps=3, stem_pool=False)).build(card)
    stem = 9 * 1 * 4 * 64
    bottom_up = [9 * 4 * 4 * 64, 9 * 4 * 8 * 16, 9 * 8 * 16 * 4]
    lateral = [9 * 4 * 4 * 64, 9 * 8 * 8 * 16, 9 * 16 * 16 * 4]
    top_down = [9 * 8 * 4 * 16, 9 * 16 * 8 * 4]  # every pixel above meets the whole kernel
    readout = 16 * 10
    first = stem + sum(bottom_up) + readout
    later = sum(bottom_up[1:]) + sum(lateral) + sum(top_down) + readout
    counted = count_costs(model, card.shape)
    assert counted.macs == (first, first + later, first + 2 * later)
    assert counted.macs_prefix == tuple(macs - k * readout for k, macs in enumerate(counted.macs))
    assert counted.ticks == (4, 6, 8)
    convolutions = 9 * (1 * 4 + (4 * 4 + 4 * 8 + 8 * 16) + (16 + 64 + 256) + (8 * 4 + 16 * 8))
    assert counted.parameters == convolutions + 2 * (4 + 4 + 8 + 16) + 16 * 10 + 10


def test_weights_are_those_of_all_steps():
    short, long = network(steps=2), network(steps=7)
    assert sum(p.numel() for p in short.parameters()) == sum(p.numel() for p in long.parameters())


def test_the_loss_is_the_mean_over_the_steps():
    method = BLT(BLTOptions(width=3, areas=2, steps=3))
    torch.manual_seed(0)
    model, targets = method.build(CARD).eval(), torch.arange(3)
    x = images().float()
    expected = torch.stack([F.cross_entropy(logits, targets) for logits in model(x)]).mean()
    assert torch.allclose(method.training_loss(model, x, targets, Progress(1, 1, 1, 1)), expected)


@torch.no_grad()
def test_a_kept_sample_goes_on_alone():
    model, x = network(), images(5)
    keep = torch.tensor([True, False, True, True, False])
    full, stream = model(x), model.stream(x)
    next(stream)
    assert torch.allclose(stream.send(keep), full[1][keep], atol=1e-12)
    assert torch.allclose(stream.send(torch.tensor([False, True, True])), full[2][[2, 3]], atol=1e-12)
    assert torch.allclose(next(stream), full[3][[2, 3]], atol=1e-12)


@pytest.mark.parametrize("name", ["width", "areas", "steps"])
def test_bad_sizes_are_named(name):
    with pytest.raises(ValueError, match=f"{name} is 0, but every size must be at least 1"):
        BLT(BLTOptions(**{name: 0})).build(CARD)


def test_an_exit_that_does_not_exist_is_an_index_error():
    with pytest.raises(IndexError, match="exit 4 was asked for, but there are 4"):
        network().answer(images(), 4)
