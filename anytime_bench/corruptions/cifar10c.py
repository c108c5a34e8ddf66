"""The official CIFAR-10-C files, where the user has them: ``<data root>/CIFAR-10-C/<kind>.npy`` and ``labels.npy``.

Each file holds the 10,000 test images five times over, severity 1 first: ``(50000, 32, 32, 3)`` uint8, in the order of
CIFAR-10's test split (Hendrycks and Dietterich 2019, https://zenodo.org/records/2535967). The files are memory-mapped.
They hold one draw per image, so they serve persistent noise only; frost exists in this form alone.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError, did_you_mean

FOLDER = "CIFAR-10-C"
SEVERITIES = 5
IMAGES = 10_000
SHAPE = (32, 32, 3)


class OfficialFiles:
    """The kinds found under one data root; ``UserError`` if there are none."""

    def __init__(self, data_root: Path | str) -> None:
        self.folder = Path(data_root) / FOLDER
        self.kinds = tuple(sorted(path.stem for path in self.folder.glob("*.npy") if path.stem != "labels"))
        if not self.kinds:
            raise UserError(f"no CIFAR-10-C files: expected <kind>.npy in {self.folder}. Unpack CIFAR-10-C.tar there.")

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Labels of the 10,000 images, ``(10000,)``; the file must repeat them for every severity."""
        labels = _open(self.folder / "labels.npy", (SEVERITIES * IMAGES,), ("int64", "uint8"))
        rows = np.asarray(labels).reshape(SEVERITIES, IMAGES)
        if not (rows == rows[0]).all() or rows.max() > 9 or rows.min() < 0:
            raise UserError(f"{self.folder / 'labels.npy'}: expected the same 10,000 labels 0..9 for every severity.")
        first: NDArray[np.uint8] = rows[0].astype(np.uint8)
        return first

    def images(self, kind: str, severity: int, start: int = 0, stop: int = IMAGES) -> NDArray[np.uint8]:
        """Images ``start`` to ``stop`` of one kind and severity, ``(B, 3, 32, 32)`` uint8."""
        if kind not in self.kinds:
            raise UserError(f"no CIFAR-10-C file for '{kind}' in {self.folder}.{did_you_mean(kind, self.kinds)}")
        if isinstance(severity, bool) or severity not in range(1, SEVERITIES + 1):
            raise UserError(f"severity of '{kind}': expected an integer from 1 to {SEVERITIES}, got {severity!r}.")
        pixels = _open(self.folder / f"{kind}.npy", (SEVERITIES * IMAGES, *SHAPE), ("uint8",))
        first = (severity - 1) * IMAGES
        return np.ascontiguousarray(pixels[first + start : first + min(stop, IMAGES)].transpose(0, 3, 1, 2))


def _open(path: Path, shape: tuple[int, ...], allowed: tuple[str, ...]) -> NDArray[np.uint8]:
    if not path.is_file():
        raise UserError(f"{path} does not exist. CIFAR-10-C needs it.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is not a readable .npy file: {error}") from error
    if array.shape != shape or str(array.dtype) not in allowed:
        raise UserError(
            f"{path}: expected shape {shape} of {allowed[-1]}, got {array.shape} of {array.dtype}. Fetch it again."
        )
    return array
