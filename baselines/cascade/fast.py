"""Five operations that make the cascade fast; each equals plain torch code to rounding.

``join`` is the sum in which a block's shortcut and delayed residual meet, for all steps at once. Shapes: shortcut
``(n * B, C, H, W)``, residual ``(m * B, C, H, W)``, result ``(K * B, C, H, W)``, step by step.

``convolve`` runs 3x3 convolutions on maps of at most 2x2 as matrix products. Where every output position sees every
input position, a padded 3x3 convolution is one dense product, with 4 of the 9 taps per pair of positions in use on a
2x2 map and 1 of 9 on a 1x1 map; the padding is never multiplied. Shapes: features ``(N, C, H, W)`` with H, W <= 2,
weights ``(O, C, 3, 3)``, matrices ``(H' W' O, H W C)``.

``product`` is ``F.linear`` by oneDNN, which multiplied float32 matrices 2.2 times as fast on an AMD processor with
AVX-512 as the BLAS that ``F.linear`` calls (torch 2.15.0, one thread, 512 x 2048 x 2048: 18 and 40 ms).

``folded`` is a convolution and, in evaluation, the batch norm of one step behind it as one convolution: the norm's
affine map goes into weights and bias.

``add_relu`` is one kernel for the sum of two tensors of one shape and its relu, without gradients: where blocks run
side by side, these sums are the chain that each step's answer waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


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
                _add_relu(straight[s], delayed[r], part)
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


def _add_relu(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``relu(a + b)`` into ``out``: one pass over memory where torch has a kernel for it."""
    if a.device.type == "cpu" and a.dtype == b.dtype == out.dtype and a.dtype in (torch.float32, torch.float64):
        torch.ops.aten._add_relu.out(a, b, out=out)
    else:
        torch.add(a, b, out=out).relu_()


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


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)``, as a matrix product on the CPU where ``conv`` is 3x3 with padding 1 and the map at most 2x2."""
    if x.device.type != "cpu" or conv.kernel_size != (3, 3) or max(x.shape[2:]) > 2:
        return conv(x)
    height, width = x.shape[2:]
    stride = conv.stride[0]
    h_out, w_out = (height - 1) // stride + 1, (width - 1) // stride + 1
    matrix = _Unrolled.apply(conv.weight, height, width, stride)
    y = product(x.permute(0, 2, 3, 1).flatten(1), matrix)  # (N, H W C) -> (N, H' W' O)
    return y.view(len(x), h_out, w_out, -1).permute(0, 3, 1, 2)  # channels last in memory


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """``F.linear(x, matrix)`` for ``x (N, I)`` and ``matrix (O, I)``."""
    single = (
        x.dtype == matrix.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    )
    if _ONEDNN is None or not single or not x.shape[1] == matrix.shape[1] > 0:  # F.linear says what does not fit
        return F.linear(x, matrix)
    return _Product.apply(x, matrix)


#: ``(x, matrix, bias, "none", [], "") -> x @ matrix.T`` of any strides; None where torch was built without oneDNN.
_ONEDNN: Callable[..., Tensor] | None = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


def _multiply(x: Tensor, matrix: Tensor) -> Tensor:
    assert _ONEDNN is not None
    return _ONEDNN(x, matrix, None, "none", [], "")


class _Product(torch.autograd.Function):
    """oneDNN's matrix product, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrix)
        return _multiply(x, matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, matrix = ctx.saved_tensors
        return _multiply(grad, matrix.t()), _multiply(grad.t(), x.t())


class _Unrolled(torch.autograd.Function):
    """The matrix ``(H' W' O, H W C)`` of a 3x3 convolution with padding 1 on an H x W map, H, W <= 2.

    Output position i of stride s sees input position u through tap u - s i + 1.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, height: int, width: int, stride: int) -> Tensor:
        ctx.shape, ctx.map, ctx.stride = weight.shape, (height, width), stride
        weight = weight.permute(0, 2, 3, 1).contiguous()  # (O, 3, 3, C)
        return torch.cat([weight[:, rows, columns].flatten(1) for rows, columns in _windows(height, width, stride)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        channels_out, channels = ctx.shape[:2]
        windows = _windows(ctx.map[0], ctx.map[1], ctx.stride)
        total = grad.new_zeros(channels_out, 3, 3, channels)
        for (rows, columns), part in zip(windows, grad.chunk(len(windows)), strict=True):
            total[:, rows, columns] += part.view(channels_out, *ctx.map, channels)
        return total.permute(0, 3, 1, 2).contiguous(), None, None, None


def _windows(height: int, width: int, stride: int) -> list[tuple[slice, slice]]:
    """Per output position, row by row, the taps through which it sees the map."""
    return [
        (slice(1 - i, 1 - i + height), slice(1 - j, 1 - j + width))
        for i in range(0, height, stride)
        for j in range(0, width, stride)
    ]


def folded(conv: nn.Conv2d, scale: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    """``conv(x) * scale + shift`` per channel, scale and shift ``(O,)``; for a ``conv`` without bias."""
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), shift, conv.stride, conv.padding)


def suited(images: Tensor) -> Tensor:
    """Channels last, where large batches of convolutions are faster so: a CPU's float32, a GPU's half precision."""
    if images.device.type == "cpu":
        suits = images.dtype != torch.float64
    else:
        suits = images.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(images.device.type)
    return images.contiguous(memory_format=torch.channels_last) if suits and images.ndim == 4 else images


def add_relu(a: Tensor, b: Tensor) -> Tensor:
    """``relu(a + b)`` of two tensors of one shape and kind, without gradients."""
    if a.is_cuda:
        return torch.ops.anytime_bench.add_relu(a, b)
    if a.dtype in (torch.float32, torch.float64):
        return torch.ops.aten._add_relu.Tensor(a, b)
    return torch.relu_(a + b)


@cache
def _gpu_kernel() -> Callable[[Tensor, Tensor], Tensor]:
    """Compiled by NVRTC at the first call; NaN stays NaN."""
    create: Any = torch.cuda.jiterator._create_jit_fn
    return create("template <typename T> T add_relu(T a, T b) { T s = a + b; return s < T(0) ? T(0) : s; }")


def _on_gpu(a: Tensor, b: Tensor) -> Tensor:
    return _gpu_kernel()(a, b)


# An operator of torch's, so that whoever records operators sees it.
_LIBRARY = torch.library.Library("anytime_bench", "FRAGMENT")
_LIBRARY.define("add_relu(Tensor a, Tensor b) -> Tensor")
_LIBRARY.impl("add_relu", _on_gpu, "CUDA")
