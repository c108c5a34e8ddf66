"""The embedded default: scikit-learn's 1,797 handwritten digits, 8x8 grey (UCI, Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anytime_bench.tasks.loading import split_validation
from anytime_bench.tasks.task import Split, Task, make_task


def read(data_root: Path | None, argument: str) -> Task:
    """Digits, 8x8 grey, 10 classes: comes with scikit-learn.

    The set has no official test split here: a fixed, seeded, stratified 60/15/25 split is part of the task.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Grey values are 0..16; scaled so that white is 255.
    images = np.round(bunch.images[:, None] * (255 / 16)).astype(np.uint8)
    everything = Split(images, bunch.target.astype(np.int64))
    rest, test = split_validation(everything, 0.25)
    train, val = split_validation(rest, 0.2)
    classes = tuple(str(digit) for digit in range(10))
    return make_task("digits", "Digits (8x8)", classes, train, val, test, source="scikit-learn, load_digits")
