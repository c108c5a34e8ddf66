"""The sum in which a block's shortcut and delayed residual meet, for all steps at once.

Shapes: shortcut ``(n * B, C, H, W)``, residual ``(m * B, C, H, W)``, result ``(K * B, C, H, W)``, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def join(shortcut: Tensor, residual: Tensor, pairs: Sequence[tuple[int, int | None]], batch: int) -> Tensor:
    """``relu(shortcut[s] + residual[r])`` for each step's ``(s, r)`` of ``pairs``; no residual where r is None.

    ``s`` and ``r`` number the steps within ``shortcut`` and ``residual``, of ``batch`` samples each.
    """
    return _Join.apply(shortcut, residual, tuple(pairs), batch)


class _Join(torch.autograd.Function):
    """One buffer for the result, which is all that is kept: no intermediate sum, no concatenation."""

    @staticmethod
    def forward(
        ctx: Any, shortcut: Tensor, residual: Tensor, pairs: tuple[tuple[int, int | None], ...], batch: int
    ) -> Tensor:
        layout = torch.channels_last if _is_channels_last(residual) else torch.contiguous_format
        shape = (len(pairs) * batch, *shortcut.shape[1:])
        out = torch.empty(shape, dtype=shortcut.dtype, device=shortcut.device, memory_format=layout)
        straight, delayed = shortcut.split(batch), residual.split(batch)
        for part, (s, r) in zip(out.split(batch), pairs, strict=True):
            if r is None:
                torch.clamp_min(straight[s], 0, out=part)
            else:
                torch.add(straight[s], delayed[r], out=part).relu_()
        ctx.save_for_backward(out)
        ctx.pairs, ctx.batch, ctx.counts = pairs, batch, (len(straight), len(delayed))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        columns = zip(*ctx.pairs, strict=True)
        grads = [_gather(grad, column, count, ctx.batch) for column, count in zip(columns, ctx.counts, strict=True)]
        return (*grads, None, None)


def _gather(grad: Tensor, column: tuple[int | None, ...], count: int, batch: int) -> Tensor:
    """Sum the steps of ``grad`` by the number each has in ``column``; a view where every number occurs once."""
    used = [k for k, number in enumerate(column) if number is not None]
    if [column[k] for k in used] == list(range(count)):
        return grad[used[0] * batch : (used[-1] + 1) * batch]
    parts = grad.split(batch)
    total = torch.empty((count * batch, *grad.shape[1:]), dtype=grad.dtype, device=grad.device)
    total = total.contiguous(memory_format=torch.channels_last) if _is_channels_last(grad) else total
    for number, target in enumerate(total.split(batch)):
        sources = [parts[k] for k in used if column[k] == number]
        if len(sources) > 1:
            torch.add(sources[0], sources[1], out=target)
        elif sources:
            target.copy_(sources[0])
        else:
            target.zero_()
        for source in sources[2:]:
            target += source
    return total


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
