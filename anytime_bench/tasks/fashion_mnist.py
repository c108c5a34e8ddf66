"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 / 10,000 grey images, 28x28, from the official idx files.

Looked for in ``--data-root``, then where Debian's package ``dataset-fashion-mnist`` puts them; where neither has
them, ``--data-root DIR`` with torchvision's layout (``DIR/FashionMNIST/raw``) is filled by torchvision's download.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.tasks.loading import remove_empty_folders, split_validation
from anytime_bench.tasks.task import Split, Task, make_task

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
#: Per idx file: SHA-256 of the uncompressed bytes as Debian packages them, and MD5 of the official .gz.
FILES = {
    "train-images-idx3-ubyte": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    "train-labels-idx1-ubyte": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "25c81989df183df01b3e8a0aad5dffbe",
    ),
    "t10k-images-idx3-ubyte": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "bef4ecab320f06d8554ea6380940ec79",
    ),
    "t10k-labels-idx1-ubyte": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
}


def read(data_root: Path | None, argument: str) -> Task:
    """Fashion-MNIST, 28x28 grey, 10 classes."""
    folder = _folder(data_root)
    arrays = {name: _read_idx(folder, name) for name in FILES}
    official = Split(arrays["train-images-idx3-ubyte"][:, None], arrays["train-labels-idx1-ubyte"].astype(np.int64))
    test = Split(arrays["t10k-images-idx3-ubyte"][:, None], arrays["t10k-labels-idx1-ubyte"].astype(np.int64))
    train, val = split_validation(official, 1 / 12)
    return make_task("fashion_mnist", "Fashion-MNIST", CLASSES, train, val, test, source="official idx files")


def _folder(data_root: Path | None) -> Path:
    tried = []
    for folder in [data_root, data_root and data_root / "FashionMNIST" / "raw"] if data_root else [DEBIAN]:
        if folder is not None and any((folder / f"{name}{end}").exists() for name in FILES for end in (".gz", "")):
            return folder
        tried.append(str(folder))
    if data_root is not None:
        try:
            from torchvision.datasets import FashionMNIST

            FashionMNIST(str(data_root), download=True)
            return data_root / "FashionMNIST" / "raw"
        except Exception as error:
            remove_empty_folders(data_root)
            tried.append(f"torchvision's download ({error})")
    raise UserError(
        f"fashion_mnist: the idx files were not found in {', '.join(tried)}. Install Debian's dataset-fashion-mnist, "
        "or give the folder that holds train-images-idx3-ubyte.gz and its three companions with --data-root."
    )


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """One idx file, gzipped or not: magic number, sizes (big-endian), then bytes."""
    sha256, official_md5 = FILES[name]
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.exists()), None)
    if path is None:
        raise UserError(f"fashion_mnist: '{folder / name}.gz' is missing. It is one of the four official files.")
    try:
        stored = path.read_bytes()
        data = gzip.decompress(stored) if path.suffix == ".gz" else stored
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"fashion_mnist: '{path}' is truncated or damaged ({error}). Fetch the official file."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256 and hashlib.md5(stored).hexdigest() != official_md5:
        raise UserError(
            f"fashion_mnist: '{path}' is not the official file: expected SHA-256 {sha256[:16]}... of the uncompressed "
            f"bytes, got {digest[:16]}.... Fetch it anew from Debian's dataset-fashion-mnist or by torchvision."
        )
    dimensions = data[3]
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
