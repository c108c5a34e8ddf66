"""Fills networks with the weights of the golden vectors: every tensor from a generator seeded by its key.

The rule is the one in README.md, "Fill rule by key": key = '<module key>.<tensor>', seed = CRC-32 of the key. Nothing
depends on the order or on a configuration, so networks of any depth, width or number of scales can be filled.
The functions fill in place, in the network's own dtype (cast to float64 first), and return the network. ``msdnet_keys``
and ``sdn_keys`` list the modules with their keys.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.random import RandomState
from torch import Tensor, nn

from baselines.boostnet.model import BoostedNet
from baselines.msdnet.model import ConvUnit, DenseFeature, MSDNet
from baselines.residual import Backbone
from baselines.sdn.model import InternalClassifier, ShallowDeepNet
from baselines.ztw.ensembles import Ensembles
from baselines.ztw.heads import OriginalHead, RewriteHead
from baselines.ztw.model import StackedHeads, ZeroTimeWaste


def seed_of(key: str) -> int:
    """The seed of the tensor called ``key``."""
    return zlib.crc32(key.encode("ascii")) & 0xFFFFFFFF


def _set(tensor: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.asarray(values)).reshape(tensor.shape))


def fill_module(key: str, module: nn.Module, scale: tuple[float, float] = (0.5, 1.5)) -> None:
    """Fill one convolution, norm or linear layer; ``scale`` is the range of a batch norm's weight."""

    def draw(tensor: str) -> RandomState:
        return RandomState(seed_of(f"{key}.{tensor}"))

    if isinstance(module, nn.Conv2d):
        shape = tuple(module.weight.shape)
        _set(module.weight, draw("weight").standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:])))
        if module.bias is not None:
            _set(module.bias, 0.1 * draw("bias").standard_normal(shape[0]))
    elif isinstance(module, nn.LayerNorm):
        _set(module.weight, draw("weight").uniform(*scale, module.normalized_shape[0]))
        _set(module.bias, 0.1 * draw("bias").standard_normal(module.normalized_shape[0]))
    elif isinstance(module, nn.BatchNorm2d):
        channels = module.num_features
        assert module.running_mean is not None
        assert module.running_var is not None
        _set(module.weight, draw("weight").uniform(*scale, channels))
        _set(module.bias, 0.1 * draw("bias").standard_normal(channels))
        _set(module.running_mean, 0.1 * draw("running_mean").standard_normal(channels))
        _set(module.running_var, draw("running_var").uniform(0.5, 1.5, channels))
    elif isinstance(module, nn.Linear):
        shape = tuple(module.weight.shape)
        _set(module.weight, draw("weight").standard_normal(shape) * math.sqrt(1 / shape[1]))
        _set(module.bias, 0.1 * draw("bias").standard_normal(shape[0]))
    else:
        raise TypeError(f"{key}: no rule for a {type(module).__name__}")


def _unit(key: str, unit: ConvUnit) -> Iterator[tuple[str, nn.Module]]:
    yield f"{key}/conv", unit.conv
    yield f"{key}/bn", unit.norm


def msdnet_keys(model: MSDNet) -> Iterator[tuple[str, nn.Module]]:
    """(module key, module) for every convolution, batch norm and linear layer of ``model``."""
    for feature in model.grid:
        module = model.features[feature.name]
        prefix = f"msdnet/b{feature.block}/l{feature.layer}/s{feature.scale}"
        if feature.kind == "stem":
            yield from _unit(f"{prefix}/stem", module[0] if isinstance(module, nn.Sequential) else module)
        elif feature.kind == "transition":
            yield from _unit(f"{prefix}/transition", module)
        else:
            assert isinstance(module, DenseFeature)
            for name, branch in (("normal", module.normal), ("down", module.down)):
                if branch is not None:
                    yield from _unit(f"{prefix}/{name}.bottleneck1x1", branch.bottleneck)
                    yield from _unit(f"{prefix}/{name}.conv3x3", branch.conv3x3)
    for block, classifier in enumerate(model.classifiers):
        prefix = f"msdnet/b{block}/classifier"
        yield from _unit(f"{prefix}.conv1", classifier.conv1)
        yield from _unit(f"{prefix}.conv2", classifier.conv2)
        yield f"{prefix}.linear/linear", classifier.linear


def fill_msdnet(model: MSDNet) -> MSDNet:
    """Fill every tensor of ``model``, of any configuration, by its key."""
    for key, module in msdnet_keys(model):
        fill_module(key, module)
    return model


def backbone_keys(backbone: Backbone) -> Iterator[tuple[str, nn.Module]]:
    """(module key, module) for every convolution, batch norm and linear layer of a residual network."""
    yield "sdn/stem/conv", backbone.stem.conv
    yield "sdn/stem/bn", backbone.stem.norm
    for b, block in enumerate(backbone.blocks):
        for number in (1, 2):
            yield f"sdn/b{b}/conv{number}/conv", getattr(block, f"conv{number}")
            yield f"sdn/b{b}/conv{number}/bn", getattr(block, f"norm{number}")
        if isinstance(block.shortcut, nn.Conv2d):
            yield f"sdn/b{b}/shortcut/conv", block.shortcut
        elif isinstance(block.shortcut, nn.Sequential):
            yield f"sdn/b{b}/shortcut/conv", block.shortcut[0]
            yield f"sdn/b{b}/shortcut/bn", block.shortcut[1]
    yield "sdn/head/linear", backbone.head.linear


def sdn_keys(model: ShallowDeepNet) -> Iterator[tuple[str, nn.Module]]:
    """(module key, module) for every convolution, batch norm, linear layer and IC of ``model``."""
    yield from backbone_keys(model.backbone)
    for b, classifier in zip(model.ic_blocks, model.classifiers, strict=True):
        yield f"sdn/b{b}/ic", classifier
        yield f"sdn/b{b}/ic/linear", classifier.linear


def head_keys(key: str, head: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(module key, module) for one head of Zero Time Waste called ``key``; the key of its alpha comes first."""
    yield key, getattr(head, "classifier", head)
    for name in ("conv", "norm"):
        if getattr(head, name) is not None:
            yield f"{key}/{name}", getattr(head, name)
    yield f"{key}/linear", getattr(head, "classifier", head).linear


def ztw_keys(model: StackedHeads) -> Iterator[tuple[str, nn.Module]]:
    """(module key, module) of the backbone and of all heads; the rewrite's heads are numbered, not named by block."""
    yield from backbone_keys(model.backbone)
    for k, (block, head) in enumerate(zip(model.ic_blocks, model.classifiers, strict=True)):
        yield from head_keys(f"sdn/b{block}/ic" if isinstance(head, OriginalHead) else f"ztw/h{k}", head)


def fill_sdn(model: ShallowDeepNet) -> ShallowDeepNet:
    """Fill every tensor of ``model``, of any depth, width and image size, by its key."""
    _fill_residual(sdn_keys(model))
    return model


def _fill_residual(keys: Iterator[tuple[str, nn.Module]]) -> None:
    for key, module in keys:
        if isinstance(module, InternalClassifier | RewriteHead):
            if module.alpha is not None:
                _set(module.alpha, RandomState(seed_of(f"{key}.alpha")).uniform(0, 1, 1))
        else:
            fill_module(key, module, scale=(0.2, 0.6) if key.endswith("conv2/bn") else (0.5, 1.5))


def fill_boostnet(model: BoostedNet) -> BoostedNet:
    """Fill the network of ``model``, an MSDNet or a ShallowDeepNet of any configuration; its exit weights stay."""
    if isinstance(model.base, MSDNet):
        fill_msdnet(model.base)
    else:
        assert isinstance(model.base, ShallowDeepNet)
        fill_sdn(model.base)
    return model


def fill_head(key: str, head: nn.Module) -> nn.Module:
    """Fill one head of Zero Time Waste called ``key``."""
    _fill_residual(head_keys(key, head))
    return head


def fill_ensembles(ensembles: Ensembles) -> Ensembles:
    """Fill the ensemble after each head; "standard" ones have nothing to fill."""
    if ensembles.kind != "standard":
        rows = np.zeros((ensembles.heads, ensembles.heads))
        for m in range(ensembles.heads):
            rows[m, : m + 1] = 0.5 * RandomState(seed_of(f"ztw/ens{m}.weight")).standard_normal(m + 1)
            bias = 0.1 * RandomState(seed_of(f"ztw/ens{m}.bias")).standard_normal(ensembles.bias.shape[1])
            _set(ensembles.bias[m], bias)
        _set(ensembles.weight, rows)
    return ensembles


def fill_ztw(model: ZeroTimeWaste) -> ZeroTimeWaste:
    """Fill backbone, heads and ensembles of ``model``, of any depth, width, number of heads and kind of head."""
    _fill_residual(ztw_keys(model.base))
    fill_ensembles(model.ensembles)
    return model
