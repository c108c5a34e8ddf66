"""From a trained model to logits, in accuracy mode: ``eval``, batched ``forward``, every exit of every image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.training.data import DeviceSplit


@torch.no_grad()
def predict(
    model: AnytimeModel,
    split: DeviceSplit,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Logits ``(E, N, C)`` of all exits for all images of ``split``, on the host. ``on_batch`` gets images done."""
    model.eval()
    parts = []
    for images, _ in split.batches(batch_size):
        parts.append(model(images).float().cpu().numpy())
        on_batch(len(images))
    return np.concatenate(parts, axis=1)
