"""Reading images at other places: shifts, bilinear samples, blurs and resizing, with the same bits everywhere.

All operations are explicit elementwise sums in a fixed order. Convolutions, matrix products and library resamplers
choose their algorithm by batch size, thread count and device, and round differently with it.
Shapes: images ``(B, D, H, W)``; coordinates ``(B, h, w)`` in pixels, the centre of the first pixel being 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Border = Literal["edge", "mirror", "reflect"]


def side_scale(height: int, width: int) -> float:
    """Lengths are given for images 32 pixels wide; this scales them to others."""
    return min(height, width) / 32


def fold(index: Tensor, size: int, border: Border) -> Tensor:
    """Indices outside 0 .. size-1 brought back: ``edge`` aaa|abc|ccc, ``mirror`` cb|abc|ba, ``reflect`` ba|abc|cb."""
    if border == "edge" or size == 1:
        return index.clamp(0, size - 1)
    if border == "mirror":
        period = 2 * (size - 1)
        index = index.remainder(period)
        return torch.where(index >= size, period - index, index)
    index = index.remainder(2 * size)
    return torch.where(index >= size, 2 * size - 1 - index, index)


def gather_pixels(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """``images[b, :, y[b], x[b]]`` for integer coordinates inside the image: ``(B, D, h, w)``."""
    batch, depth, height, width = images.shape
    flat = (y * width + x).reshape(len(y), 1, -1).expand(-1, depth, -1)
    return images.reshape(batch, depth, height * width).gather(2, flat).reshape(batch, depth, *y.shape[1:])


def bilinear(images: Tensor, y: Tensor, x: Tensor, border: Border) -> Tensor:
    """Bilinear samples at real coordinates: ``(B, D, h, w)``."""
    height, width = images.shape[2:]
    top, left = y.floor(), x.floor()
    down, right = (y - top)[:, None], (x - left)[:, None]
    row, column = top.long(), left.long()
    rows = fold(row, height, border), fold(row + 1, height, border)
    columns = fold(column, width, border), fold(column + 1, width, border)
    upper = (
        gather_pixels(images, rows[0], columns[0]) * (1 - right) + gather_pixels(images, rows[0], columns[1]) * right
    )
    lower = (
        gather_pixels(images, rows[1], columns[0]) * (1 - right) + gather_pixels(images, rows[1], columns[1]) * right
    )
    return upper * (1 - down) + lower * down


def grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, ``(1, H, 1)`` and ``(1, 1, W)`` int64."""
    return (
        torch.arange(height, device=device).reshape(1, height, 1),
        torch.arange(width, device=device).reshape(1, 1, width),
    )


def pad(images: Tensor, rows: int, columns: int, border: Border) -> Tensor:
    """Images grown by ``rows`` above and below and ``columns`` left and right, of any amount."""
    height, width = images.shape[2:]
    row = fold(torch.arange(-rows, height + rows, device=images.device), height, border)
    column = fold(torch.arange(-columns, width + columns, device=images.device), width, border)
    return images[:, :, row][:, :, :, column]


def blur(images: Tensor, taps: Sequence[float], border: Border) -> Tensor:
    """Separable blur with an odd number of taps, along rows and then along columns."""
    reach = len(taps) // 2
    if reach == 0:
        return images
    height, width = images.shape[2:]
    padded = pad(images, 0, reach, border)
    images = weighted_sum([(padded[..., i : i + width], w) for i, w in enumerate(taps)])
    padded = pad(images, reach, 0, border)
    return weighted_sum([(padded[:, :, i : i + height], w) for i, w in enumerate(taps)])


def weighted_sum(terms: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Sum of ``image * weight`` in the order given; product and addition are rounded one after the other."""
    total = terms[0][0] * terms[0][1]
    for image, weight in terms[1:]:
        total += image * weight
    return total


def gaussian_taps(sigma: float, reach: int) -> list[float]:
    """Taps of a Gaussian on -reach .. reach that sum to 1."""
    offsets = np.arange(-reach, reach + 1)
    if sigma <= 0:
        return [1.0]
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    return [float(w) for w in taps / taps.sum()]


def along(images: Tensor, dim: int, index: NDArray[np.integer], weight: NDArray[np.floating]) -> Tensor:
    """Axis 2 or 3 resampled: output i is the sum over j of ``weight[i, j] * images[index[i, j]]``, both (n, taps)."""
    if dim == 3:  # whole rows are copied many times faster than single pixels
        return along(images.transpose(2, 3).contiguous(), 2, index, weight).transpose(2, 3).contiguous()
    total = None
    for j in range(index.shape[1]):
        picked = images.index_select(2, torch.as_tensor(index[:, j].astype(np.int64), device=images.device))
        picked *= torch.as_tensor(weight[:, j].astype(np.float32), device=images.device)[:, None]
        total = picked if total is None else total.add_(picked)
    assert total is not None
    return total


def zoomed(images: Tensor, factor: float) -> Tensor:
    """The image enlarged about its centre by ``factor`` >= 1, bilinear, cut to its own size."""
    if factor == 1:
        return images
    for dim in (2, 3):
        size = images.shape[dim]
        centre = (size - 1) / 2
        place = (np.arange(size) - centre) / factor + centre
        first = np.clip(np.floor(place).astype(np.int64), 0, max(size - 2, 0))
        part = place - first
        index = np.stack([first, np.minimum(first + 1, size - 1)], axis=1)
        images = along(images, dim, index, np.stack([1 - part, part], axis=1))
    return images
