"""Noise for images: seeded, batched, on the images' own device. Importing this package does not import torch.

``KINDS`` lists what there is; ``corrupt`` applies one kind. Official CIFAR-10-C files are read by ``cifar10c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anytime_bench.corruptions.catalogue import (
    KINDS,
    LEFT_OUT,
    Catalogue,
    Corruption,
    conditions,
    named,
    register_corruption,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "KINDS",
    "LEFT_OUT",
    "Catalogue",
    "Corruption",
    "conditions",
    "corrupt",
    "named",
    "register_corruption",
]


def corrupt(
    images: Tensor,
    kind: str,
    *,
    severity: int | None = None,
    seed: int,
    indices: Tensor | Sequence[int],
    frame: int | Tensor = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """``images (B, D, H, W)`` with noise of ``kind``, in the same space and on the same device.

    ``indices (B,)`` are the images' numbers in their split and ``frame`` (an int, or ``(B,)`` int64) the number of the
    draw; result and draws depend on (seed, kind, image number, frame) alone, bit by bit. Severities share
    their draws. Paper kinds expect normalised images. Common kinds expect pixels in [0, 1], or, where ``mean`` and
    ``std`` per channel are given, normalised images, which are brought to pixels and back; pixels are rounded
    to 8 bits first, which is what the kinds are defined on.

    Raises ``UserError`` for an unknown kind, a severity the kind lacks, or shapes that do not fit.
    """
    from anytime_bench.corruptions.apply import apply

    return apply(images, KINDS[kind], severity, seed, indices, frame, mean, std)
