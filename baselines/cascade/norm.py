"""Batch norm whose statistics depend on the step, for features of several steps processed in one batch.

A cascade sees block l's input change from step to step, so its mean and variance differ per step: one row of running
statistics per step, one affine map for all of them (Iuzzolino et al., NeurIPS 2021, section 3). Steps beyond the last
row use the last row, which is also the one of a plain pass: with one row this is the batch norm of any ResNet.

In evaluation one step is one operator, that of ``nn.BatchNorm2d``. In training the CPU normalises step by step, each
step while it is in the cache; a GPU, where 73 norms of a ResNet-18 would be launched one by one, takes the statistics
of all steps in one call.

Shapes: features of n steps ``(n * B, C, H, W)``, step by step; running statistics ``(R, C)`` for R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Rows = Sequence[tuple[Tensor, Tensor]]


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
        #: The rows as views, with the two buffers they are views of: taking a row anew costs an operator each time.
        self._views: tuple[Tensor, Tensor, Rows] | None = None

    def forward(self, x: Tensor, steps: int = 1, first: int | None = None, relu: bool = False) -> Tensor:
        """Normalise ``x (steps * B, C, H, W)``, whose first B samples belong to step ``first``; then relu, if asked.

        Without ``first`` every sample is normalised by the last row: a plain pass. In training every step is
        normalised by its own batch and updates its own row, in order of the steps. In evaluation of several steps
        without gradients ``x`` may be overwritten: pass a tensor that nobody else needs. Raises ValueError in training
        where a step has a single value per channel, which has no variance.
        """
        first = self.rows - 1 if first is None else first
        if self.training:
            return self._train(x, [min(first + i, self.rows - 1) for i in range(steps)], relu)
        if steps == 1:
            mean, var = self.row(first)
            y = F.batch_norm(x, mean, var, self.weight, self.bias, False, self.momentum, self.eps)
            return F.relu(y, inplace=True) if relu else y
        if torch.is_grad_enabled():
            y = torch.cat([self(part, 1, first + i) for i, part in enumerate(x.chunk(steps))])
            return F.relu(y, inplace=True) if relu else y
        scale, shift = self.affine(first, steps)
        y, shape = x.unflatten(0, (steps, -1)), (steps, 1, -1, 1, 1)
        torch.addcmul(shift.view(shape), y, scale.view(shape), out=y)
        return x.relu_() if relu else x

    def row(self, step: int) -> tuple[Tensor, Tensor]:
        """Running mean and variance ``(C,)`` of ``step``, views of the buffers."""
        mean, var = self.running_mean, self.running_var
        if self._views is None or self._views[0] is not mean or self._views[1] is not var:
            # Usable with and without gradients, whatever mode the first caller is in.
            with torch.inference_mode(False), torch.no_grad():
                self._views = mean, var, tuple(zip(mean.unbind(), var.unbind(), strict=True))
        return self._views[2][min(step, self.rows - 1)]

    def affine(self, first: int, steps: int) -> tuple[Tensor, Tensor]:
        """Scale and shift ``(steps, C)`` that evaluation applies from step ``first`` on."""
        low, high = min(first, self.rows - 1), min(first + steps, self.rows)
        mean, var = self.running_mean[low:high], self.running_var[low:high]
        if beyond := steps - (high - low):
            mean, var = (torch.cat([rows, rows[-1:].expand(beyond, -1)]) for rows in (mean, var))
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, torch.addcmul(self.bias, mean, scale, value=-1)

    def _train(self, x: Tensor, rows: list[int], relu: bool) -> Tensor:
        if x[0, 0].numel() * len(x) == len(rows):
            raise ValueError(
                f"features of shape {tuple(x.shape)} give batch norm one value per channel and step, which has no "
                "variance: train with a larger batch or larger images"
            )
        if _processes() > 1:
            # F.batch_norm, because the training loop has it take its statistics over all processes.
            settings: dict[str, Any] = {"training": True, "momentum": self.momentum, "eps": self.eps}
            parts = [
                F.batch_norm(part, self.running_mean[row], self.running_var[row], self.weight, self.bias, **settings)
                for part, row in zip(x.chunk(len(rows)), rows, strict=True)
            ]
            y = parts[0] if len(parts) == 1 else torch.cat(parts)
            return F.relu(y, inplace=True) if relu else y
        together = x.is_cuda and len(rows) > 1
        normalise: type[_NormaliseTogether | _NormalisePerStep] = _NormaliseTogether if together else _NormalisePerStep
        return normalise.apply(x, self.weight, self.bias, self, rows, relu)

    def train(self, mode: bool = True) -> TemporalNorm:
        """As ``nn.Module.train``; taking the rows here keeps an evaluation's first pass as short as its others."""
        super().train(mode)
        if not mode:
            self.row(0)
        return self

    def _apply(self, *arguments: Any, **keywords: Any) -> TemporalNorm:
        self._views = None
        return super()._apply(*arguments, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled view would no longer be one.
        return {**self.__dict__, "_views": None}

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, rows={self.rows}"


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


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
            if y is not None:  # masked in the place that the result takes, so that it is in the cache by then
                above = torch.ops.aten.threshold_backward.grad_input(above, y.chunk(steps)[i], 0, grad_input=out)
            parts = torch.ops.aten.native_batch_norm_backward(
                above, part, weight, None, None, means[i], inverses[i], True, ctx.eps, [True, True, True]
            )
            out.copy_(parts[0])
            grad_weight += parts[1]
            grad_bias += parts[2]
        return grad_x, grad_weight, grad_bias, None, None, None


class _NormaliseTogether(torch.autograd.Function):
    """The same with a dozen operators for any number of steps: statistics ``(steps, C)`` in one reduction.

    With g the gradient behind the relu, x' the normalised input and n = B H W values per step and channel (Ioffe,
    Szegedy, ICML 2015, section 3)::

        dL/dbias = sum g        dL/dweight = sum g x'        dL/dx = weight / std * (g - mean(g) - x' mean(g x'))
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: TemporalNorm, rows: list[int], relu: bool
    ) -> Tensor:
        steps, spread = len(rows), (len(rows), 1, -1, 1, 1)
        apart = x.unflatten(0, (steps, -1))  # (steps, B, C, H, W)
        count = apart[:, :, 0].numel() // steps
        var, mean = torch.var_mean(apart.to(weight.dtype), dim=(1, 3, 4), correction=0)
        inverse = torch.rsqrt(var + norm.eps)
        _update(norm.running_mean, mean, rows, norm.momentum)
        _update(norm.running_var, var * (count / (count - 1)), rows, norm.momentum)
        scale = weight * inverse
        shift = torch.addcmul(bias, mean, scale, value=-1)
        y = torch.addcmul(shift.view(spread), apart, scale.view(spread)).to(x.dtype).flatten(0, 1)
        if relu:
            y.relu_()
        ctx.save_for_backward(x, weight, mean, inverse, y if relu else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, y = ctx.saved_tensors
        steps, spread = len(mean), (len(mean), 1, -1, 1, 1)
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        above, apart = (each.unflatten(0, (steps, -1)) for each in (grad, x))
        count = apart[:, :, 0].numel() // steps
        total = above.sum((1, 3, 4), dtype=weight.dtype)  # (steps, C)
        # sum g x' from sum g x, so that x' itself is never written
        product = ((apart.to(weight.dtype) * above).sum((1, 3, 4)) - total * mean) * inverse
        scale = weight * inverse
        slope = -scale * inverse * product / count
        offset = -scale * total / count - slope * mean
        grad_x = torch.addcmul(offset.view(spread), apart, slope.view(spread))
        grad_x = torch.addcmul(grad_x, above, scale.view(spread)).to(x.dtype).flatten(0, 1)
        return grad_x, product.sum(0), total.sum(0), None, None, None


def _update(running: Tensor, new: Tensor, rows: list[int], momentum: float) -> None:
    """Move each of ``rows`` of ``running (R, C)`` towards ``new (steps, C)``, in order: a row may occur twice."""
    distinct = rows.index(rows[-1]) + 1
    running[rows[0] : rows[distinct - 1] + 1].lerp_(new[:distinct].to(running.dtype), momentum)
    for row, value in zip(rows[distinct:], new[distinct:], strict=True):
        running[row].lerp_(value.to(running.dtype), momentum)
