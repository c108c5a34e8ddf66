"""Batch norm whose statistics depend on the step, for features of several steps processed in one batch.

A cascade sees block l's input change from step to step, so its mean and variance differ per step: one row of running
statistics per step, one affine map for all of them (Iuzzolino et al., NeurIPS 2021, section 3). Steps beyond the last
row use the last row.

Shapes: features of n steps ``(n * B, C, H, W)``, step by step; running statistics ``(R, C)`` for R rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from anytime_bench.training import ddp as distributed


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

    def forward(self, x: Tensor, steps: int = 1, first: int = 0, relu: bool = False) -> Tensor:
        """Normalise ``x (steps * B, C, H, W)``, whose first B samples belong to step ``first``; then relu, if asked.

        In training every step is normalised by its own batch and updates its own row, in order of the steps.
        In evaluation without gradients ``x`` may be overwritten: pass a tensor that nobody else needs. Raises
        ValueError in training where a step has a single value per channel, which has no variance.
        """
        rows = [min(first + i, self.rows - 1) for i in range(steps)]
        if self.training:
            if x[0, 0].numel() * len(x) == steps:
                raise ValueError(
                    f"features of shape {tuple(x.shape)} give batch norm one value per channel and step, which has no "
                    "variance: train with a larger batch or larger images"
                )
            if distributed.processes() == 1:
                return _NormalisePerStep.apply(x, self.weight, self.bias, self, rows, relu)
        if steps == 1 or torch.is_grad_enabled() or self.training:
            # Also the way of several processes: the harness has F.batch_norm take its statistics over all of them.
            settings: dict[str, Any] = {"training": self.training, "momentum": self.momentum, "eps": self.eps}
            parts = [
                F.batch_norm(part, self.running_mean[row], self.running_var[row], self.weight, self.bias, **settings)
                for part, row in zip(x.chunk(steps), rows, strict=True)
            ]
            y = parts[0] if steps == 1 else torch.cat(parts)
            return F.relu(y, inplace=True) if relu else y
        scale, shift = self.affine(first, steps)
        y = x.unflatten(0, (steps, -1))
        shape = (steps, 1, -1, 1, 1)
        torch.addcmul(shift.view(shape), y, scale.view(shape), out=y)
        return x.relu_() if relu else x

    def affine(self, first: int, steps: int) -> tuple[Tensor, Tensor]:
        """Scale and shift ``(steps, C)`` that evaluation applies from step ``first`` on."""
        low, high = min(first, self.rows - 1), min(first + steps, self.rows)
        mean, var = self.running_mean[low:high], self.running_var[low:high]
        if beyond := steps - (high - low):
            mean, var = (torch.cat([rows, rows[-1:].expand(beyond, -1)]) for rows in (mean, var))
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, torch.addcmul(self.bias, mean, scale, value=-1)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, rows={self.rows}"


class _NormalisePerStep(torch.autograd.Function):
    """Batch norm in training and relu, step by step within one tensor, each step while it is in the cache.

    The relu's mask is read off the result, which the next convolution keeps anyway, so nothing is stored for it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: TemporalNorm, rows: list[int], relu: bool
    ) -> Tensor:
        y, steps = torch.empty_like(x), len(rows)
        means, inverses = (torch.empty((steps, len(weight)), dtype=weight.dtype, device=x.device) for _ in range(2))
        for i, (part, out) in enumerate(zip(x.chunk(steps), y.chunk(steps), strict=True)):
            mean, var = norm.running_mean[rows[i]], norm.running_var[rows[i]]
            torch.ops.aten.native_batch_norm.out(
                part, weight, bias, mean, var, True, norm.momentum, norm.eps,
                out=out, save_mean=means[i], save_invstd=inverses[i],
            )  # fmt: skip
            if relu:
                out.relu_()
        ctx.save_for_backward(x, weight, means, inverses, y if relu else None)
        ctx.eps = norm.eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, means, inverses, y = ctx.saved_tensors
        steps = len(means)
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        for i, (part, out, above) in enumerate(
            zip(x.chunk(steps), grad_x.chunk(steps), grad.chunk(steps), strict=True)
        ):
            if y is not None:
                above = torch.ops.aten.threshold_backward(above, y.chunk(steps)[i], 0)
            parts = torch.ops.aten.native_batch_norm_backward(
                above, part, weight, None, None, means[i], inverses[i], True, ctx.eps, [True, True, True]
            )
            out.copy_(parts[0])
            grad_weight += parts[1]
            grad_bias += parts[2]
        return grad_x, grad_weight, grad_bias, None, None, None
