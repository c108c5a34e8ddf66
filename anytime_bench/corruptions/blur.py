"""Defocus, glass, motion and zoom blur. Pixels ``(B, D, H, W)`` in [0, 1].

Lengths are pixels of a 32x32 image. They grow with wider images; smaller ones use them as they are, since a blur that
is shorter than a pixel would do nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.corruptions.draws import Draws
from anytime_bench.corruptions.sampling import (
    Border,
    blur,
    fold,
    gather_pixels,
    gaussian_taps,
    grid,
    pad,
    side_scale,
    weighted_sum,
    zoomed,
)


def length_scale(pixels: Tensor) -> float:
    """Factor on lengths given in pixels of a 32x32 image; at least 1."""
    return max(1.0, side_scale(*pixels.shape[2:]))


def smooth(pixels: Tensor, sigma: float, truncate: float = 4.0, border: Border = "edge") -> Tensor:
    """Gaussian blur cut at ``truncate`` deviations."""
    return blur(pixels, gaussian_taps(sigma, int(truncate * sigma + 0.5)), border)


def defocus_blur(pixels: Tensor, draws: Draws, radius: float, alias_blur: float) -> Tensor:
    """Convolution with a disk that has itself been blurred by a small Gaussian; the border mirrors."""
    scale = length_scale(pixels)
    kernel = disk(radius * scale, alias_blur * scale)
    reach = len(kernel) // 2
    height, width = pixels.shape[2:]
    padded = pad(pixels, reach, reach, "mirror")
    taps = [
        (padded[:, :, i : i + height, j : j + width], float(kernel[i, j]))
        for i, j in np.argwhere(kernel > 1e-7).tolist()
    ]
    return weighted_sum(taps).clamp_(0, 1)


def disk(radius: float, sigma: float) -> NDArray[np.float64]:
    """A disk's indicator on the pixel grid, blurred by 3x3 Gaussian taps (5x5 for a radius above 8), of sum 1."""
    soft = gaussian_taps(sigma, 1 if radius <= 8 else 2)
    half = int(radius) + len(soft) // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = (y**2 + x**2 <= radius**2).astype(np.float64)
    kernel /= kernel.sum()
    for axis in (0, 1):
        kernel = np.apply_along_axis(np.convolve, axis, kernel, soft, mode="same")
    return kernel


def glass_blur(pixels: Tensor, draws: Draws, sigma: float, reach: int, rounds: int) -> Tensor:
    """Blur, take every pixel's value from a neighbour at an offset in [-reach, reach), repeat, blur again.

    As in the published script, whose exchange of two pixels of a colour image copies one over the other.
    """
    scale = length_scale(pixels)
    sigma, reach = sigma * scale, max(1, round(reach * scale))
    height, width = pixels.shape[2:]
    # Cut to 8 bits as published; the small addend keeps an even area, a whole step up to rounding, at its own step.
    pixels = (smooth(pixels, sigma) * 255 + 2.0**-10).floor_() * (1 / 255)
    y, x = grid(height, width, pixels.device)
    inner = (y > reach) & (y <= height - reach) & (x > reach) & (x <= width - reach)
    for _ in range(rounds):
        offset = draws.integers(2 * reach, (2, height, width)) - reach
        rows = fold(y + offset[:, 0] * inner, height, "edge")
        columns = fold(x + offset[:, 1] * inner, width, "edge")
        pixels = gather_pixels(pixels, rows, columns)
    return smooth(pixels, sigma).clamp_(0, 1)


def motion_blur(pixels: Tensor, draws: Draws, radius: float, sigma: float) -> Tensor:
    """A line of 2 radius + 1 half-Gaussian taps at an angle uniform on +-45 degrees, edges repeated."""
    scale = length_scale(pixels)
    return line_blur(pixels, draws.direction((), -45, 45), radius * scale, sigma * scale).clamp_(0, 1)


def line_blur(pixels: Tensor, direction: tuple[Tensor, Tensor], radius: float, sigma: float) -> Tensor:
    """Mean of copies shifted by i = 0, 1, 2, ... pixels along ``direction``, weighted by exp(-i^2 / (2 sigma^2)).

    Shifts are rounded to whole pixels; ``direction`` is (cosine, sine) per image, each ``(B,)``.
    """
    taps = line_taps(radius, sigma)
    cos, sin = (part.reshape(-1, 1, 1) for part in direction)
    height, width = pixels.shape[2:]
    y, x = grid(height, width, pixels.device)
    total = pixels * taps[0]
    for i, weight in enumerate(taps[1:], 1):
        rows = (y + (i * sin - 0.5).ceil().long()).clamp(0, height - 1).expand(-1, -1, width)
        columns = (x + (i * cos - 0.5).ceil().long()).clamp(0, width - 1).expand(-1, height, -1)
        total += gather_pixels(pixels, rows, columns) * weight
    return total


def line_taps(radius: float, sigma: float) -> list[float]:
    """The weights of ``line_blur``; those below 1e-6 are cut off."""
    taps = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * round(radius) + 1)]
    taps = [tap for tap in taps if tap > 1e-6]
    return [tap / math.fsum(taps) for tap in taps]


def zoom_blur(pixels: Tensor, draws: Draws, factors: Sequence[float]) -> Tensor:
    """Mean of the image and of its enlargements about the centre by every factor.

    Enlargement is continuous. The published script cuts the crop to whole pixels first, which on small images
    moves it off the centre or leaves it as it was.
    """
    share = 1.0 / (len(factors) + 1)
    return weighted_sum([(pixels, share), *((zoomed(pixels, factor), share) for factor in factors)]).clamp_(0, 1)
