"""A cascaded ViT small enough for tests, off its start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anytime_bench.tasks.task import TaskCard
from baselines.vit.cascade import CascadedViT
from baselines.vit.methods import CascadedViTMethod, CascadedViTOptions

CARD = TaskCard("small", "t", ("a", "b", "c"), (3, 8, 8), {}, (0.0,), (1.0,))
SIZE = {"model": "vit_tiny_patch16_224", "patch_size": 4, "embed_dim": 12, "num_heads": 2}


def built(dtype: torch.dtype = torch.float64, depth: int = 2, seed: int = 0, **options: Any) -> CascadedViT:
    """A network whose parameters are all off their start: heads begin at 0, where all answers are alike."""
    torch.manual_seed(seed)
    model = CascadedViTMethod(CascadedViTOptions(**{**SIZE, "depth": depth, **options})).build(CARD)
    assert isinstance(model, CascadedViT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def images_for(model: CascadedViT, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8, dtype=next(model.parameters()).dtype)


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest magnitude."""
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()
