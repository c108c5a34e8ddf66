"""Tasks: named, versioned, hashed image classification data with a fixed split. NumPy only; the device comes later.

A reader is a callable ``read(data_root: Path | None, argument: str) -> Task`` under the entry-point group
``anytime_bench.tasks``; ``argument`` is what follows the colon in names such as ``image_folder:PATH``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.registry import last_line, tasks
from anytime_bench.tasks.card import TaskCard

__all__ = [
    "Split",
    "Task",
    "TaskCard",
    "TaskReader",
    "load_task",
    "make_task",
    "remove_empty_folders",
    "split_validation",
]

#: The validation split is part of the task, not of the run: it never depends on a run's seed.
SPLIT_SEED = 20210


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


TaskReader = Callable[[Path | None, str], Task]


def load_task(name: str, data_root: str | Path | None = None) -> Task:
    """Read a task by name. ``data_root`` is where its files lie, for those that are not embedded."""
    family, _, argument = name.partition(":")
    reader, origin = tasks.get(family)
    try:
        task = reader(Path(data_root) if data_root is not None else None, argument)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task '{name}' of {origin} cannot be read: {last_line(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task '{name}' of {origin}: the reader must return a Task, got {type(task).__name__}.")
    return task


def split_validation(train: Split, share: float) -> tuple[Split, Split]:
    """The fixed split of the official training images into (train, validation), stratified by class."""
    rng = np.random.default_rng(SPLIT_SEED)
    held_out = np.zeros(len(train), dtype=bool)
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        held_out[rng.permutation(members)[: round(len(members) * share)]] = True
    return train.take(np.flatnonzero(~held_out)), train.take(np.flatnonzero(held_out))


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
    if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"task '{name}': expected {len(images)} {key} labels in 0..{classes - 1}.")


def _sha256(splits: Mapping[str, Split]) -> str:
    digest = hashlib.sha256()
    for key, split in splits.items():
        digest.update(f"{key}:{split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(split.labels.astype("<i8").data)
    return digest.hexdigest()


def remove_empty_folders(root: Path) -> None:
    """Remove ``root`` and what is below it as far as it is empty: what a failed download leaves behind."""
    if root.is_dir():
        for folder in [*sorted((p for p in root.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)), root]:
            if not any(folder.iterdir()):
                folder.rmdir()
