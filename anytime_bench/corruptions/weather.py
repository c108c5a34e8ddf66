"""Snow and fog. Pixels ``(B, D, H, W)`` in [0, 1]; one layer per image, the same for all channels."""

from __future__ import annotations

import torch
from torch import Tensor

from anytime_bench.corruptions.blur import length_scale, line_blur
from anytime_bench.corruptions.draws import Draws
from anytime_bench.corruptions.sampling import zoomed

#: The roughness of the first step of the plasma fractal, which enters squared.
INITIAL_ROUGHNESS = 100.0


def luma(pixels: Tensor) -> Tensor:
    """Grey value ``(B, 1, H, W)``: 0.299 R + 0.587 G + 0.114 B, or the grey image itself."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.unbind(1)
    return (red * 0.299 + green * 0.587 + blue * 0.114)[:, None]


def snow(
    pixels: Tensor,
    draws: Draws,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> Tensor:
    """Bright normals above a threshold, zoomed and blurred along a line, laid over a whitened image twice: as they are
    and turned by 180 degrees."""
    scale = length_scale(pixels)
    height, width = pixels.shape[2:]
    flakes = draws.normal((1, height, width)).mul_(deviation).add_(mean)
    flakes = zoomed(flakes, zoom * scale)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp_(0, 1)
    flakes = line_blur(flakes, draws.direction((), -135, -45), radius * scale, sigma * scale)
    whitened = torch.maximum(pixels, luma(pixels) * 1.5 + 0.5)
    return (pixels * share + whitened * (1 - share) + flakes + flakes.flip(2, 3)).clamp_(0, 1)


def fog(pixels: Tensor, draws: Draws, amount: float, decay: float) -> Tensor:
    """(x + amount f) m / (m + amount), clipped: f a plasma fractal in [0, 1], m the image's largest value."""
    height, width = pixels.shape[2:]
    haze = plasma_fractal(draws, max(height, width), decay)[:, None, :height, :width]
    largest = pixels.amax(dim=(1, 2, 3), keepdim=True)
    return ((pixels + haze * amount) * (largest / (largest + amount))).clamp_(0, 1)


def plasma_fractal(draws: Draws, side: int, decay: float) -> Tensor:
    """Height maps in [0, 1] by the diamond-square algorithm on a torus, ``(B, S, S)``, S the next power of 2.

    Every step halves the grid: new points are the mean of their four neighbours plus w u, u uniform on +-w, and w
    shrinks by ``decay``.
    """
    size = max(2, 1 << (side - 1).bit_length())
    heights = torch.zeros(len(draws), size, size, device=draws.device)
    step, roughness = size, INITIAL_ROUGHNESS
    while step >= 2:
        half, cells = step // 2, size // step

        def displacement(cells: int = cells, roughness: float = roughness) -> Tensor:
            return draws.uniform((cells, cells), -roughness, roughness).mul_(roughness)

        corner = heights[:, ::step, ::step]
        down = corner + corner.roll(-1, 1)
        heights[:, half::step, half::step] = (down + down.roll(-1, 2)) / 4 + displacement()
        middle, corner = heights[:, half::step, half::step], heights[:, ::step, ::step]
        above = (middle + middle.roll(1, 1)) + (corner + corner.roll(-1, 2))
        beside = (middle + middle.roll(1, 2)) + (corner + corner.roll(-1, 1))
        heights[:, ::step, half::step] = above / 4 + displacement()
        heights[:, half::step, ::step] = beside / 4 + displacement()
        step, roughness = half, roughness / decay
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True)
