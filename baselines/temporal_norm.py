"""Batch norm whose statistics depend on the step, for features of several steps processed in one batch.

A cascade sees block l's input change from step to step, so its mean and variance differ per step: one row of running
statistics per step, one affine map for all of them (Iuzzolino et al., NeurIPS 2021, section 3). Steps beyond the last
row use the last row.

Shapes: features of n steps ``(n * B, C, H, W)``, step by step; running statistics ``(R, C)`` for R rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TemporalNorm(nn.Module):
    """Batch norm with ``rows`` rows of running statistics and a shared affine map (eps 1e-5, momentum 0.1)."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, rows: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.rows, self.eps, self.momentum = rows, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(rows, channels))
        self.register_buffer("running_var", torch.ones(rows, channels))

    def forward(self, x: Tensor, steps: int = 1, first: int = 0) -> Tensor:
        """Normalise ``x (steps * B, C, H, W)``, whose first B samples belong to step ``first``.

        In training every step is normalised by its own batch and updates its own row, in order of the steps.
        """
        parts = [
            F.batch_norm(part, *self._row(first + i), self.weight, self.bias, self.training, self.momentum, self.eps)
            for i, part in enumerate(x.chunk(steps))
        ]
        return parts[0] if steps == 1 else torch.cat(parts)

    def _row(self, step: int) -> tuple[Tensor, Tensor]:
        row = min(step, self.rows - 1)
        return self.running_mean[row], self.running_var[row]

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, rows={self.rows}"
