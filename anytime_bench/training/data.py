"""A split as tensors on the device: uint8 at rest, normalised floats in batches, augmented in batch. No workers.

Everything random is drawn on the CPU from a generator seeded by (seed, epoch), so that any device sees the same
order and the same crops, and a resumed run repeats an epoch exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anytime_bench.tasks.task import Split, TaskCard
from anytime_bench.training.config import AugmentConfig


@dataclass(frozen=True)
class DeviceSplit:
    """Images ``(N, D, H, W)`` uint8 and labels ``(N,)`` int64 on one device, with the task's normalisation."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def place(cls, split: Split, card: TaskCard, device: torch.device | str) -> DeviceSplit:
        per_channel = [
            torch.tensor(v, dtype=torch.float32, device=device).view(1, -1, 1, 1) for v in (card.mean, card.std)
        ]
        return cls(torch.tensor(split.images).to(device), torch.tensor(split.labels).to(device), *per_channel)

    def __len__(self) -> int:
        return len(self.labels)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 ``(B, D, H, W)`` to float32 with the task's mean 0 and deviation 1."""
        return (images.float() / 255 - self.mean) / self.std

    def normalised(self, start: int = 0, stop: int | None = None) -> Tensor:
        return self.normalise(self.images[start:stop])

    def first(self, count: int) -> DeviceSplit:
        """The first ``count`` images, or all of them where ``count`` is 0 or larger than the split."""
        if count <= 0 or count >= len(self):
            return self
        return DeviceSplit(self.images[:count], self.labels[:count], self.mean, self.std)

    def sample(self, count: int) -> DeviceSplit:
        """``count`` images, the same ones in every run, or all of them where ``count`` is 0 or larger than the split.

        Evenly spaced and then shuffled: a task may store one class after the other, and its first images would then
        be of one class.
        """
        if count <= 0 or count >= len(self):
            return self
        spaced = torch.arange(count) * len(self) // count
        index = spaced[torch.randperm(count, generator=torch.Generator().manual_seed(0))].to(self.images.device)
        return DeviceSplit(self.images[index], self.labels[index], self.mean, self.std)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            yield self.normalised(start, stop), self.labels[start:stop]

    def shuffled(
        self, batch_size: int, augment: AugmentConfig, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented training batches; a last batch of one image joins the batch before it.

        A batch of one would leave batch normalisation without a variance on 1x1 maps.
        """
        order = torch.randperm(len(self), generator=generator)
        starts = list(range(0, len(self), batch_size))
        if batch_size > 1 and len(starts) > 1 and len(self) - starts[-1] == 1:
            starts.pop()
        for i, start in enumerate(starts):
            stop = starts[i + 1] if i + 1 < len(starts) else len(self)
            index = order[start:stop].to(self.images.device)
            images = self.normalise(self.images[index])
            yield apply_augmentation(images, augment, generator), self.labels[index]

    def steps_per_epoch(self, batch_size: int) -> int:
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))


def apply_augmentation(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Random crop, flip and square occlusion of normalised ``images (B, D, H, W)``, one draw per image."""
    batch, _, height, width = images.shape
    device = images.device
    if config.crop_padding:
        pad = config.crop_padding
        shift = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=generator).to(device)
        if config.crop_mode == "constant":
            # Black lies below 0 after normalisation; each image's own minimum stands for it.
            low = images.amin(dim=(1, 2, 3), keepdim=True)
            padded = F.pad(images - low, (pad,) * 4) + low
        else:
            padded = F.pad(images, (pad,) * 4, mode=config.crop_mode)
        rows = (torch.arange(height, device=device) + shift[0])[:, None, :, None]
        columns = (torch.arange(width, device=device) + shift[1])[:, None, None, :]
        each = torch.arange(batch, device=device)[:, None, None, None]
        channels = torch.arange(images.shape[1], device=device)[None, :, None, None]
        images = padded[each, channels, rows, columns]
    if config.flip:
        flip = (torch.rand(batch, generator=generator) < 0.5).to(device)
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    if config.occlusion:
        size = config.occlusion
        corner = torch.rand(2, batch, 1, generator=generator).to(device)
        top = (corner[0] * max(height - size + 1, 1)).long()
        left = (corner[1] * max(width - size + 1, 1)).long()
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        hidden = ((rows >= top) & (rows < top + size))[:, :, None] & ((columns >= left) & (columns < left + size))[
            :, None
        ]
        images = images.masked_fill(hidden[:, None], 0.0)
    return images


def seeded(*parts: int) -> torch.Generator:
    """A CPU generator for the given integers (seed, epoch, purpose, ...); distinct parts give distinct streams."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        # splitmix64, so that neighbouring seeds share nothing
        state = (state + (part + 1) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFFFFFFFFFFFFFF)
