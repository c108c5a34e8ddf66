"""MSDNet: a multi-scale dense network with an exit after every block of layers, computed lazily across scales.

Source: Huang, Chen, Li, Wu, van der Maaten, Weinberger, *Multi-Scale Dense Networks for Resource Efficient Image
Classification*, ICLR 2018 (arXiv 1703.09844), section 4 and appendix A. Layer rule, prune rule and widths follow the
published PyTorch code (kalviny/MSDNet-PyTorch) and reproduce its outputs, parameter counts and MACs.

The network is a grid of features x[l, s], layer l = 0..L and scale s = 0 (finest) .. S-1 (coarsest)::

    x[0, 0]  = stem(image)                        x[0, s] = conv3x3 stride 2 of x[0, s-1]
    x[l, s]  = cat(x[l-1, s], down(x[l-1, s-1]), normal(x[l-1, s]))     with a finer neighbour
    x[l, s]  = cat(x[l-1, s], normal(x[l-1, s]))                        at the finest scale left
    logits k = classifier_k(x[last layer of block k, S-1])

``down`` and ``normal`` are a 1x1 bottleneck and a 3x3 convolution (stride 2 and 1), each with batch norm and ReLU.
Finer scales are dropped on the way (``prune``), with a 1x1 transition that multiplies the width by ``reduction``.

Not every x[l, s] of a block is needed for the block's own exit: at layer l the exit at layer m looks back at the
S - (m - l) coarsest scales alone. ``stream`` computes a feature when the first exit that needs it is asked for; the
published code computes a whole block first, as ``lazy=False`` does, and as ``executions`` offers for counting.

Shapes: images ``(B, D, H, W)``, feature of scale s ``(B, width * scale_factors[s], H / 2^s, W / 2^s)``, logits of an
exit ``(B, C)``. A deeper feature holds all its predecessors' channels, so memory grows with the depth of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anytime_bench.methods.contract import AnytimeModel
from baselines.gradient_equilibrium import equilibrate


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm, ReLU; ``kernel // 2`` pixels of padding."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.norm(self.conv(x)))


class Branch(nn.Module):
    """1x1 bottleneck of at most ``factor * channels_out`` channels, then a 3x3 convolution."""

    def __init__(self, channels_in: int, channels_out: int, factor: int, stride: int) -> None:
        super().__init__()
        inner = min(channels_in, factor * channels_out)
        self.bottleneck = ConvUnit(channels_in, inner, 1)
        self.conv3x3 = ConvUnit(inner, channels_out, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3x3(self.bottleneck(x))


class DenseFeature(nn.Module):
    """x[l, s] from x[l-1, s] and, where there is one, the finer x[l-1, s-1]."""

    def __init__(self, normal: Branch, down: Branch | None) -> None:
        super().__init__()
        self.normal = normal
        self.down = down

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        if self.down is None or finer is None:
            return torch.cat((x, self.normal(x)), dim=1)
        return torch.cat((x, self.down(finer), self.normal(x)), dim=1)


class Classifier(nn.Module):
    """Two 3x3 stride-2 convolutions, average over what is left of the map, linear.

    The published average is over 2x2 pixels, which is all that is left of the 8x8 map of a 32x32 image (and of the
    7x7 map of a 224x224 one). Averaging over the whole map is the same there, and defined for every other size.
    """

    def __init__(self, channels_in: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = ConvUnit(channels_in, channels, 3, 2)
        self.conv2 = ConvUnit(channels, channels, 3, 2)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv2(self.conv1(x)).mean((2, 3)))


@dataclass(frozen=True)
class Feature:
    """A node of the grid: what it is called, where it stands, and the features it is computed from."""

    name: str
    kind: str  # "stem", "layer" or "transition"
    block: int
    layer: int
    scale: int
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What exit k asks for: the features to compute now, and those that a later exit will still read."""

    compute: tuple[Feature, ...]
    live: tuple[str, ...]


def layers_per_block(blocks: int, base: int, step: int, step_mode: str) -> list[int]:
    """Layers of each block: ``base``, then ``step`` each (even) or ``step * k + 1`` in block k (lin_grow).

    >>> layers_per_block(7, 4, 2, "even"), layers_per_block(5, 1, 1, "lin_grow")
    ([4, 2, 2, 2, 2, 2, 2], [1, 2, 3, 4, 5])
    """
    if step_mode not in ("even", "lin_grow"):
        raise ValueError(f"step_mode is '{step_mode}'; expected 'even' or 'lin_grow'")
    return [base] + [step if step_mode == "even" else step * k + 1 for k in range(1, blocks)]


def scales_left(layer: int, depth: int, scales: int, prune: str) -> int:
    """How many of the ``scales`` layer ``layer`` (1..depth) still computes, the coarsest ones (appendix A).

    ``max`` drops a scale after each ``ceil(depth / scales)`` layers; ``min`` drops only what no classifier can see.
    """
    if prune == "max":
        return scales - (layer - 1) // math.ceil(depth / scales)
    return min(scales, depth - layer + 1)


class MSDNet(AnytimeModel):
    """MSDNet with ``blocks`` exits; the defaults are the anytime network of CIFAR-10 (section 5.1).

    ``base`` and ``step`` count the layers of the first and of each later block. A layer adds
    ``growth * scale_factors[s]`` channels at scale s, the first layer has ``channels * scale_factors[s]``;
    a bottleneck has ``bottleneck_factors[s]`` times the channels it feeds. ``stem`` is "cifar" (3x3) or "imagenet"
    (7x7 stride 2 and 3x3 stride-2 max pool; with 4 scales and ``classifier_channels=0``, the paper's ImageNet
    network). ``classifier_channels`` = 0 gives each classifier the width of what it reads. ``gradient_equilibrium``
    rescales the gradients that exits send into the coarsest scale, the only one they read, while training.
    Bad options raise ``ValueError`` with the option's name.
    """

    compacts = True

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        blocks: int = 7,
        base: int = 4,
        step: int = 2,
        step_mode: str = "even",
        channels: int = 16,
        growth: int = 6,
        scale_factors: Sequence[int] = (1, 2, 4),
        bottleneck_factors: Sequence[int] = (1, 2, 4),
        prune: str = "max",
        reduction: float = 0.5,
        stem: str = "cifar",
        classifier_channels: int = 128,
        lazy: bool = True,
        gradient_equilibrium: bool = False,
    ) -> None:
        super().__init__()
        _check(blocks, base, step, channels, growth, scale_factors, bottleneck_factors, prune, reduction, stem)
        self.lazy = lazy
        self.gradient_equilibrium = gradient_equilibrium
        self.steps = layers_per_block(blocks, base, step, step_mode)
        self.num_exits = blocks
        # The stem is the first tick, as in every residual row; all scales of a layer run side by side.
        self.ticks = tuple(1 + sum(self.steps[: k + 1]) for k in range(blocks))
        self.features = nn.ModuleDict()
        self.grid: list[Feature] = []
        self.exit_features: list[str] = []
        self.classifiers = nn.ModuleList()

        factors, bottlenecks, last = scale_factors, bottleneck_factors, len(scale_factors) - 1
        depth, width = sum(self.steps), channels
        current = self._grow_stem(in_channels, channels, factors, stem)
        layer = 0
        for block, layers in enumerate(self.steps):
            for _ in range(layers):
                layer += 1
                finest = len(factors) - scales_left(layer, depth, len(factors), prune)
                previous, current = current, {}
                for s in range(finest, len(factors)):
                    # At the finest scale left, a scale that has just been dropped is read once more.
                    has_finer = s - 1 in previous
                    out = growth * factors[s] // (2 if has_finer else 1)
                    normal = Branch(width * factors[s], out, bottlenecks[s], stride=1)
                    down = Branch(width * factors[s - 1], out, bottlenecks[s - 1], stride=2) if has_finer else None
                    inputs = (previous[s], previous[s - 1]) if has_finer else (previous[s],)
                    current[s] = self._add(DenseFeature(normal, down), "layer", block, layer, s, inputs)
                width += growth
                if reduction > 0 and _has_transition(layer, depth, prune, len(current) < len(previous)):
                    wide, width = width, math.floor(reduction * width)
                    for s, source in current.items():
                        unit = ConvUnit(wide * factors[s], width * factors[s], 1)
                        current[s] = self._add(unit, "transition", block, layer, s, (source,))
            self.exit_features.append(current[last])
            seen = width * factors[last]
            self.classifiers.append(Classifier(seen, classifier_channels or seen, num_classes))
        self._lazy_steps = self._schedule(lazy=True)
        self._eager_steps = self._schedule(lazy=False)

    def _add(self, module: nn.Module, kind: str, block: int, layer: int, scale: int, inputs: tuple[str, ...]) -> str:
        name = f"l{layer}s{scale}" + ("_transition" if kind == "transition" else "")
        self.features[name] = module
        self.grid.append(Feature(name, kind, block, layer, scale, inputs))
        return name

    def _grow_stem(self, in_channels: int, channels: int, factors: Sequence[int], stem: str) -> dict[int, str]:
        first: nn.Module = ConvUnit(in_channels, channels * factors[0], 3)
        if stem == "imagenet":
            first = nn.Sequential(ConvUnit(in_channels, channels * factors[0], 7, 2), nn.MaxPool2d(3, 2, 1))
        current = {0: self._add(first, "stem", 0, 0, 0, ("images",))}
        for s in range(1, len(factors)):
            unit = ConvUnit(channels * factors[s - 1], channels * factors[s], 3, 2)
            current[s] = self._add(unit, "stem", 0, 0, s, (current[s - 1],))
        return current

    def _schedule(self, lazy: bool) -> list[Step]:
        """Which features each exit computes. Lazy: when first needed; else block by block, needed or not."""
        by_name = {feature.name: feature for feature in self.grid}
        due: dict[str, int] = {} if lazy else {feature.name: feature.block for feature in self.grid}
        for k, exit_feature in enumerate(self.exit_features):
            pending = [exit_feature]
            while pending:
                name = pending.pop()
                if name != "images" and name not in due:
                    due[name] = k
                    pending.extend(by_name[name].inputs)
        steps = []
        for k in range(self.num_exits):
            later = {source for f in self.grid if due.get(f.name, -1) > k for source in f.inputs}
            live = tuple(f.name for f in self.grid if f.name in later and due[f.name] <= k)
            steps.append(Step(tuple(f for f in self.grid if due.get(f.name) == k), live))
        return steps

    def _steps(self) -> list[Step]:
        # Training computes whole blocks, as published: with some depths the last layer holds features that no exit
        # reads, and their running statistics would otherwise differ from the published network's.
        return self._lazy_steps if self.lazy and not self.training else self._eager_steps

    def _compute(self, step: Step, features: dict[str, Tensor]) -> None:
        for feature in step.compute:
            features[feature.name] = self.features[feature.name](*[features[name] for name in feature.inputs])

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, C)`` of one exit after another; ``send`` a mask ``(B,)`` to go on with some samples alone."""
        return self._answers(images, self._steps())

    def executions(self) -> dict[str, Callable[[Tensor], Iterator[Tensor]]]:
        """Other ways to the same answers: ``whole_blocks``, in which a block computes all its features first."""
        return {"whole_blocks": lambda images: self._answers(images, self._eager_steps)}

    def _answers(self, images: Tensor, steps: Sequence[Step]) -> Generator[Tensor, Tensor | None, None]:
        features = {"images": images}
        for k, step in enumerate(steps):
            self._compute(step, features)
            name = self.exit_features[k]
            classified = features[name]
            if self.gradient_equilibrium:
                classified, features[name] = equilibrate(classified, classified, k, self.num_exits)
            keep = yield self.classifiers[k](classified)
            features = {name: features[name] if keep is None else features[name][keep] for name in step.live}

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit k without the classifiers before it."""
        self.check_exit(k)
        features = {"images": images}
        for step in self._steps()[: k + 1]:
            self._compute(step, features)
        return self.classifiers[k](features[self.exit_features[k]])


def _has_transition(layer: int, depth: int, prune: str, dropped: bool) -> bool:
    """Whether the width is reduced after ``layer``: where a scale is dropped, or at thirds of the depth for ``min``."""
    if prune == "max":
        return dropped
    return layer in (depth // 3, 2 * depth // 3)


def _check(
    blocks: int,
    base: int,
    step: int,
    channels: int,
    growth: int,
    scale_factors: Sequence[int],
    bottleneck_factors: Sequence[int],
    prune: str,
    reduction: float,
    stem: str,
) -> None:
    for name, count in {"blocks": blocks, "base": base, "step": step, "channels": channels, "growth": growth}.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; expected at least 1")
    if not scale_factors or len(scale_factors) != len(bottleneck_factors):
        raise ValueError(
            f"scale_factors {tuple(scale_factors)} and bottleneck_factors {tuple(bottleneck_factors)}: "
            "expected one of each per scale, and at least one scale"
        )
    for factor in scale_factors[1:]:
        if growth * factor % 2:
            raise ValueError(
                f"growth {growth} times scale factor {factor} is odd; it is shared by two branches and must be even"
            )
    if prune not in ("max", "min"):
        raise ValueError(f"prune is '{prune}'; expected 'max' or 'min'")
    if not 0 <= reduction <= 1:
        raise ValueError(f"reduction is {reduction}; expected a number from 0 (no transition) to 1")
    if stem not in ("cifar", "imagenet"):
        raise ValueError(f"stem is '{stem}'; expected 'cifar' or 'imagenet'")
