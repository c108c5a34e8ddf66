"""Gradient equilibrium: balance the gradients that the exits of one network send into its blocks.

Source: Li, Zhang, Qi, Ran, Wang, *Improved Techniques for Training Adaptive Deep Networks*, ICCV 2019 (arXiv
1908.06294), section 3.1; BoostNet (arXiv 2211.16726) trains with it. Block k's output is read by exit k and by block
k + 1, above which E - k - 1 exits stand. The forward pass changes nothing; backward, with E exits counted from 0,

    grad(block k) = (grad(exit k) + (E - k - 1) grad(block k + 1)) / (E - k)

so that every exit weighs the same in what a block learns, and the sum does not grow with the number of exits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def equilibrate(read: Tensor, onward: Tensor, k: int, exits: int) -> tuple[Tensor, Tensor]:
    """``read``, which exit ``k`` classifies, and ``onward``, which the blocks above it go on with, of any shape.

    The two may be one tensor, or one before and one after an activation. Their values are those of the arguments.
    Raises ValueError for an exit outside 0..exits-1.

    >>> x = torch.ones((), requires_grad=True)
    >>> classified, onward = equilibrate(x, x, 0, 4)
    >>> (8 * classified + 4 * onward).backward()  # (8 + 3 * 4) / 4
    >>> float(x.grad)
    5.0
    """
    if not 0 <= k < exits:
        raise ValueError(f"exit {k} does not exist: there are {exits}, counted from 0")
    if not (torch.is_grad_enabled() and onward.requires_grad):
        return read, onward
    above = exits - k - 1
    return _ScaleGradient.apply(read, 1 / (above + 1)), _ScaleGradient.apply(onward, above / (above + 1))


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
