"""Shallow-Deep Networks: where classifiers stand, what each regime trains and what it must leave alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.model import CascadedResNet
from baselines.residual import adopt_serial, suite_resnet
from baselines.sdn.methods import SDN, RegimeOptions, SDNICOnly, SDNOptions
from baselines.sdn.model import (
    ShallowDeepNet,
    exit_losses,
    place_classifiers,
    sdn_loss,
    tau,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(0, 50))
def test_placement_is_ordered_distinct_and_nearest(blocks: list[int], head: int) -> None:
    placed = place_classifiers([*blocks, head])
    shares = np.cumsum(blocks) / (sum(blocks) + head)
    assert list(placed) == sorted(set(placed))
    assert list(placed.values()) == sorted(set(placed.values()))
    assert all(block < len(blocks) - 1 for block in placed)
    for block, position in placed.items():
        assert abs(shares[block] - position) <= np.abs(shares[:-1] - position).min() + 1e-12


CARD = TaskCard("digits", "t", tuple("abcdefghij"), (1, 16, 16), {}, (0.0,), (1.0,))
SMALL = {"blocks": [1, 1, 2], "width": 4}


def serial_weights() -> dict[str, Tensor]:
    """A small CascadedResNet with statistics that differ from row to row."""
    serial = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule="serial")
    serial.train()(torch.randn(8, 1, 16, 16))
    return serial.eval().state_dict()


@pytest.mark.parametrize("schedule", ["serial", "parallel"])
def test_the_suites_backbone_is_the_plain_pass_of_the_cascade(schedule: str) -> None:
    cascade = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule=schedule)
    cascade.train()(torch.randn(8, 1, 16, 16))
    backbone = suite_resnet((1, 1, 2), 4, 10, 1).eval()
    adopt_serial(backbone, cascade.eval().state_dict())
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(backbone(images), cascade(images)[-1], atol=1e-6)


def test_ic_only_training_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    method = SDNICOnly(SDNOptions(**SMALL))
    assert method.starts_from == "serial_ce"
    model = method.build(CARD)
    assert isinstance(model, ShallowDeepNet)
    method.adopt(model, serial_weights())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, targets = torch.randn(16, 1, 16, 16), torch.arange(16) % 10
    final = model.eval()(images)[-1].detach().clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(1, 21):
        model.train()
        loss = method.training_loss(model, images, targets, Progress(1, 1, step, 20))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("classifiers.") and "alpha" not in name} | {
        f"classifiers.{k}.alpha" for k, one in enumerate(model.classifiers) if one.window > (1, 1)
    }
    assert losses[-1] < losses[0]
    assert torch.equal(model.eval()(images)[-1], final)


def test_sdn_training_weights_grow_with_the_epochs() -> None:
    torch.manual_seed(0)
    method = SDN(SDNOptions(**SMALL))
    model = method.build(CARD)
    images, targets = torch.randn(4, 1, 16, 16), torch.arange(4)
    losses = F.cross_entropy(model(images).flatten(0, 1), targets.repeat(model.num_exits), reduction="none")
    exits = losses.view(model.num_exits, 4).mean(1)
    assert isinstance(model, ShallowDeepNet)
    for epoch in (1, 5, 10):
        weights = torch.tensor([min(c, 0.01 + epoch * c / 10) for c in model.nominal])
        expected = (weights * exits[:-1]).sum() + exits[-1]
        assert torch.allclose(method.training_loss(model, images, targets, Progress(epoch, 10, 1, 1)), expected)


def trained_backbone(regime: str) -> tuple[SDN, ShallowDeepNet, dict[str, Tensor]]:
    """A row of this regime that has taken over a small serial network, and that network's weights."""
    torch.manual_seed(0)
    weights = serial_weights()
    method = SDN(RegimeOptions(**SMALL, regime=regime))
    model = method.build(CARD)
    assert isinstance(model, ShallowDeepNet)
    method.adopt(model, weights)
    return method, model, weights


@pytest.mark.parametrize("regime", ["disjoint", "mixed"])
def test_both_two_phase_regimes_begin_with_the_serial_network(regime: str) -> None:
    method, model, weights = trained_backbone(regime)
    assert method.starts_from == "serial_ce"
    serial = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule="serial")
    serial.load_state_dict(weights)
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(model.eval()(images)[-1], serial.eval()(images)[-1], atol=1e-6)
    assert SDN(RegimeOptions(**SMALL)).starts_from is None


def test_the_regimes_train_what_they_say() -> None:
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8)
    moving = {}
    for regime in ("joint", "disjoint", "mixed"):
        method, model, _ = trained_backbone(regime)
        method.training_loss(model.train(), images, targets, Progress(1, 10, 1, 1)).backward()
        moving[regime] = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    everything = {name for name, p in trained_backbone("joint")[1].named_parameters() if p.requires_grad}
    assert moving["joint"] == moving["mixed"] == everything
    assert moving["disjoint"] == {name for name in everything if name.startswith("classifiers.")}


def test_mixed_training_has_the_loss_of_joint_training() -> None:
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8)
    losses = []
    for regime in ("joint", "mixed"):
        method, model, _ = trained_backbone(regime)
        losses.append(method.training_loss(model.train(), images, targets, Progress(3, 10, 1, 1)))
    assert torch.equal(*losses)


def test_ic_only_is_the_disjoint_regime_under_its_published_options() -> None:
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8)
    disjoint, model, weights = trained_backbone("disjoint")
    torch.manual_seed(0)
    serial_weights()
    ic_only = SDNICOnly(SDNOptions(**SMALL))
    other = ic_only.build(CARD)
    ic_only.adopt(other, weights)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    losses = [
        method.training_loss(net.train(), images, targets, Progress(1, 1, 1, 1))
        for method, net in ((disjoint, model), (ic_only, other))
    ]
    assert torch.equal(*losses)
    names = {field.name for field in dataclasses.fields(SDNICOnly.Config)}
    assert names == {"backbone", "blocks", "width", "stem_pool", "depth", "ic_input", "weights"}


@pytest.mark.parametrize("ic_input", ["pre", "post"])
def test_a_kept_sample_goes_on_alone(ic_input: str) -> None:
    model = ShallowDeepNet(suite_resnet((2, 2), 4, 10, 1), 10, (1, 16, 16), ic_input).eval()
    images = torch.randn(5, 1, 16, 16)
    keep = torch.tensor([True, False, True, True, False])
    with torch.no_grad():
        full, stream = model(images), model.stream(images)
        next(stream)
        second = stream.send(keep)
        third = stream.send(torch.tensor([False, True, True]))
    assert torch.allclose(second, full[1][keep], atol=1e-5)
    assert torch.allclose(third, full[2][[2, 3]], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SDNOptions(backbone="vgg"), "backbone is 'vgg'; expected suite, cifar or timm"),
        (SDNOptions(backbone="cifar", depth=55), "depth is 55; a CIFAR ResNet has 6n"),
        (SDNOptions(ic_input="mid"), "ic_input is 'mid'"),
        (RegimeOptions(regime="frozen"), "regime is 'frozen'; expected one of joint, disjoint, mixed"),
        (RegimeOptions(regime="mixed", backbone="cifar"), "the mixed regime begins with a trained network"),
        (SDNOptions(width=0), "width holds 0"),
    ],
)
def test_bad_options_are_named(options: SDNOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SDN(options).build(CARD)


def test_ic_only_needs_a_trained_network() -> None:
    with pytest.raises(ValueError, match="backbone 'cifar' has none: give weights=FILE"):
        SDNICOnly(SDNOptions(backbone="cifar"))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="use the same blocks"):
        adopt_serial(suite_resnet((1, 1, 1), 4, 10, 1), serial_weights())
    with pytest.raises(ValueError, match="use the same blocks and width"):
        adopt_serial(suite_resnet((1, 1, 2), 8, 10, 1), serial_weights())


def test_images_of_another_size_are_refused() -> None:
    model = ShallowDeepNet(suite_resnet((1, 1), 4, 10, 1), 10, (1, 16, 16))
    with pytest.raises(ValueError, match=r"were built for \(B, 1, 16, 16\)"):
        next(model.stream(torch.zeros(1, 1, 8, 8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_loss_weighs_by_numbers_that_no_copy_brings_from_the_host(dtype):
    logits = torch.randn(7, 4, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets, weights = torch.tensor([1, 2, 3, 4]), tau(13, 100)
    losses = exit_losses(logits, targets)
    assert torch.equal(
        sdn_loss(logits, targets, weights), (losses[:-1] * losses.new_tensor(list(weights))).sum() + losses[-1]
    )
