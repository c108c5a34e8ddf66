"""Gradient equilibrium weighs all exits alike, on a chain and on a residual network."""

from __future__ import annotations

import pytest
import torch
from golden.compare import eval_images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.gradient_equilibrium import equilibrate
from baselines.residual import cifar_resnet
from baselines.sdn.model import ShallowDeepNet

double = pytest.mark.usefixtures("float64")


@double
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6).flatmap(lambda exits: st.tuples(st.just(exits), st.integers(0, exits - 1))))
def test_gradient_equilibrium_weighs_every_exit_alike(exits_and_k: tuple[int, int]) -> None:
    # A chain of E blocks x -> x, each read by an exit: block k learns the mean of the exits above it.
    exits, k = exits_and_k
    gradients = torch.arange(1.0, exits + 1)
    blocks, onward = [], torch.ones((), requires_grad=True)
    total = torch.zeros(())
    for exit_index in range(exits):
        block = onward * 1
        block.retain_grad()
        blocks.append(block)
        classified, onward = equilibrate(block, block, exit_index, exits)
        total = total + gradients[exit_index] * classified
    total.backward()
    assert torch.allclose(blocks[k].grad, gradients[k:].mean())


@double
@pytest.mark.parametrize("ic_input", ["pre", "post"])
def test_gradient_equilibrium_on_a_residual_network(ic_input: str) -> None:
    # d(block k) = (d(exit k) + (E - k - 1) d(block k+1)) / (E - k), read off a network without it.
    def build(equilibrium: bool) -> ShallowDeepNet:
        torch.manual_seed(0)
        return ShallowDeepNet(cifar_resnet(20), ic_input=ic_input, gradient_equilibrium=equilibrium).eval()

    images, plain, balanced = eval_images(), build(False), build(True)
    assert torch.equal(plain(images), balanced(images))
    exits = plain.num_exits
    weight = plain.backbone.stem.conv.weight

    def stem_gradient(model: ShallowDeepNet, weights: list[float]) -> Tensor:
        logits = model(images)
        loss = sum(w * one.square().sum() for w, one in zip(weights, logits, strict=True))
        return torch.autograd.grad(loss, model.backbone.stem.conv.weight)[0]

    # Unrolled to the first block, every exit counts 1 / E.
    expected = stem_gradient(plain, [1 / exits] * exits)
    assert expected.shape == weight.shape
    assert torch.allclose(stem_gradient(balanced, [1.0] * exits), expected, rtol=1e-9, atol=1e-12)
