"""The residual blocks of a cascade, with batch norm per step.

F_l is the residual branch, S_l the shortcut: the identity, or a bare 1x1 convolution without norm at a change of width
(Iuzzolino et al., NeurIPS 2021). A residual branch ends in a norm; the relu comes after the sum with the shortcut.
Called as a module, a block is that of the plain ResNet, by its norms' last rows.

Shapes: features of n steps ``(n * B, C, H, W)``, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from baselines.cascade.norm import TemporalNorm
from baselines.residual import ResidualBlock, pointwise

Convolve: TypeAlias = Callable[[nn.Conv2d, Tensor], Tensor]


def apply(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)``: the convolution as it stands."""
    return conv(x)


class BasicBlock(ResidualBlock):
    """Residual branch conv3x3-norm-relu-conv3x3-norm, with ``inner`` channels in the middle (default: ``channels``)."""

    expansion: ClassVar[int] = 1
    norm1: TemporalNorm
    norm2: TemporalNorm

    def __init__(self, channels_in: int, channels: int, stride: int, rows: int, inner: int | None = None) -> None:
        super().__init__(channels_in, channels, stride, inner=inner, norm=partial(TemporalNorm, rows=rows))

    def residual(self, x: Tensor, steps: int = 1, first: int = 0, conv: Convolve = apply) -> Tensor:
        """F_l of ``x (steps * B, C, H, W)``, whose first B samples belong to step ``first``; ``conv`` convolves."""
        x = self.norm1(conv(self.conv1, x), steps, first, relu=True)
        return self.norm2(conv(self.conv2, x), steps, first)


class Bottleneck(nn.Module):
    """Residual branch conv1x1-norm-relu-conv3x3-norm-relu-conv1x1-norm, with four times the channels at the end."""

    expansion: ClassVar[int] = 4

    def __init__(self, channels_in: int, channels: int, stride: int, rows: int, inner: int | None = None) -> None:
        super().__init__()
        if inner is not None:
            raise ValueError("inner widths can be chosen for basic blocks only; use block='basic'")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels * 4:
            self.shortcut = pointwise(channels_in, channels * 4, stride)
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm1 = TemporalNorm(channels, rows)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.norm2 = TemporalNorm(channels, rows)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.norm3 = TemporalNorm(channels * 4, rows)

    def residual(self, x: Tensor, steps: int = 1, first: int = 0, conv: Convolve = apply) -> Tensor:
        """F_l of ``x (steps * B, C, H, W)``, whose first B samples belong to step ``first``; ``conv`` convolves."""
        x = self.norm1(conv(self.conv1, x), steps, first, relu=True)
        x = self.norm2(conv(self.conv2, x), steps, first, relu=True)
        return self.norm3(conv(self.conv3, x), steps, first)

    def forward(self, x: Tensor) -> Tensor:
        """The block of a plain ResNet, by the last row of statistics."""
        return torch.relu_(self.residual(x, 1, self.norm1.rows - 1).add_(self.shortcut(x)))


Block: TypeAlias = BasicBlock | Bottleneck
BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
