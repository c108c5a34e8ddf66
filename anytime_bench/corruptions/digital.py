"""Brightness, contrast, elastic transform and pixelation. Pixels ``(B, D, H, W)`` on the 8-bit grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anytime_bench.corruptions.blur import smooth
from anytime_bench.corruptions.draws import Draws
from anytime_bench.corruptions.sampling import along, bilinear, grid


def brightness(pixels: Tensor, draws: Draws, amount: float) -> Tensor:
    """HSV value v raised to min(v + amount, 1): at fixed hue and saturation, all channels scale with it."""
    value = pixels.amax(dim=1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    scaled = pixels * (raised / value.clamp(min=1 / 512))
    return torch.where(value > 0, scaled, raised.expand_as(pixels)).clamp_(0, 1)


def contrast(pixels: Tensor, draws: Draws, factor: float) -> Tensor:
    """(x - m) factor + m, clipped, m the channel's mean over the image."""
    # Summed in whole 8-bit steps, so that the order of the sum cannot matter.
    steps = (pixels * 255).round_().long().sum(dim=(2, 3), keepdim=True)
    mean = steps.float() * (1 / (255.0 * pixels.shape[2] * pixels.shape[3]))
    return ((pixels - mean) * factor + mean).clamp_(0, 1)


def elastic_transform(pixels: Tensor, draws: Draws, displacement: float, smoothness: float, corner: float) -> Tensor:
    """A random affine map of three corners, then a smooth random displacement; both bilinear.

    The three constants are shares of the image's shorter side: the corners move by up to ``corner`` per axis; uniform
    noise on +-1, blurred by a Gaussian of deviation ``smoothness``, moves each pixel by ``displacement`` times its
    value.
    """
    height, width = pixels.shape[2:]
    side = min(height, width)
    y, x = (place.float() for place in grid(height, width, pixels.device))
    rows, columns = _affine(draws, y, x, corner * side, height, width)
    pixels = bilinear(pixels, rows, columns, "mirror")
    if displacement > 0:
        noise = draws.uniform((2, height, width), -1.0, 1.0)
        shift = smooth(noise, smoothness * side, 3.0, "reflect") * (displacement * side)
        pixels = bilinear(pixels, y + shift[:, 0], x + shift[:, 1], "reflect")
    return pixels.clamp_(0, 1)


def _affine(draws: Draws, y: Tensor, x: Tensor, reach: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of the result comes from, for the map that moves three corners of the central square."""
    # The corners, relative to the centre c: (s, s), (s, -s) and (-s, -s). Their new places are c + corner + move.
    centre_x, centre_y = float(width // 2), float(height // 2)
    s = float(max(1, min(height, width) // 3))
    move = draws.uniform((3, 2), -reach, reach).unsqueeze(-1).unsqueeze(-1)  # (B, corner, axis, 1, 1)
    (first_x, first_y), (second_x, second_y), (third_x, third_y) = (move[:, i].unbind(1) for i in range(3))
    # Forward map p -> A (p - c) + c + t: the side from corner 2 to 1 is along y, that from 3 to 2 along x.
    scale = 1 / (2 * s)
    a_xy, a_yy = (first_x - second_x) * scale, 1 + (first_y - second_y) * scale
    a_xx, a_yx = 1 + (second_x - third_x) * scale, (second_y - third_y) * scale
    t_x, t_y = (first_x + third_x) / 2, (first_y + third_y) / 2
    dx, dy = x - centre_x - t_x, y - centre_y - t_y
    determinant = a_xx * a_yy - a_xy * a_yx
    return (
        (a_xx * dy - a_yx * dx) / determinant + centre_y,
        (a_yy * dx - a_xy * dy) / determinant + centre_x,
    )


def pixelate(pixels: Tensor, draws: Draws, share: float) -> Tensor:
    """Shrunk to ``share`` of the side with a box filter and brought back to blocks."""
    for dim in (2, 3):
        size = pixels.shape[dim]
        small = max(1, int(size * share))
        pixels = along(pixels, dim, *box_taps(size, small))
        pixels = along(pixels, dim, *box_taps(small, size))
    return pixels.clamp_(0, 1)


def box_taps(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights ``(wanted, taps)`` of a box filter: the whole source pixels within each target pixel."""
    scale = size / wanted
    reach = max(scale, 1.0)
    centre = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centre - reach / 2 + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + reach / 2 + 0.5).astype(np.int64), size)
    offset = np.arange(int((stop - first).max()))
    index = first[:, None] + offset[None]
    place = (index - centre[:, None] + 0.5) / reach
    weight = ((place > -0.5) & (place <= 0.5) & (index < stop[:, None])).astype(np.float64)
    return np.minimum(index, size - 1), weight / weight.sum(axis=1, keepdims=True)
