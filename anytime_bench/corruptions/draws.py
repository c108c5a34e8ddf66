"""Random draws that depend on (seed, kind, image, frame) and on nothing else.

A counter-based generator: the n-th 64-bit word of an image is a hash of its key and n (the output function of
SplitMix64: Steele, Lea, Flood 2014), so that images are drawn in any order, in batches of any size, on any device,
with any number of threads, and come out the same. The mixing is written in ``int64`` tensor arithmetic, which wraps
modulo 2^64. Normals, cosines and sines come from tables of 2^16 entries rather than from the device's mathematical
functions, whose last bit differs between vector lanes and remainders, and between devices.

Shapes: keys and all leading dimensions are ``(B,)``; ``uniform((h, w))`` is ``(B, h, w)`` in float32.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

#: Entries of the tables of normals and angles; a 32-bit lane holds a radius and an angle of 16 bits each.
TABLE = 1 << 16
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Logical right shift; that of int64 tensors is arithmetic."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def mix(words: Tensor) -> Tensor:
    """SplitMix64's output function on int64 tensors; a bijection of the 2^64 words."""
    words = (words ^ _shifted(words, 30)).mul_(_signed(_FIRST))
    words = words.bitwise_xor_(_shifted(words, 27)).mul_(_signed(_SECOND))
    return words.bitwise_xor_(_shifted(words, 31))


@lru_cache(maxsize=8)
def _table(name: str, device: str) -> Tensor:
    steps = (np.arange(TABLE, dtype=np.float64) + 0.5) / TABLE
    values = {
        "radius": lambda: np.sqrt(-2 * np.log(steps)),
        "cos": lambda: np.cos(2 * math.pi * steps),
        "sin": lambda: np.sin(2 * math.pi * steps),
    }[name]()
    return torch.from_numpy(values.astype(np.float32)).to(device)


class Draws:
    """The stream of random numbers of a batch of images, each with its own frame.

    ``index`` and ``frame`` are ``(B,)`` int64. Each call continues the stream. ``at_frame(f)`` starts the stream
    of another frame of the same images, for kinds whose frames hang together.
    """

    def __init__(self, seed: int, kind: str, index: Tensor, frame: Tensor) -> None:
        self.seed, self.kind, self.index, self.frame = seed, kind, index, frame
        word = _signed((seed * _GOLDEN + zlib.crc32(kind.encode())) % (1 << 64))
        self.keys = mix(mix(mix(torch.full_like(index, word)) ^ index) ^ frame)
        self._drawn = 0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        return self.index.device

    def at_frame(self, frame: int) -> Draws:
        return Draws(self.seed, self.kind, self.index, torch.full_like(self.frame, frame))

    def _lanes(self, count: int) -> Tensor:
        """``count`` 32-bit integers per image, ``(B, count)`` int64."""
        words = (count + 1) // 2
        counter = torch.arange(self._drawn + 1, self._drawn + words + 1, device=self.device)
        self._drawn += words
        # The product wraps; splitmix64 walks its state in steps of the golden ratio.
        mixed = mix(self.keys[:, None] + counter[None] * _signed(_GOLDEN))
        lanes = torch.stack([_shifted(mixed, 32), mixed.bitwise_and_((1 << 32) - 1)], dim=2)
        return lanes.flatten(1)[:, :count]

    def uniform(self, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform on [low, high), ``(B, *shape)`` float32, on a grid of 2^24 values."""
        unit = (self._lanes(math.prod(shape)) >> 8).float().mul_(2.0**-24)
        if (low, high) != (0.0, 1.0):
            unit = unit.mul_(high - low).add_(low)
        return unit.reshape(len(self), *shape)

    def integers(self, below: int, shape: Sequence[int] = ()) -> Tensor:
        """Integers 0 .. below - 1, ``(B, *shape)`` int64."""
        return ((self._lanes(math.prod(shape)) * below) >> 32).reshape(len(self), *shape)

    def normal(self, shape: Sequence[int] = ()) -> Tensor:
        """Standard normals, ``(B, *shape)`` float32: Box and Muller's pairs from tables, cut at 4.9 deviations."""
        count = math.prod(shape)
        lanes = self._lanes((count + 1) // 2)
        radius = self._look_up("radius", lanes >> 16)
        angle = lanes.bitwise_and(TABLE - 1)
        pairs = torch.stack([self._look_up("cos", angle).mul_(radius), self._look_up("sin", angle).mul_(radius)], dim=2)
        return pairs.flatten(1)[:, :count].reshape(len(self), *shape)

    def direction(self, shape: Sequence[int] = (), low: float = 0, high: float = 360) -> tuple[Tensor, Tensor]:
        """(cosine, sine) of angles uniform between two bounds in degrees, each ``(B, *shape)`` float32."""
        first = math.floor(low / 360 * TABLE)
        entries = math.floor(high / 360 * TABLE) - first
        angle = (self.integers(entries, shape) + first).bitwise_and_(TABLE - 1)
        return self._look_up("cos", angle), self._look_up("sin", angle)

    def _look_up(self, name: str, index: Tensor) -> Tensor:
        return torch.take(_table(name, str(self.device)), index)
