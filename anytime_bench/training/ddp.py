"""Data-parallel training under torchrun: the same training as in one process, spread over several.

Every process draws the same global batch and takes its slice of it. A process's loss counts by its share of the batch,
and DDP averages the gradients, so that for a loss that is a mean over images (cross-entropy, TD) the sum of all is the
loss of the whole batch. Batch norm sees the whole batch too: while the loss is computed, ``F.batch_norm`` in training
takes mean and variance over the images of all processes, in its gradient as well. This holds for each call by itself,
so a norm with statistics per step stays one. Dropout draws differently per process.

Outside torchrun everything here does nothing. Evaluation and timing happen in the first process alone.
"""

from __future__ import annotations

import os
import posix
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel, Method, Progress

#: How long processes wait, on their CPUs, while the first finishes, evaluates and times alone. What training exchanges
#: keeps torch's own limit of minutes.
LONGEST_WAIT = timedelta(days=1)

_waiting: list[Any] = []


def start(device: str) -> str:
    """Join the group torchrun has set up, if any; returns the device of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    wants_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if ":" in device:
        raise UserError(f"device '{device}': under torchrun each process takes its own GPU; use --device cuda or cpu.")
    if wants_gpu and local >= torch.cuda.device_count():
        raise UserError(
            f"torchrun starts process {local + 1} on this machine, but torch finds {torch.cuda.device_count()} CUDA "
            "devices. Lower --nproc-per-node, or use --device cpu."
        )
    if wants_gpu:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if wants_gpu else "gloo")
        _waiting.append(dist.new_group(backend="gloo", timeout=LONGEST_WAIT))
    return f"cuda:{local}" if wants_gpu else "cpu"


def processes() -> int:
    """How many processes train together; 1 outside torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; files are written by process 0."""
    return dist.get_rank() if processes() > 1 else 0


def leave() -> None:
    """End the group once all have arrived; every process but the first ends here."""
    if processes() == 1:
        return
    first = rank() == 0
    dist.barrier(group=_waiting.pop() if _waiting else None)
    dist.destroy_process_group()
    if not first:
        # At once, past the guard of os._exit: a SystemExit would look like a method that ends the process.
        sys.stdout.flush()
        sys.stderr.flush()
        posix._exit(0)


def mean(value: Tensor) -> Tensor:
    """The mean of ``value`` over all processes."""
    if processes() > 1:
        dist.all_reduce(value)
        value /= processes()
    return value


def check_batches(images: int, batch_size: int) -> None:
    """Refuse a batch size whose last batch has fewer images than there are processes."""
    rest = images % batch_size or min(batch_size, images)
    smallest = batch_size if rest == 1 and images > batch_size else rest
    if smallest < processes():
        raise UserError(
            f"training.batch_size={batch_size} leaves a last batch of {smallest} images for {processes()} processes: "
            "choose another batch size."
        )


def loss_over_processes(
    method: Method, model: AnytimeModel
) -> Callable[[AnytimeModel, Tensor, Tensor, Progress], Tensor]:
    """``method.training_loss``; under torchrun a function of the same global batch that computes a slice of it."""
    count = processes()
    if count == 1:
        return method.training_loss
    module = _Loss(method, model)
    device = next(model.parameters()).device
    with warnings.catch_warnings():
        # The successor of broadcast_buffers is younger than the oldest torch supported here.
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(
            module, device_ids=[device.index] if device.type == "cuda" else None,
            # Statistics are equal everywhere already; a loss may leave out parameters, such as those of a later exit.
            broadcast_buffers=False, find_unused_parameters=True,
        )  # fmt: skip

    def loss(model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        first, last = (len(images) * (rank() + i) // count for i in (0, 1))
        value: Tensor = parallel(images[first:last], targets[first:last], progress)
        return value * ((last - first) * count / len(images))

    return loss


class _Loss(nn.Module):
    """The loss as a module's forward, which is where DDP listens; a method may use its model in any way inside."""

    def __init__(self, method: Method, model: AnytimeModel) -> None:
        super().__init__()
        self.method, self.model = method, model

    def forward(self, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        with GlobalBatchNorm():
            return self.method.training_loss(self.model, images, targets, progress)


class GlobalBatchNorm(TorchFunctionMode):
    """Inside, ``F.batch_norm`` in training normalises over the images of all processes."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    weight = torch.ones(x.shape[1], device=x.device) if weight is None else weight
    bias = torch.zeros(x.shape[1], device=x.device) if bias is None else bias
    result: Tensor = _NormaliseGlobally.apply(x, weight, bias, running_mean, running_var, momentum, eps)
    return result


class _NormaliseGlobally(torch.autograd.Function):
    """Batch norm of ``x (B, C, ...)`` with mean and variance over the B of all processes.

    With xhat = (x - mean) / sd, gradient g of the result and N values per channel in all processes together,
    dx = weight / sd * (g - sum(g) / N - xhat * sum(g * xhat) / N), both sums over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
        momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        dims = [d for d in range(x.ndim) if d != 1]
        count, wide = x.numel() // x.shape[1], x.float()
        local_var, local_mean = torch.var_mean(wide, dims, correction=0)
        # In double, because the variance is a difference of two large sums.
        m, v = local_mean.double(), local_var.double()
        sums = torch.stack([m * count, (v + m * m) * count, torch.full_like(m, count)])
        dist.all_reduce(sums)
        total = sums[2]
        mean = sums[0] / total
        var = (sums[1] / total - mean * mean).clamp_(min=0)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = var * (total / (total - 1).clamp_(min=1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        inverse = torch.rsqrt(var + eps).float()
        shape = [1, -1, *([1] * (x.ndim - 2))]
        y = (wide - mean.float().view(shape)) * (inverse * weight).view(shape) + bias.view(shape)
        ctx.save_for_backward(x, weight, mean.float(), inverse, total.float())
        ctx.dims, ctx.shape = dims, shape
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, total = ctx.saved_tensors
        shape, g = ctx.shape, grad.float()
        xhat = (x.float() - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([g.sum(ctx.dims), (g * xhat).sum(ctx.dims)])
        sums = own.clone()
        dist.all_reduce(sums)
        sums /= total
        dx = (g - sums[0].view(shape) - xhat * sums[1].view(shape)) * (weight * inverse).view(shape)
        return dx.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None, None, None
