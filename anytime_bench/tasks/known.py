"""What the suite's own tasks hold, by hash: a record that names one of them was made on these images and labels.

The hash of a task's data is ``task.sha256`` of a card; ``labels`` are SHA-256 of a split's labels as little-endian
int64, which a record's trace holds too. A task that nobody here has read (the official CIFAR files, Tiny-ImageNet,
folders of one's own) is not in the table, and nothing is known of its data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class KnownTask:
    """One version of a task: the hash of its data, and the hash of the labels of its validation and test split."""

    version: str
    sha256: str
    classes: int
    shape: tuple[int, int, int]
    sizes: Mapping[str, int]
    labels: Mapping[str, str]


KNOWN: dict[str, KnownTask] = {
    "digits": KnownTask(
        "1",
        "e62eb1ad4f24974b193a06d1d8831fd85e10b5210b8498481e1f299f4eed85b1",
        10,
        (1, 8, 8),
        {"train": 1078, "val": 269, "test": 450},
        {
            "val": "2a92d213d76998fd49bdfe8640caea9b4f83997a297242bc50bff17faa0a75a2",
            "test": "4592c21070ef60eadf3c50b5e25e7458c02d1af857e9ea6017ba642382325a17",
        },
    ),
    "fashion_mnist": KnownTask(
        "1",
        "d9eb6673816e54441ff020ab256b87683603fcdec1730cfc370633ae24c70d38",
        10,
        (1, 28, 28),
        {"train": 55_000, "val": 5_000, "test": 10_000},
        {
            "val": "9566b70307409dbfde95ecf9c379d9c1e0d60558041ce9841db70f752b58e4a8",
            "test": "d51d859896c55775b9e9e219b77ff03bcec1b6ac322f313544dc3f9e7bc94fae",
        },
    ),
    "cifar10_jpeg": KnownTask(
        "1",
        "9cbd2c7bf310caaf7c69d44509f70f9bda85db56dacca41a090c690070885131",
        10,
        (3, 32, 32),
        {"train": 45_000, "val": 5_000, "test": 10_000},
        {
            "val": "c3556f4a243d7dc7c1fb41d5302fb5050146cd15b4b1e72e41d57339c79a1367",
            "test": "c5575395e636cadcdfe5764ffc8d56f56d234a4dc687096f8fc2d975dd6a5597",
        },
    ),
}


def labels_sha256(labels: NDArray[Any]) -> str:
    """The hash by which ``KnownTask.labels`` names the labels of a split, whatever integer type holds them."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()
