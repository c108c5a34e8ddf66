"""Residual backbones, cut into stem, blocks and head: the one implementation behind every row that wraps a ResNet.

Three kinds of backbone, one form::

    suite_resnet     the suite's ResNet-18: 3x3 stem and max pool, bare 1x1 shortcuts (CascadedResNet's plain pass)
    cifar_resnet     He et al. (arXiv 1512.03385), section 4.2: 6n + 2 layers, 16/32/64 channels; shortcuts 1x1
                     convolution and batch norm ("option B"), as Shallow-Deep Networks uses it
    timm_resnet      any model of timm whose class is timm's ResNet, its own weights and names kept

The cascades build their stem and blocks from these classes too, with norms of their own, so that a plain pass is the
same operators in every row; none is more than torch.nn needs.

A block maps ``(B, C, H, W)`` to its output; ``split`` gives the output before and after the last ReLU, which it leaves
untouched in memory, so that both may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Makes the norm of so many channels.
MakeNorm: TypeAlias = Callable[[int], nn.Module]


def pointwise(channels_in: int, channels: int, stride: int) -> nn.Conv2d:
    """A bare 1x1 convolution, a shortcut's; one that trains fewer than 8 channels on a CPU too."""
    return (_FewChannels if channels_in < 8 else nn.Conv2d)(channels_in, channels, 1, stride, bias=False)


class _FewChannels(nn.Conv2d):
    """Where it trains on a CPU, positions are picked first and convolved without a stride, which is the same sum.

    Without AVX-512, torch 2.15's backward pass of a strided 1x1 convolution over fewer than 8 channels, channels last,
    writes past its memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.device.type == "cpu":
            down, right = self.stride
            return F.conv2d(x[..., ::down, ::right], self.weight)
        return super().forward(x)


class ResidualBlock(nn.Module):
    """Basic block: relu(norm2(conv2(relu(norm1(conv1 x)))) + shortcut x), with ``inner`` channels in the middle."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        stride: int,
        shortcut_norm: bool = False,
        inner: int | None = None,
        norm: MakeNorm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        inner = channels if inner is None else inner
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = pointwise(channels_in, channels, stride)
            if shortcut_norm:
                self.shortcut = nn.Sequential(self.shortcut, norm(channels))
        self.conv1 = nn.Conv2d(channels_in, inner, 3, stride, 1, bias=False)
        self.norm1 = norm(inner)
        self.conv2 = nn.Conv2d(inner, channels, 3, 1, 1, bias=False)
        self.norm2 = norm(channels)

    def _sum(self, x: Tensor) -> Tensor:
        residual = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return self.norm2(self.conv2(residual)).add_(self.shortcut(x))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self._sum(x))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output before and after its last ReLU."""
        before = self._sum(x)
        return before, torch.relu(before)


class Stem(nn.Sequential):
    """3x3 convolution, batch norm, ReLU and, with ``pool``, a 3x3 stride-2 max pool."""

    def __init__(self, in_channels: int, width: int, pool: bool, norm: MakeNorm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.norm = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()


class Head(nn.Module):
    """Average over the map, then a linear layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Backbone(nn.Module):
    """Stem, residual blocks and head of a network that maps images ``(B, D, H, W)`` to logits ``(B, C)``."""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def check_sizes(blocks: Sequence[int], **sizes: int) -> None:
    """Raise ValueError, naming the value, unless there are blocks and all sizes are at least 1."""
    for name, size in (*sizes.items(), *(("blocks", count) for count in blocks)):
        if size < 1:
            raise ValueError(f"{name} holds {size}, but every size must be at least 1")
    if not blocks:
        raise ValueError("blocks is empty, but a network needs at least one stage, for example (2, 2, 2, 2)")


def initialise(network: nn.Module) -> None:
    """He's normal initialisation of all convolutions."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _resnet(
    blocks: Sequence[int], width: int, num_classes: int, in_channels: int, pool: bool, shortcut_norm: bool
) -> Backbone:
    check_sizes(blocks, width=width, num_classes=num_classes, in_channels=in_channels)
    channels, parts = width, []
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if stage and not i else 1
            parts.append(ResidualBlock(channels, width * 2**stage, stride, shortcut_norm))
            channels = width * 2**stage
    backbone = Backbone(Stem(in_channels, width, pool), parts, Head(channels, num_classes))
    initialise(backbone)
    return backbone


def suite_resnet(
    blocks: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    num_classes: int = 10,
    in_channels: int = 3,
    stem_pool: bool = True,
) -> Backbone:
    """The ResNet that ``serial_ce`` trains; ``blocks`` per stage, stage s has ``width * 2**s`` channels."""
    return _resnet(blocks, width, num_classes, in_channels, stem_pool, shortcut_norm=False)


def cifar_resnet(depth: int = 56, num_classes: int = 10, in_channels: int = 3, width: int = 16) -> Backbone:
    """The CIFAR ResNet of ``depth`` = 6n + 2 layers (20, 32, 44, 56, 110); anything else raises ValueError."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth is {depth}; a CIFAR ResNet has 6n + 2 layers: 20, 32, 44, 56, 110")
    return _resnet([(depth - 2) // 6] * 3, width, num_classes, in_channels, pool=False, shortcut_norm=True)


def adopt_serial(backbone: Backbone, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a ``CascadedResNet`` into a ``suite_resnet`` of the same shape.

    Its batch norms hold one row of statistics per step; a plain pass uses the last. Raises ValueError where names or
    shapes do not match.
    """
    renamed = {}
    for name, tensor in weights.items():
        name = name.replace("heads.0.", "head.linear.")
        renamed[name] = tensor[-1] if name.endswith(("running_mean", "running_var")) else tensor
    own = backbone.state_dict()
    expected = {name for name in own if not name.endswith("num_batches_tracked")}
    for name in sorted(expected ^ renamed.keys()):
        side = "lack" if name in expected else "hold an unknown"
        raise ValueError(f"the serial network's weights {side} '{name}': use the same blocks, width and heads for both")
    for name, tensor in renamed.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"'{name}' is {tuple(tensor.shape)} in the serial network's weights, {tuple(own[name].shape)} here: "
                "use the same blocks and width for both"
            )
    backbone.load_state_dict(renamed, strict=False)
