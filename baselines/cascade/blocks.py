"""The residual blocks of a cascade, with batch norm per step.

F_l is the residual branch, S_l the shortcut: the identity, or a bare 1x1 convolution without norm at a change of width
(Iuzzolino et al., NeurIPS 2021). A residual branch ends in a norm; the relu comes after the sum with the shortcut.

Shapes: features of n steps ``(n * B, C, H, W)``, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeAlias

from torch import Tensor, nn

from baselines.cascade.norm import TemporalNorm

Convolve: TypeAlias = Callable[[nn.Conv2d, Tensor], Tensor]


def apply(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)``: the convolution as it stands."""
    return conv(x)


class BasicBlock(nn.Module):
    """Residual branch conv3x3-norm-relu-conv3x3-norm, with ``inner`` channels in the middle (default: ``channels``)."""

    expansion: ClassVar[int] = 1

    def __init__(self, channels_in: int, channels: int, stride: int, rows: int, inner: int | None = None) -> None:
        super().__init__()
        inner = channels if inner is None else inner
        self.shortcut = _shortcut(channels_in, channels, stride)
        self.conv1 = nn.Conv2d(channels_in, inner, 3, stride, 1, bias=False)
        self.norm1 = TemporalNorm(inner, rows)
        self.conv2 = nn.Conv2d(inner, channels, 3, 1, 1, bias=False)
        self.norm2 = TemporalNorm(channels, rows)

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
        self.shortcut = _shortcut(channels_in, channels * 4, stride)
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


Block: TypeAlias = BasicBlock | Bottleneck
BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if channels_in == channels_out and stride == 1:
        return nn.Identity()
    return nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
