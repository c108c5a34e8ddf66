"""Noise that falls on each pixel alone: Gaussian, shot and impulse. Pixels ``(B, D, H, W)`` on the 8-bit grid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy import special
from torch import Tensor

from anytime_bench.corruptions.draws import Draws


def gaussian_noise(pixels: Tensor, draws: Draws, sigma: float) -> Tensor:
    """x + sigma n, clipped, n standard normal per channel."""
    return (pixels + draws.normal(pixels.shape[1:]).mul_(sigma)).clamp_(0, 1)


def shot_noise(pixels: Tensor, draws: Draws, photons: float) -> Tensor:
    """Poisson(photons x) / photons, clipped: each count is the quantile, at a uniform draw, of its own distribution."""
    cumulative, counts = _poisson(photons, str(pixels.device))
    level = (pixels * 255).round_().long()
    # One search for all 256 distributions: level v owns the stretch [v, v + 1) of one increasing table.
    place = torch.searchsorted(cumulative, draws.uniform(pixels.shape[1:]).double() + level, right=True)
    count = place - level * counts
    return (count.clamp_(0, counts - 1).float() * (1 / photons)).clamp_(0, 1)


@lru_cache(maxsize=16)
def _poisson(photons: float, device: str) -> tuple[Tensor, int]:
    """v + P(count <= n) for v = 0 .. 255 and every n that can matter, flattened; and the number of n."""
    counts = int(photons + 8 * photons**0.5 + 16)
    table = special.pdtr(np.arange(counts)[None], photons * np.arange(256)[:, None] / 255)
    table = np.minimum(table, 1.0) + np.arange(256)[:, None]
    return torch.from_numpy(table.ravel()).to(device), counts


def impulse_noise(pixels: Tensor, draws: Draws, amount: float) -> Tensor:
    """A share ``amount`` of the values set to 0 or 1, equally likely, channel by channel."""
    u = draws.uniform(pixels.shape[1:])
    pixels = torch.where(u < amount, 0.0, pixels)
    return torch.where(u < amount / 2, 1.0, pixels)
