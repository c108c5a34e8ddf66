"""A shortcut of few channels takes another way on a CPU; it is the strided convolution all the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from baselines.residual import pointwise


@pytest.mark.parametrize("channels", [(1, 2), (4, 8), (7, 7), (8, 16)])
@pytest.mark.parametrize("stride", [1, 2])
def test_values_and_gradients_are_the_strided_convolution_s(channels: tuple[int, int], stride: int) -> None:
    torch.manual_seed(0)
    shortcut = pointwise(*channels, stride).double()
    images = torch.randn(3, channels[0], 7, 8, dtype=torch.float64, requires_grad=True)
    twin = images.detach().clone().requires_grad_()
    weight = shortcut.weight.detach().clone().requires_grad_()
    out, expected = shortcut(images), F.conv2d(twin, weight, stride=stride)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(out)
    out.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(images.grad, twin.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shortcut.weight.grad, weight.grad, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(shortcut(images), expected.detach(), rtol=1e-12, atol=1e-12)


def test_training_few_channels_leaves_memory_whole() -> None:
    shortcut = pointwise(4, 8, 2).to(memory_format=torch.channels_last)
    for _ in range(50):
        images = torch.randn(32, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
        shortcut(images).square().sum().backward()
    assert torch.isfinite(shortcut.weight.grad).all()
