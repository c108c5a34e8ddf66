"""Batch norm per step in training: step by step and all steps at once give the same numbers and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.cascade.norm import TemporalNorm, _NormalisePerStep, _NormaliseTogether

KINDS = pytest.mark.parametrize("kind", [_NormalisePerStep, _NormaliseTogether])


def inputs(steps: int, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(steps)
    shift = torch.arange(steps, dtype=dtype).repeat_interleave(4).view(-1, 1, 1, 1)
    return (torch.randn(steps * 4, 3, 5, 2, dtype=dtype) * (1 + shift) + shift).requires_grad_()


def norm_of(rows: int, dtype: torch.dtype = torch.float64) -> TemporalNorm:
    torch.manual_seed(rows)
    norm = TemporalNorm(3, rows).to(dtype)
    norm.weight.data.uniform_(-1, 1)
    norm.bias.data.normal_()
    return norm


def by_torch(norm: TemporalNorm, x: Tensor, rows: list[int], relu: bool) -> Tensor:
    parts = [
        F.batch_norm(part, norm.running_mean[row], norm.running_var[row], norm.weight, norm.bias, True, 0.1, 1e-5)
        for part, row in zip(x.chunk(len(rows)), rows, strict=True)
    ]
    return F.relu(torch.cat(parts)) if relu else torch.cat(parts)


@KINDS
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [[0], [0, 1, 2], [1, 2, 2, 2]], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_gradients_and_statistics_are_those_of_torch(
    kind: Any, relu: bool, rows: list[int], layout: torch.memory_format
) -> None:
    mine, theirs, x = norm_of(3), norm_of(3), inputs(len(rows))
    weight = torch.randn_like(x)
    results = []
    for norm, y in (
        (mine, kind.apply(x.contiguous(memory_format=layout), mine.weight, mine.bias, mine, rows, relu)),
        (theirs, by_torch(theirs, x, rows, relu)),
    ):
        results.append((y, *torch.autograd.grad((y * weight).sum(), (x, norm.weight, norm.bias))))
    for ours, other in zip(*results, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mine.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine.running_var, theirs.running_var, rtol=1e-12, atol=1e-12)


def test_all_at_once_keeps_its_precision_in_bfloat16() -> None:
    rows, x = [0, 1, 2], inputs(3, torch.float32).detach()
    y = _NormaliseTogether.apply(
        x.bfloat16(), *(p for p in norm_of(3).float().parameters()), norm_of(3).float(), rows, False
    )
    exact = by_torch(norm_of(3).float(), x.bfloat16().float(), rows, False)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=2**-7, atol=2**-7)


def test_the_number_of_operators_does_not_grow_with_the_steps_where_all_go_at_once() -> None:
    def launched(steps: int) -> int:
        norm, x = norm_of(steps), inputs(steps)
        with torch.profiler.profile() as profile:
            _NormaliseTogether.apply(x, norm.weight, norm.bias, norm, list(range(steps)), True).sum().backward()
        return sum(event.count for event in profile.key_averages() if event.key.startswith("aten::"))

    assert launched(8) == launched(2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_a_gpu_takes_all_steps_at_once_and_updates_the_same_rows() -> None:
    norm, x = norm_of(3).train(), inputs(3)
    on_gpu = copy.deepcopy(norm).cuda()
    torch.testing.assert_close(on_gpu(x.cuda(), 3, 0).cpu(), norm(x, 3, 0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(on_gpu.running_var.cpu(), norm.running_var, rtol=1e-9, atol=1e-9)
