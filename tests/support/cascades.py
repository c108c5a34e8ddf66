"""Small cascades whose statistics differ row by row, random images for them, and the distance between answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baselines.cascade.model import CascadedResNet
from baselines.cascade.norm import TemporalNorm


def randomised(dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> CascadedResNet:
    """A model whose rows of statistics all differ, as after training."""
    torch.manual_seed(seed)
    options = {"width": 4, "blocks": (1, 1), "num_classes": 5} | options
    model = CascadedResNet(**options)
    for module in model.modules():
        if isinstance(module, TemporalNorm):
            module.weight.data.uniform_(0.5, 1)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.to(dtype).eval()


def image(model: CascadedResNet, height: int = 16, width: int | None = None, batch: int = 2) -> Tensor:
    dtype = model.stem.conv.weight.dtype
    return torch.randn(batch, model.in_channels, height, width or height, dtype=dtype)


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest magnitude."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()
