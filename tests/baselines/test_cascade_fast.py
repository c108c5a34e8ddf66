"""What makes the cascade fast equals plain torch code, forwards and backwards, in either precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.cascade.fast import convolve, folded, join, product

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
PRECISIONS = pytest.mark.parametrize("precision", list(TOLERANCE))


def gradients(result: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return list(torch.autograd.grad((result * weights).sum(), leaves))


@PRECISIONS
def test_a_product_is_linear_with_its_gradients_for_any_strides(precision: torch.dtype) -> None:
    x = torch.randn(33, 96, dtype=precision).t()[:, ::3].requires_grad_()  # (96, 11), of rows 1 apart
    matrix = torch.randn(11, 20, dtype=precision).t().requires_grad_()
    ours, plain = product(x, matrix), F.linear(x, matrix)
    torch.testing.assert_close(ours, plain, rtol=0, atol=TOLERANCE[precision])
    for a, b in zip(gradients(ours, [x, matrix]), gradients(plain, [x, matrix]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[precision])


def test_a_product_of_what_does_not_fit_fails_as_linear_does() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        product(torch.randn(2, 5), torch.randn(3, 4))
    assert torch.equal(product(torch.randn(2, 0), torch.randn(3, 0)), torch.zeros(2, 3))


def test_a_product_under_autocast_is_that_of_linear() -> None:
    x, matrix = torch.randn(8, 16), torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        ours = product(x, matrix)
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, F.linear(x, matrix))


@PRECISIONS
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2)])
def test_a_small_map_is_convolved_as_by_the_convolution(
    size: tuple[int, int], stride: int, precision: torch.dtype
) -> None:
    conv = nn.Conv2d(6, 10, 3, stride, 1, bias=False).to(precision)
    x = torch.randn(5, 6, *size, dtype=precision, requires_grad=True)
    ours, plain = convolve(conv, x), conv(x)
    torch.testing.assert_close(ours, plain, rtol=0, atol=TOLERANCE[precision])
    leaves = [x, conv.weight]
    for a, b in zip(gradients(ours, leaves), gradients(plain, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[precision])


@PRECISIONS
def test_a_folded_norm_is_the_convolution_and_its_norm(precision: torch.dtype) -> None:
    conv = nn.Conv2d(3, 8, 3, 2, 1, bias=False).to(precision)
    scale, shift, x = (torch.randn(*shape, dtype=precision) for shape in ((8,), (8,), (4, 3, 9, 9)))
    expected = conv(x) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    torch.testing.assert_close(folded(conv, scale, shift, x), expected, rtol=0, atol=TOLERANCE[precision])


@PRECISIONS
def test_a_join_is_the_relu_of_each_steps_sum(precision: torch.dtype) -> None:
    shortcut, residual = (torch.randn(steps * 2, 4, 3, 3, dtype=precision, requires_grad=True) for steps in (3, 2))
    pairs = [(0, None), (1, 0), (2, 1), (2, 1)]
    s, r = shortcut.split(2), residual.split(2)
    plain = torch.cat([F.relu(s[0]), F.relu(s[1] + r[0]), F.relu(s[2] + r[1]), F.relu(s[2] + r[1])])
    ours = join(shortcut, residual, pairs, 2)
    assert torch.equal(ours, plain)
    for a, b in zip(gradients(ours, [shortcut, residual]), gradients(plain, [shortcut, residual]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
