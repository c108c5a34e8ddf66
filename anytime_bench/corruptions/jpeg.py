"""JPEG compression as tensor operations: what quantisation does to a picture, without the entropy coding.

Pixels ``(B, D, H, W)`` on the 8-bit grid, D = 1 (luma only) or 3 (JFIF colours, chroma halved on both axes, "4:2:0").
Tables and their scaling by quality are those of ITU-T T.81, annex K, as the Independent JPEG Group's library uses
them. That library computes the cosine transform in integers; where a coefficient lies on the edge of a quantisation
step, the two may fall on different sides, and single pixels then differ by a few of 255 steps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.corruptions.draws import Draws
from anytime_bench.corruptions.sampling import along, pad

# ITU-T T.81, tables K.1 and K.2, row by row.
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


def jpeg_compression(pixels: Tensor, draws: Draws, quality: int) -> Tensor:
    """Compressed at ``quality`` (1 to 100) and decompressed, on the 8-bit grid."""
    values = pixels * 255
    if pixels.shape[1] == 1:
        return (_coded(values, quantisation(_LUMA, quality)).round_().clamp_(0, 255)) / 255
    height, width = pixels.shape[2:]
    red, green, blue = values.unbind(1)
    luma = (red * 0.299 + green * 0.587 + blue * 0.114).round_()
    chroma = torch.stack(
        [
            (red * -0.168735892 - green * 0.331264108 + blue * 0.5 + 128).round_(),
            (red * 0.5 - green * 0.418687589 - blue * 0.081312411 + 128).round_(),
        ],
        dim=1,
    )
    luma = _coded(luma[:, None], quantisation(_LUMA, quality)).round_().clamp_(0, 255)[:, 0]
    halved = _coded(_halved(chroma), quantisation(_CHROMA, quality)).round_().clamp_(0, 255)
    halved = halved[:, :, :, : (width + 1) // 2]
    blue_part, red_part = (_doubled(halved)[:, :, :height, :width] - 128).unbind(1)
    out = torch.stack(
        [luma + red_part * 1.402, luma - blue_part * 0.344136286 - red_part * 0.714136286, luma + blue_part * 1.772], 1
    )
    return out.round_().clamp_(0, 255) / 255


def quantisation(table: str, quality: int) -> NDArray[np.int64]:
    """The 8x8 steps of a base table at a quality: scaled by 5000/q below 50 and by 200 - 2q from there on, in percent.

    >>> quantisation(_LUMA, 50)[0, :4].tolist(), quantisation(_LUMA, 80)[0, :4].tolist()
    ([16, 11, 10, 16], [6, 4, 4, 6])
    """
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = np.array(table.split(), dtype=np.int64).reshape(8, 8)
    return np.clip((base * percent + 50) // 100, 1, 255)


def _coded(values: Tensor, steps: NDArray[np.int64]) -> Tensor:
    """Planes ``(B, P, H, W)`` in 0 .. 255 through transform, quantisation and back; edges repeat to whole blocks."""
    batch, planes, height, width = values.shape
    rows, columns = -height % 8, -width % 8
    if rows or columns:
        values = pad(values, rows, columns, "edge")[:, :, rows:, columns:]
    blocks = (values - 128).unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # (B, P, rows, 8, columns, 8)
    cosine = _cosines(str(values.device))
    step = torch.from_numpy(steps).to(values).reshape(8, 1, 8)
    spectrum = _transform(_transform(blocks, cosine, 3), cosine, 5)
    # As in libjpeg: coefficients in eighths, quantised with halves away from zero, a frequent case for the mean.
    eighths = (spectrum * 8).round_()
    spectrum = ((eighths.abs() + step * 4) / (step * 8)).floor_().mul_(step) * eighths.sign()
    blocks = _transform(_transform(spectrum, cosine.T, 3), cosine.T, 5)
    return blocks.reshape(batch, planes, height + rows, width + columns)[:, :, :height, :width] + 128


@lru_cache(maxsize=4)
def _cosines(device: str) -> Tensor:
    """The orthonormal 8-point cosine transform: row u, column x."""
    u, x = np.mgrid[:8, :8]
    matrix = np.cos((2 * x + 1) * u * math.pi / 16) * np.where(u == 0, math.sqrt(1 / 8), 0.5)
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


def _transform(blocks: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """``matrix (8, 8)`` along one axis of length 8, as a sum of eight terms in a fixed order."""
    shape = [1] * 6
    shape[dim] = 8
    total = blocks.narrow(dim, 0, 1) * matrix[:, 0].reshape(shape)
    for x in range(1, 8):
        total += blocks.narrow(dim, x, 1) * matrix[:, x].reshape(shape)
    return total


def _halved(planes: Tensor) -> Tensor:
    """Means of 2x2 pixels; halves round down in even columns and up in odd ones, as in libjpeg.

    The width is filled up to whole blocks before halving, by repeating the last pixel; an odd last row repeats.
    """
    rows, columns = planes.shape[2] % 2, -planes.shape[3] % 16
    if rows or columns:
        planes = pad(planes, rows, columns, "edge")[:, :, rows:, columns:]
    upper = planes[:, :, ::2, ::2] + planes[:, :, ::2, 1::2]
    lower = planes[:, :, 1::2, ::2] + planes[:, :, 1::2, 1::2]
    quarter = torch.tensor([1.0, 2.0], device=planes.device).repeat(upper.shape[3])[: upper.shape[3]]
    return ((upper + lower + quarter) * 0.25).floor_()


def _doubled(planes: Tensor) -> Tensor:
    """Twice the side, 3/4 of the nearer and 1/4 of the farther neighbour; halves round up in even columns."""
    for dim in (2, 3):
        size = planes.shape[dim]
        near = np.repeat(np.arange(size), 2)
        far = np.clip(near + np.tile([-1, 1], size), 0, size - 1)
        planes = along(planes, dim, np.stack([near, far], axis=1), np.tile([0.75, 0.25], (2 * size, 1)))
    half = torch.tensor([8.0, 7.0], device=planes.device).repeat(planes.shape[3] // 2) / 16
    return (planes + half).floor_()
