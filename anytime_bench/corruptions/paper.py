"""The six kinds of noise of the cascaded-networks paper, on normalised images, where 0 is the mean pixel.

Iuzzolino, Mozer and Bengio, NeurIPS 2021 (arXiv 2102.09808). Lengths are those of 32x32 images and scale with the
shorter side; what the paper leaves open is said in each docstring. Every function takes images ``(B, D, H, W)`` and
the images' ``Draws`` and returns a new tensor of the same shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anytime_bench.corruptions.draws import Draws
from anytime_bench.corruptions.sampling import bilinear, blur, gather_pixels, grid, pad, side_scale, weighted_sum

#: Side of the sharp window (focus) and of the patch (occlusion), and largest shift, on 32 pixels.
WINDOW = 16
LARGEST_SHIFT = 8
FREQUENCY = 5
HIDDEN = 0.4
LARGEST_ANGLE = 60.0
FACTORS = (1, 2, 4)


def _window(images: Tensor, draws: Draws) -> Tensor:
    """Mask ``(B, 1, H, W)`` of a square window inside the image, all places equally likely."""
    height, width = images.shape[2:]
    side = max(1, round(WINDOW * side_scale(height, width)))
    top = draws.integers(height - side + 1).reshape(-1, 1, 1)
    left = draws.integers(width - side + 1).reshape(-1, 1, 1)
    y, x = grid(height, width, images.device)
    return ((y >= top) & (y < top + side) & (x >= left) & (x < left + side))[:, None]


def focus(images: Tensor, draws: Draws) -> Tensor:
    """Sharp in a random window, blurred elsewhere with taps 1/4, 1/2, 1/4 (3x3), edges repeated.

    Wider images get the binomial taps whose deviation is as much larger as the image; smaller ones keep 3x3.
    """
    return torch.where(_window(images, draws), images, blur(images, _binomial(images), "edge"))


def _binomial(images: Tensor) -> list[float]:
    half = max(1, round(side_scale(*images.shape[2:]) ** 2))
    reach = half if half == 1 else min(half, math.ceil(3 * math.sqrt(half / 2)))
    taps = [math.comb(2 * half, half + i) / 4**half for i in range(-reach, reach + 1)]
    return [tap / math.fsum(taps) for tap in taps]


def occlusion(images: Tensor, draws: Draws) -> Tensor:
    """A random window set to 0."""
    return images.masked_fill(_window(images, draws), 0.0)


def resolution(images: Tensor, draws: Draws) -> Tensor:
    """Average-pooled by a factor of 1, 2 or 4, equally likely, and upsampled to blocks; the factor does not scale."""
    choice = draws.integers(len(FACTORS)).reshape(-1, 1, 1, 1)
    out = images
    for number, factor in enumerate(FACTORS):
        if factor > 1:
            out = torch.where(choice == number, _blocks(images, factor), out)
    return out


def _blocks(images: Tensor, factor: int) -> Tensor:
    height, width = images.shape[2:]
    rows, columns = -height % factor, -width % factor
    whole = pad(images, rows, columns, "edge")[:, :, rows:, columns:] if rows or columns else images
    cells = [(whole[:, :, i::factor, j::factor], 1.0 / factor**2) for i in range(factor) for j in range(factor)]
    pooled = weighted_sum(cells)
    return pooled.repeat_interleave(factor, 2).repeat_interleave(factor, 3)[:, :, :height, :width]


def perlin(images: Tensor, draws: Draws) -> Tensor:
    """The 40 % of the pixels with the lowest Perlin noise of 5 cells per side set to 0 (gradients of unit length)."""
    height, width = images.shape[2:]
    noise = perlin_noise(draws, height, width).flatten(1)
    hidden = int(HIDDEN * noise.shape[1])
    if hidden == 0:
        return images.clone()
    threshold = noise.kthvalue(hidden, dim=1, keepdim=True).values
    return images.masked_fill((noise <= threshold).reshape(-1, 1, height, width), 0.0)


def perlin_noise(draws: Draws, height: int, width: int) -> Tensor:
    """Perlin noise at the pixels' centres, ``(B, H, W)``, with the fade 6t^5 - 15t^4 + 10t^3."""
    along_x, along_y = draws.direction((FREQUENCY + 1, FREQUENCY + 1))

    def places(size: int) -> tuple[Tensor, Tensor]:
        # Divided on the CPU: a GPU multiplies by the reciprocal, which is another number for 28 pixels.
        place = ((torch.arange(size, dtype=torch.float32) + 0.5) * FREQUENCY / size).to(draws.device)
        cell = place.floor()
        return cell.long(), place - cell

    (row, down), (column, right) = places(height), places(width)

    def corner(dy: int, dx: int) -> Tensor:
        gy = along_y[:, row + dy][:, :, column + dx] * (down - dy)[None, :, None]
        gx = along_x[:, row + dy][:, :, column + dx] * (right - dx)[None, None, :]
        return gy + gx

    fade_y, fade_x = _fade(down)[None, :, None], _fade(right)[None, None, :]
    upper = corner(0, 0) * (1 - fade_x) + corner(0, 1) * fade_x
    lower = corner(1, 0) * (1 - fade_x) + corner(1, 1) * fade_x
    return upper * (1 - fade_y) + lower * fade_y


def _fade(t: Tensor) -> Tensor:
    return t * t * t * (t * (t * 6 - 15) + 10)


def translation(images: Tensor, draws: Draws) -> Tensor:
    """Shifted by a random walk over frames, one pixel up or down and left or right per frame, clipped to +-8, edges
    repeated.

    Frame 0 is uniform on the +-8 square, which is the walk's stationary law: so one held frame (persistent) is as
    far off as any later one.
    """
    height, width = images.shape[2:]
    walk = walk_position(draws)
    scale = side_scale(height, width)
    shift = (walk.float() * scale).round().long()
    y, x = grid(height, width, images.device)
    rows = (y - shift[:, 0, None, None]).clamp(0, height - 1).expand(-1, -1, width)
    columns = (x - shift[:, 1, None, None]).clamp(0, width - 1).expand(-1, height, -1)
    return gather_pixels(images, rows, columns)


def walk_position(draws: Draws) -> Tensor:
    """Vertical and horizontal offset of the walk at each image's frame, ``(B, 2)`` int64 in -8 .. 8."""
    position = draws.at_frame(0).integers(2 * LARGEST_SHIFT + 1, (2,)) - LARGEST_SHIFT
    last = int(draws.frame.max()) if len(draws) else 0
    for frame in range(1, last + 1):
        step = draws.at_frame(frame).integers(2, (2,)) * 2 - 1
        moved = (position + step).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
        position = torch.where((draws.frame >= frame)[:, None], moved, position)
    return position


def rotation(images: Tensor, draws: Draws) -> Tensor:
    """Rotated about the centre by an angle uniform on +-60 degrees, bilinear, edges repeated."""
    height, width = images.shape[2:]
    cos, sin = (part.reshape(-1, 1, 1) for part in draws.direction((), -LARGEST_ANGLE, LARGEST_ANGLE))
    y, x = grid(height, width, images.device)
    dy, dx = y - (height - 1) / 2, x - (width - 1) / 2
    return bilinear(images, cos * dy - sin * dx + (height - 1) / 2, sin * dy + cos * dx + (width - 1) / 2, "edge")
