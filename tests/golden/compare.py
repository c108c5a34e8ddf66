"""What the tests of golden vectors share: reading them, comparing at 1e-9, and the inputs they were made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def vectors(name: str) -> Any:
    """The arrays of ``name``.npz."""
    return np.load(Path(__file__).parent / f"{name}.npz", allow_pickle=False)


def close(ours: Tensor | NDArray[np.float64], golden: NDArray[np.float64], tolerance: float = 1e-9) -> None:
    """At ``tolerance`` relative to the largest golden magnitude."""
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    assert ours.shape == golden.shape
    assert np.abs(ours - golden).max() <= tolerance * np.abs(golden).max()


def eval_images() -> Tensor:
    """Images ``(2, 3, 32, 32)`` of the vectors in eval mode."""
    return torch.from_numpy(np.random.RandomState(7).standard_normal((2, 3, 32, 32)))


def train_batch() -> tuple[Tensor, Tensor]:
    """Images ``(4, 3, 32, 32)`` and targets of the vectors in training mode; the order of the draws matters."""
    draw = np.random.RandomState(11)
    return torch.from_numpy(draw.standard_normal((4, 3, 32, 32))), torch.from_numpy(draw.randint(0, 10, size=4))
