"""Loading a task by name, and the fixed validation split. NumPy only; the device comes later.

A reader is a callable ``read(data_root: Path | None, argument: str) -> Task`` under the entry-point group
``anytime_bench.tasks``; ``argument`` is what follows the colon in names such as ``image_folder:PATH``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from anytime_bench.errors import UserError, describe
from anytime_bench.registry import tasks
from anytime_bench.tasks.task import Split, Task

#: The validation split is part of the task, not of the run: it never depends on a run's seed.
SPLIT_SEED = 20210


TaskReader = Callable[[Path | None, str], Task]


def register_task(name: str, read: TaskReader) -> TaskReader:
    """Add a task of one's own: ``read(data_root, argument)`` returns a ``Task``; a taken name raises ``UserError``."""
    tasks.add(name, read)
    return read


def load_task(name: str, data_root: str | Path | None = None) -> Task:
    """Read a task by name. ``data_root`` is where its files lie, for those that are not embedded."""
    family, _, argument = name.partition(":")
    reader, origin = tasks.resolve(family)
    try:
        task = reader(Path(data_root) if data_root is not None else None, argument)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task '{name}' of {origin} cannot be read: {describe(error)}") from error
    if not isinstance(task, Task):
        raise UserError(f"task '{name}' of {origin}: the reader must return a Task, got {type(task).__name__}.")
    if task.card.name.partition(":")[0] != family:
        raise UserError(
            f"task '{name}' of {origin}: the reader's task is named '{task.card.name}', expected '{family}': a "
            "record's task is read again by its name. Give both one name."
        )
    return task


def split_validation(train: Split, share: float) -> tuple[Split, Split]:
    """The fixed split of the official training images into (train, validation), stratified by class."""
    rng = np.random.default_rng(SPLIT_SEED)
    held_out = np.zeros(len(train), dtype=bool)
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        held_out[rng.permutation(members)[: round(len(members) * share)]] = True
    return train.take(np.flatnonzero(~held_out)), train.take(np.flatnonzero(held_out))


def remove_empty_folders(root: Path) -> None:
    """Remove ``root`` and what is below it as far as it is empty: what a failed download leaves behind."""
    if root.is_dir():
        for folder in [*sorted((p for p in root.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)), root]:
            if not any(folder.iterdir()):
                folder.rmdir()
