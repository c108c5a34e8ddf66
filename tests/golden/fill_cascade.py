"""The fill rule of the cascade's golden vectors: seeded weights, numbered in order of first execution.

Stem convolution and norm, then per block the shortcut's convolution (where there is one) and each convolution and norm
of the residual branch, then the heads. Module i draws from its own ``RandomState(1000 + i)``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from baselines.cascade.model import CascadedResNet
from baselines.cascade.norm import TemporalNorm


def modules_in_order(model: CascadedResNet) -> Iterator[nn.Module]:
    """Convolutions, norms and heads in the order in which a step first runs them."""
    yield from (model.stem.conv, model.stem.norm)
    for block in model.blocks:
        if isinstance(block.shortcut, nn.Conv2d):
            yield block.shortcut
        for n in (1, 2, 3):
            if hasattr(block, f"conv{n}"):
                yield from (getattr(block, f"conv{n}"), getattr(block, f"norm{n}"))
    yield from model.heads


def norms_in_order(model: CascadedResNet) -> list[TemporalNorm]:
    return [module for module in modules_in_order(model) if isinstance(module, TemporalNorm)]


def parameters_in_order(model: CascadedResNet) -> list[Tensor]:
    """Weight, then bias, of each module in order."""
    return [p for module in modules_in_order(model) for p in module.parameters()]


@torch.no_grad()
def fill_cascade(model: CascadedResNet) -> CascadedResNet:
    """Fill ``model`` (of any width, depth or dtype) in place by the rule and return it."""
    for i, module in enumerate(modules_in_order(model)):
        rs = np.random.RandomState(1000 + i)
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            _put(module.weight, rs.standard_normal(module.weight.shape) * np.sqrt(2 / fan_in))
        elif isinstance(module, nn.Linear):
            _put(module.weight, rs.standard_normal(module.weight.shape) / np.sqrt(module.in_features))
            _put(module.bias, 0.1 * rs.standard_normal(module.out_features))
        elif isinstance(module, TemporalNorm):
            channels = len(module.weight)
            _put(module.weight, rs.uniform(0.4, 0.8, channels))
            _put(module.bias, 0.1 * rs.standard_normal(channels))
            _put(module.running_mean, 0.1 * rs.standard_normal(channels))
            _put(module.running_var, rs.uniform(0.6, 1.4, channels))
    return model


def _put(tensor: Tensor, values: np.ndarray) -> None:
    tensor.copy_(torch.from_numpy(values).expand(tensor.shape))
