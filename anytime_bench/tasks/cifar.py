"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 50,000 / 10,000 colour images, 32x32, official files by torchvision.

45,000 / 5,000 / 10,000 after the fixed validation split, as in the cascade paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anytime_bench.errors import UserError
from anytime_bench.tasks.loading import remove_empty_folders, split_validation
from anytime_bench.tasks.task import Split, Task, make_task


def read_cifar10(data_root: Path | None, argument: str) -> Task:
    """CIFAR-10, 32x32 colour, 10 classes."""
    return _read("cifar10", "CIFAR-10", "CIFAR10", data_root)


def read_cifar100(data_root: Path | None, argument: str) -> Task:
    """CIFAR-100, 32x32 colour, 100 classes."""
    return _read("cifar100", "CIFAR-100", "CIFAR100", data_root)


def _read(name: str, title: str, dataset: str, data_root: Path | None) -> Task:
    import torchvision.datasets

    root = data_root if data_root is not None else Path("data")
    reader = getattr(torchvision.datasets, dataset)
    splits = [_load(name, reader, root, train) for train in (True, False)]
    official, test = (
        Split(np.ascontiguousarray(np.moveaxis(part.data, 3, 1)), np.asarray(part.targets, dtype=np.int64))
        for part in splits
    )
    train, val = split_validation(official, 0.1)
    return make_task(name, title, tuple(splits[0].classes), train, val, test, source="official python batches")


def _load(name: str, reader: Any, root: Path, train: bool) -> Any:
    """torchvision checks the official MD5 of each file; its download is tried where files are missing."""
    where = f"'{root / reader.base_folder}'"
    try:
        return reader(str(root), train=train, download=False)
    except Exception as found:
        if (root / reader.base_folder).exists():
            raise UserError(
                f"{name}: the files in {where} are missing, truncated or altered ({found}). Expected the official "
                f"files of {reader.filename} with torchvision's checksums; remove the folder and fetch it again."
            ) from found
    try:
        return reader(str(root), train=train, download=True)
    except Exception as error:
        remove_empty_folders(root)
        raise UserError(
            f"{name}: no files in {where}, and torchvision's download failed ({error}). Put the official "
            f"{reader.filename} there, unpacked, or give its parent folder with --data-root."
        ) from error
