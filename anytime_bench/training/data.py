"""A split as tensors on the device: uint8 at rest, normalised floats in batches, augmented in batch. No workers.

Everything random is drawn on the CPU from a generator seeded by (seed, epoch), so that any device sees the same
order and the same crops, and a resumed run repeats an epoch exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from anytime_bench.tasks.task import Split, TaskCard
from anytime_bench.training.config import AugmentConfig

#: A split larger than this share of a GPU's free memory stays on the host and moves batch by batch, pinned on the way.
DEVICE_SHARE = 0.25


@dataclass(frozen=True)
class DeviceSplit:
    """Images ``(N, D, H, W)`` uint8 and labels ``(N,)`` int64 for one device, with the task's normalisation.

    Normally all of it lies on ``device``; a split too large for it stays where it was read, on the host.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def place(cls, split: Split, card: TaskCard, device: torch.device | str) -> DeviceSplit:
        """Put ``split`` on ``device``, or leave it where it is if it exceeds ``DEVICE_SHARE`` of the free memory."""
        device = torch.device(device)
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=device).view(1, -1, 1, 1) for v in (card.mean, card.std)
        )
        if stays_on_host(split.images.nbytes, device):
            return cls(torch.from_numpy(split.images), torch.tensor(split.labels).to(device), mean, std)
        return cls(torch.tensor(split.images).to(device), torch.tensor(split.labels).to(device), mean, std)

    @property
    def device(self) -> torch.device:
        """Where batches come out."""
        return self.mean.device

    def __len__(self) -> int:
        return len(self.labels)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 ``(B, D, H, W)`` to float32 on ``device`` with the task's mean 0 and deviation 1."""
        if images.device != self.device:
            images = _sent(images, self.device)
        return (images.float() * (1 / 255) - self.mean) / self.std

    def normalised(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Images ``start`` to ``stop``, normalised."""
        return self.normalise(self.images[start:stop])

    def pick(self, index: Tensor) -> Tensor:
        """Images ``index (B,)`` as uint8, on the device or, where the split is not, on the host."""
        if self.images.device == self.device:
            return self.images[index.to(self.device)]
        return self.images[index.cpu()]

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
        index = spaced[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
        return DeviceSplit(self.pick(index), self.labels[index.to(self.labels.device)], self.mean, self.std)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            yield self.normalised(start, stop), self.labels[start:stop]

    def shuffled(
        self, batch_size: int, augment: AugmentConfig, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of augmented training batches; a last batch of one image joins the batch before it.

        A batch of one would leave batch normalisation without a variance on 1x1 maps. Everything random is drawn
        before the first batch and copied at once, so that no batch waits for the host.
        """
        order = torch.randperm(len(self), generator=generator)
        draws = AugmentationDraws.make(len(self), self.images.shape[2:], augment, generator).to(self.device)
        on_device = order if self.images.device != self.device else _sent(order, self.device)
        targets = self.labels[_sent(order, self.labels.device)]
        starts = list(range(0, len(self), batch_size))
        if batch_size > 1 and len(starts) > 1 and len(self) - starts[-1] == 1:
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], len(self)], strict=True):
            images = self.normalise(self.pick(on_device[start:stop]))
            yield augmented(images, augment, draws.part(start, stop)), targets[start:stop]

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches that ``shuffled`` yields."""
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))


@dataclass(frozen=True)
class Normalised:
    """Images of a split ``(N, D, H, W)``, normalised where they are asked for: a large split never is as a whole."""

    split: DeviceSplit

    @property
    def device(self) -> torch.device:
        return self.split.device

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        if isinstance(index, Tensor):
            return self.split.normalise(self.split.pick(index))
        if isinstance(index, slice):
            return self.split.normalise(self.split.images[index])
        return self.split.normalise(self.split.images[index][None])[0]


def stays_on_host(size: int, device: torch.device) -> bool:
    """Whether images of ``size`` bytes are more than ``DEVICE_SHARE`` of the free memory of a GPU ``device``."""
    return device.type == "cuda" and size > DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]


@dataclass(frozen=True)
class AugmentationDraws:
    """What is random about an epoch's augmentation, one row per image in the epoch's order.

    ``shift (N, 2)`` int64 crop offsets, ``flip (N,)`` bool, ``corner (N, 2)`` int64 upper left of the occlusion.
    """

    shift: Tensor
    flip: Tensor
    corner: Tensor

    @classmethod
    def make(cls, count: int, size: Sequence[int], config: AugmentConfig, generator: torch.Generator) -> Self:
        """Draw for ``count`` images of ``size`` (height, width)."""
        shift = torch.randint(0, 2 * config.crop_padding + 1, (count, 2), generator=generator)
        flip = torch.rand(count, generator=generator) < 0.5
        room = torch.tensor([max(side - config.occlusion + 1, 1) for side in size])
        corner = (torch.rand(count, 2, generator=generator) * room).long()
        return cls(shift, flip, corner)

    def to(self, device: torch.device) -> Self:
        """The same draws on ``device``, copied without waiting."""
        return type(self)(*(_sent(part, device) for part in (self.shift, self.flip, self.corner)))

    def part(self, start: int, stop: int) -> Self:
        """The draws of images ``start`` to ``stop``."""
        return type(self)(self.shift[start:stop], self.flip[start:stop], self.corner[start:stop])


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; towards a GPU from pinned memory, without waiting."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def augmented(images: Tensor, config: AugmentConfig, draws: AugmentationDraws) -> Tensor:
    """Random crop, flip and square occlusion of normalised ``images (B, D, H, W)``, one draw per image."""
    batch, channels, height, width = images.shape
    device = images.device
    if config.crop_padding:
        pad = config.crop_padding
        if config.crop_mode == "constant":
            # Black lies below 0 after normalisation; each image's own minimum stands for it.
            low = images.amin(dim=(1, 2, 3), keepdim=True)
            padded = F.pad(images - low, (pad,) * 4) + low
        else:
            padded = F.pad(images, (pad,) * 4, mode=config.crop_mode)
        rows = (torch.arange(height, device=device) + draws.shift[:, :1])[:, None, :, None]
        columns = (torch.arange(width, device=device) + draws.shift[:, 1:])[:, None, None, :]
        each = torch.arange(batch, device=device)[:, None, None, None]
        images = padded[each, torch.arange(channels, device=device)[None, :, None, None], rows, columns]
    if config.flip:
        images = torch.where(draws.flip[:, None, None, None], images.flip(-1), images)
    if config.occlusion:
        top, left = draws.corner[:, :1], draws.corner[:, 1:]
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        inside_rows = (rows >= top) & (rows < top + config.occlusion)  # (B, H)
        inside_columns = (columns >= left) & (columns < left + config.occlusion)  # (B, W)
        images = images.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :])[:, None], 0.0)
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
