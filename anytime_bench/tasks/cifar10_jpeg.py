"""CIFAR-10 re-encoded as JPEG (quality about 75): 50,000 / 10,000 colour images, 32x32, a task of its own.

Never mixed with the official CIFAR-10: its pixels differ (about 30 dB PSNR). ``--data-root`` names the archive
``cifar10-jpeg75.tar.xz``, the folder it lies in, or the unpacked tree ``{train,test}/<class>/0000.jpg``.
Decoded pixels are kept under the user's cache folder, so that a sweep decodes once.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anytime_bench.errors import UserError
from anytime_bench.files import cached_arrays, file_sha256
from anytime_bench.tasks.loading import split_validation
from anytime_bench.tasks.task import Split, Task, make_task

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = "cifar10-jpeg75.tar.xz"
#: Of the files' bytes in the order of their names; the same for the archive and the unpacked tree.
TREE_SHA256 = "cab9d0dd9f093e7c0ce3d5bb14b7a8f156116071f97a80f383eafa3d736c4f5a"
PER_CLASS = {"train": 5_000, "test": 1_000}


def read(data_root: Path | None, argument: str) -> Task:
    """CIFAR-10 as JPEG of quality 75, 32x32 colour, 10 classes."""
    root = data_root if data_root is not None else Path("data")
    archive = root / ARCHIVE if root.is_dir() else root
    if (root / "train").is_dir() and (root / "test").is_dir():
        blobs = {f"{p.parts[-3]}/{p.parts[-2]}/{p.name}": p.read_bytes() for p in root.glob("t*/*/*.jpg")}
        splits = _splits(blobs, root)
    elif archive.is_file():
        splits = _from_archive(archive)
    else:
        raise UserError(
            f"cifar10_jpeg: '{root}' is neither {ARCHIVE} nor a folder that holds it or its train/ and test/. "
            "Give the archive's path with --data-root."
        )
    train, val = split_validation(splits["train"], 0.1)
    return make_task(
        "cifar10_jpeg", "CIFAR-10 (JPEG-75)", CLASSES, train, val, splits["test"], source="CIFAR-10 as JPEG, quality 75"
    )


def _from_archive(archive: Path) -> dict[str, Split]:
    arrays = cached_arrays(f"cifar10_jpeg {file_sha256(archive)}", lambda: _decoded(archive))
    return {key: Split(arrays[f"{key}_images"], arrays[f"{key}_labels"]) for key in PER_CLASS}


def _decoded(archive: Path) -> dict[str, NDArray[Any]]:
    blobs = {}
    try:
        with tarfile.open(archive, "r:xz") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(".jpg") else None
                if content is not None:
                    blobs[member.name.removeprefix("./")] = content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise UserError(
            f"cifar10_jpeg: '{archive}' is truncated or damaged ({error}). Copy {ARCHIVE} again."
        ) from error
    splits = _splits(blobs, archive)
    return {f"{key}_{part}": getattr(split, part) for key, split in splits.items() for part in ("images", "labels")}


def _splits(blobs: dict[str, bytes], source: Path) -> dict[str, Split]:
    digest = hashlib.sha256()
    for name in sorted(blobs):
        digest.update(name.encode() + b"\0" + blobs[name])
    expected = len(CLASSES) * sum(PER_CLASS.values())
    if digest.hexdigest() != TREE_SHA256:
        raise UserError(
            f"cifar10_jpeg: the JPEG files in '{source}' are not the expected ones: {len(blobs):,} of {expected:,} "
            f"files, SHA-256 {digest.hexdigest()[:16]}... instead of {TREE_SHA256[:16]}.... Copy {ARCHIVE} again."
        )
    splits = {}
    for key, count in PER_CLASS.items():
        images = np.empty((len(CLASSES) * count, 3, 32, 32), dtype=np.uint8)
        labels = np.repeat(np.arange(len(CLASSES), dtype=np.int64), count)
        for row, label in enumerate(labels):
            name = f"{key}/{CLASSES[label]}/{row % count:04d}.jpg"
            images[row] = np.moveaxis(np.asarray(Image.open(io.BytesIO(blobs[name])).convert("RGB")), 2, 0)
        splits[key] = Split(images, labels)
    return splits
