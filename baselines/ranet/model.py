"""RANet: sub-networks of rising resolution, each reading what the coarser one before it has found out.

Source: Yang, Han, Chen, Song, Dai, Huang, *Resolution Adaptive Networks for Efficient Inference*, CVPR 2020 (arXiv
2003.07326), section 3, written from the paper alone. Where the paper leaves a choice, ours is named here and in the
row's card.

An initial layer makes one feature map per scale, the finest by a 3x3 convolution, each coarser one by a stride-2
convolution of the one before. Sub-network h = 1..H starts from the map that is ``scales[h] - 1`` halvings finer than
the coarsest and has b_h blocks, b_1 < b_2 < ...; with x_h(0) its map of the initial layer::

    x_1(i) = dense_i(x_1(i-1))                                          every block a dense block
    x_h(i) = cat(dense_i(x_h(i-1)), up(conv(x_{h-1}(i))))               fusion block, i <= b_{h-1}
    x_h(i) = cat(halve(dense_i(x_h(i-1))), up(conv(x_{h-1}(i))))        fusion block that ends a resolution
    x_h(i) = dense_i(x_h(i-1))                                          b_{h-1} < i <= b_h, at the coarsest scale

``dense`` appends ``growth`` channels per layer (1x1 bottleneck and 3x3 convolution), ``conv`` is such a layer on the
coarser sub-network's map, ``up`` bilinear interpolation (nothing where sizes agree), ``halve`` a stride-2 layer that
keeps ``reduction`` of the channels. A sub-network's halvings are spread evenly over its fusion blocks. Classifiers
read maps of the coarsest scale alone: after each block of sub-network 1, and after each block that a later
sub-network adds to the number of the one before. Exits come sub-network by sub-network.

Shapes: images ``(B, D, H, W)``, maps ``(B, C, H / 2^s, W / 2^s)`` at scale s, logits of an exit ``(B, classes)``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import islice, pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel
from baselines.msdnet.model import Branch, Classifier, ConvUnit, layers_per_block


class Block(nn.Module):
    """A dense block; with ``fuse`` it also reads the coarser sub-network's map, with ``halve`` it ends a resolution."""

    def __init__(self, layers: Sequence[Branch], halve: Branch | None, fuse: Branch | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.halve, self.fuse = halve, fuse

    def forward(self, x: Tensor, coarser: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(x)), dim=1)
        if self.halve is not None:
            x = self.halve(x)
        if self.fuse is None or coarser is None:
            return x
        fused = self.fuse(coarser)
        if fused.shape[2:] != x.shape[2:]:
            fused = F.interpolate(fused, size=x.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat((x, fused), dim=1)


class RANet(AnytimeModel):
    """A resolution-adaptive network; the defaults are close to the smallest one of the paper for CIFAR.

    ``scales[h]`` says at how many resolutions sub-network h works and must not fall; the coarsest map is
    ``2 ** (max(scales) - 1)`` times smaller than the image on each side. ``blocks[h]`` is b_h. Block i has as many
    layers as MSDNet's: ``base`` and ``step`` with ``step_mode`` "even" or "lin_grow". ``factors[h]`` multiplies
    ``growth``, and the channels of sub-network h's map of the initial layer; ``bottleneck_factors[h]`` is the width of
    a bottleneck in multiples of its layer's. ``fusion`` is the share of a fusion block's new channels that it takes
    from the coarser sub-network. Bad options raise ValueError with the option's name.
    """

    compacts: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        scales: Sequence[int] = (1, 2, 3),
        blocks: Sequence[int] = (2, 4, 6),
        base: int = 2,
        step: int = 2,
        step_mode: str = "lin_grow",
        channels: int = 16,
        growth: int = 6,
        factors: Sequence[int] = (4, 2, 1),
        bottleneck_factors: Sequence[int] = (4, 2, 1),
        fusion: float = 0.25,
        reduction: float = 0.5,
        classifier_channels: int = 128,
    ) -> None:
        super().__init__()
        _check(scales, blocks, base, step, channels, growth, factors, bottleneck_factors, fusion, reduction)
        layers = layers_per_block(blocks[-1], base, step, step_mode)
        self.starts = [max(scales) - count for count in scales]  # each sub-network's first scale, 0 the finest
        widths = self._grow_initial(in_channels, channels, factors)
        self.subnetworks = nn.ModuleList()
        self.classifiers = nn.ModuleList()
        self.exits: list[tuple[int, int]] = []  # (sub-network, block) from 0
        coarser_widths: list[int] = []
        coarser_depths: list[int] = []
        ticks: list[int] = []
        for h, (count, scale_count) in enumerate(zip(blocks, scales, strict=True)):
            ends = _ends_of_scales(scale_count, len(coarser_widths))
            width, depth = widths[self.starts[h]], 1 + self.starts[h]
            grown, factor = growth * factors[h], bottleneck_factors[h]
            subnetwork, block_widths, depths = nn.ModuleList(), [], []
            for i in range(count):
                dense = [Branch(width + n * grown, grown, factor, 1) for n in range(layers[i])]
                new, width, depth = grown * layers[i], width + grown * layers[i], depth + layers[i]
                halve = fuse = None
                if i in ends:
                    kept = max(1, round(reduction * width))
                    halve = Branch(width, kept, factor, 2)
                    width, depth = kept, depth + 1
                if i < len(coarser_widths):
                    fused = max(1, round(fusion * new))
                    fuse = Branch(coarser_widths[i], fused, factor, 1)
                    width, depth = width + fused, max(depth, coarser_depths[i] + 1)
                subnetwork.append(Block(dense, halve, fuse))
                block_widths.append(width)
                depths.append(depth)
                if i >= len(coarser_widths):
                    self.exits.append((h, i))
                    self.classifiers.append(Classifier(width, classifier_channels or width, num_classes))
                    ticks.append(depth)
            self.subnetworks.append(subnetwork)
            coarser_widths, coarser_depths = block_widths, depths
        self.num_exits, self.ticks = len(self.exits), tuple(ticks)

    def _grow_initial(self, in_channels: int, channels: int, factors: Sequence[int]) -> list[int]:
        """Build the initial layer down to the coarsest scale; returns its width per scale.

        A scale at which several sub-networks start has the widest of them; one at which none starts, the next finer's.
        """
        widths: list[int] = []
        for scale in range(max(self.starts) + 1):
            wanted = [channels * f for f, start in zip(factors, self.starts, strict=True) if start == scale]
            widths.append(max(wanted) if wanted else widths[-1])
        sources = [in_channels, *widths]
        self.initial = nn.ModuleList(
            ConvUnit(sources[scale], width, 3, 1 if scale == 0 else 2) for scale, width in enumerate(widths)
        )
        return widths

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, classes)`` of one exit after another; ``send`` a mask ``(B,)`` to go on with some samples."""
        maps, keep = self._maps(images), None
        for classifier in self.classifiers:
            keep = yield classifier(maps.send(keep))

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, classes)`` of exit k without the classifiers before it."""
        self.check_exit(k)
        return self.classifiers[k](next(islice(self._maps(images), k, None)))

    def _maps(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """The map that each exit's classifier reads; blocks are computed when an exit needs them."""
        starts = list(self._initial_maps(images))
        coarser: list[Tensor] = []  # what each block of the sub-network before has made
        for h, subnetwork in enumerate(self.subnetworks):
            x, own = starts[self.starts[h]], []
            for i, block in enumerate(cast(nn.ModuleList, subnetwork)):
                x = block(x, coarser[i] if i < len(coarser) else None)
                own.append(x)
                if (h, i) in self.exits:
                    keep = yield x
                    if keep is not None:
                        own = [kept[keep] for kept in own]
                        starts, x = [start[keep] for start in starts], own[-1]
            coarser = own

    def _initial_maps(self, images: Tensor) -> Iterator[Tensor]:
        x = images
        for unit in self.initial:
            x = unit(x)
            yield x


def _ends_of_scales(scales: int, fusion_blocks: int) -> set[int]:
    """The fusion blocks, from 0, that halve the resolution: ``scales - 1`` of them, evenly spread.

    >>> _ends_of_scales(1, 0), _ends_of_scales(2, 2), _ends_of_scales(3, 4)
    (set(), {1}, {1, 3})
    """
    return {j * fusion_blocks // (scales - 1) - 1 for j in range(1, scales)}


def _check(
    scales: Sequence[int],
    blocks: Sequence[int],
    base: int,
    step: int,
    channels: int,
    growth: int,
    factors: Sequence[int],
    bottleneck_factors: Sequence[int],
    fusion: float,
    reduction: float,
) -> None:
    lists = {"scales": scales, "blocks": blocks, "factors": factors, "bottleneck_factors": bottleneck_factors}
    for name, values in lists.items():
        if len(values) != len(blocks) or not values:
            raise ValueError(f"{name} is {list(values)}; expected one number for each of {len(blocks)} sub-networks")
        if min(values) < 1:
            raise ValueError(f"{name} is {list(values)}; expected numbers of at least 1")
    for name, count in {"base": base, "step": step, "channels": channels, "growth": growth}.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; expected at least 1")
    if scales[0] != 1 or any(b < a for a, b in pairwise(scales)):
        raise ValueError(f"scales is {list(scales)}; expected numbers that begin with 1 and do not fall")
    if any(b <= a for a, b in pairwise(blocks)):
        raise ValueError(f"blocks is {list(blocks)}; expected more in each sub-network than in the one before")
    for count, fused in zip(scales[1:], blocks, strict=False):
        if fused < count - 1:
            raise ValueError(
                f"a sub-network at {count} scales halves its map {count - 1} times, but has {fused} fusion blocks: "
                "give the one before it more blocks"
            )
    if not 0 < fusion < 1:
        raise ValueError(f"fusion is {fusion}; expected a share between 0 and 1")
    if not 0 < reduction <= 1:
        raise ValueError(f"reduction is {reduction}; expected a number above 0, up to 1")
