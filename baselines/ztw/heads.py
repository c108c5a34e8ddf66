"""The internal classifiers of Zero Time Waste: heads that also read the logits of the head before them.

Source: Wolczyk et al., *Zero Time Waste: Recycling Predictions in Early Exit Neural Networks*, NeurIPS 2021 (arXiv
2106.05409), section 3.1. Every head but the first reads the raw logits of the head before it::

    z_m = linear([features_m(x), z_{m-1}])

The paper's code (gmum/Zero-Time-Waste, ``ztw_cv_original``) and its later rewrite (``ztw_cv``) differ in the features:

    original   ReLU(conv3x3 x), then SDN's mixed pooling; z_{m-1} as it is, layer norm an option
    pool       mixed pooling to 4x4 pixels, whatever the map's size; layer norm on z_{m-1}
    conv       ReLU, conv3x3 of stride 2 without padding to half the channels, then as pool

Shapes: maps ``(B, C, H, W)``, logits ``(B, classes)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.sdn.model import InternalClassifier

KINDS = ("original", "pool", "conv")
#: Side of the map that the rewrite pools to.
POOLED = 4


class OriginalHead(nn.Module):
    """A 3x3 convolution with bias and ReLU before an SDN classifier, which also reads the previous logits.

    ``previous``: whether there are any; ``norm``: whether they pass a layer norm first.
    """

    def __init__(
        self, channels: int, height: int, width: int, num_classes: int, previous: bool = True, norm: bool = False
    ) -> None:
        super().__init__()
        self.previous = previous
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm = nn.LayerNorm(num_classes) if previous and norm else None
        self.classifier = InternalClassifier(channels, height, width, num_classes, num_classes if previous else 0)

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        return self.classifier(torch.relu_(self.conv(x)), _read(previous, self.previous, self.norm))


class RewriteHead(nn.Module):
    """The rewrite's head for maps of any size; ``conv`` puts a convolution before its pooling.

    Raises ValueError where the convolution, which does not pad, has no pixel left.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        num_classes: int,
        previous: bool = True,
        norm: bool = True,
        conv: bool = False,
    ) -> None:
        super().__init__()
        if conv and (min(height, width) < 3 or channels < 2):
            raise ValueError(
                f"head is 'conv', whose 3x3 convolution does not pad and halves the channels, but a head reads "
                f"{channels} channels of {height}x{width} pixels: use 'pool' or 'original'"
            )
        self.previous = previous
        self.conv = nn.Conv2d(channels, channels // 2, 3, 2) if conv else None
        sides = [(side - 1) // 2 if conv else side for side in (height, width)]
        # Where every window is a single pixel, maximum and average are the same and alpha decides nothing.
        self.alpha = nn.Parameter(torch.rand(1), requires_grad=any(POOLED % side for side in sides))
        self.norm = nn.LayerNorm(num_classes) if previous and norm else None
        features = (channels // 2 if conv else channels) * POOLED**2
        self.linear = nn.Linear(features + (num_classes if previous else 0), num_classes)

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        if self.conv is not None:
            x = self.conv(torch.relu(x))
        pooled = self.alpha * F.adaptive_max_pool2d(x, POOLED) + (1 - self.alpha) * F.adaptive_avg_pool2d(x, POOLED)
        further = _read(previous, self.previous, self.norm)
        features = pooled.flatten(1)
        return self.linear(features if further is None else torch.cat((features, further), dim=1))


def _read(previous: Tensor | None, reads: bool, norm: nn.Module | None) -> Tensor | None:
    """What a head takes in of the previous logits."""
    if previous is None or not reads:
        return None
    return previous if norm is None else norm(previous)


def head_maker(
    kind: str, stack: bool = True, norm: bool | None = None
) -> Callable[[int, tuple[int, int, int], int], nn.Module]:
    """A function (exit, shape (C, H, W), classes) -> head. The first head has no previous one, nor a norm for it.

    ``stack`` lets a head read the previous logits, ``norm`` normalises them (None: as the code of ``kind`` does).
    Raises ValueError for an unknown ``kind``.
    """
    if kind not in KINDS:
        raise ValueError(f"head is '{kind}'; expected one of {', '.join(KINDS)}")

    def make(k: int, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        previous = stack and k > 0
        if kind == "original":
            return OriginalHead(*shape, num_classes, previous, bool(norm))
        return RewriteHead(*shape, num_classes, previous, norm is not False, conv=kind == "conv")

    return make
