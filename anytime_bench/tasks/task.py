"""What a task is: its card (what methods build from and records quote), its splits and the checks on them. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError


@dataclass(frozen=True)
class TaskCard:
    """A classification task.

    ``shape`` is (channels, height, width) of every image; ``sizes`` the number of images per split (``train``,
    ``val``, ``test``); ``mean`` and ``std`` are per channel, on pixels scaled to [0, 1], and normalise what models
    see; ``sha256`` identifies the pixels, labels and split; ``version`` changes whenever any of them would.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    sizes: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    version: str = "1"
    sha256: str = ""
    source: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def chance(self) -> float:
        """Accuracy of a blind guess, 1/C: what the harness credits before the first exit."""
        return 1.0 / len(self.classes)


@dataclass(frozen=True)
class Split:
    """Images ``(N, D, H, W)`` uint8 and labels ``(N,)`` int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.integer]) -> Split:
        return Split(np.ascontiguousarray(self.images[index]), self.labels[index])


@dataclass(frozen=True)
class Task:
    """A card and the pixels it describes: splits ``train``, ``val``, ``test``."""

    card: TaskCard
    splits: Mapping[str, Split]


def make_task(
    name: str,
    title: str,
    classes: tuple[str, ...],
    train: Split,
    val: Split,
    test: Split,
    *,
    version: str = "1",
    source: str = "",
) -> Task:
    """Assemble a task: checks the splits, measures mean and deviation on ``train``, hashes pixels, labels and split."""
    if isinstance(classes, str) or not isinstance(classes, Sequence) or len(classes) < 2:
        raise UserError(f"task '{name}': expected the names of two or more classes, got {classes!r:.60}.")
    splits = {"train": train, "val": val, "test": test}
    for key, split in splits.items():
        _check_split(name, key, split, len(classes), train.images.shape[1:])
    channels = np.moveaxis(train.images, 1, 0).reshape(train.images.shape[1], -1)
    mean = channels.mean(axis=1, dtype=np.float64) / 255
    # In blocks, so that a large split is never held in float64 as a whole.
    square = np.array(
        [
            sum(float(np.square(part, dtype=np.float32).sum(dtype=np.float64)) for part in np.array_split(c, 64))
            for c in channels
        ]
    )
    std = np.sqrt(np.maximum(square / channels.shape[1] / 255**2 - mean**2, 1e-12))
    depth, height, width = (int(size) for size in train.images.shape[1:])
    card = TaskCard(
        name=name,
        title=title,
        classes=classes,
        shape=(depth, height, width),
        sizes={key: len(split) for key, split in splits.items()},
        mean=tuple(round(float(value), 6) for value in mean),
        std=tuple(round(float(value), 6) for value in std),
        version=version,
        source=source,
    )
    return Task(replace(card, sha256=_sha256(splits)), splits)


def _check_split(name: str, key: str, split: Split, classes: int, shape: tuple[int, ...]) -> None:
    images, labels = split.images, split.labels
    if len(labels) == 0:
        raise UserError(f"task '{name}': the {key} split is empty.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape or images.shape[1] not in (1, 3):
        raise UserError(
            f"task '{name}': expected {key} images of shape (N, 1 or 3, H, W) in uint8, like the training images; "
            f"got {images.shape} in {images.dtype}."
        )
    whole = labels.dtype.kind in "iub"
    if not whole or labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= classes:
        stated = f"{labels.min()}..{labels.max()}" if whole else str(labels.dtype)
        size = f"{len(labels)} in " if labels.shape != (len(images),) else ""
        raise UserError(f"task '{name}': expected {len(images)} {key} labels in 0..{classes - 1}, got {size}{stated}.")


def _sha256(splits: Mapping[str, Split]) -> str:
    digest = hashlib.sha256()
    for key, split in splits.items():
        digest.update(f"{key}:{split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(split.labels.astype("<i8").data)
    return digest.hexdigest()
