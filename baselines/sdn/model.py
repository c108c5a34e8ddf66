"""Shallow-Deep Networks: a residual network with internal classifiers (ICs) at fixed shares of its cost.

Source: Kaya, Hong, Dumitras, *Shallow-Deep Networks: Understanding and Mitigating Network Overthinking*, ICML 2019
(arXiv 1810.07052), sections 3 and 4. An IC reads the output of a residual block::

    mixed    = alpha max_pool(x) + (1 - alpha) avg_pool(x)         alpha learned, one number per IC, begins in U(0, 1)
    logits   = linear(flatten(mixed))

with a pooling window of a quarter of the map (none below 4 pixels), so that maps of 32, 16 and 8 pixels all become
4x4. The ICs stand after the blocks whose share of the measured MACs is nearest to 15, 30, 45, 60, 75 and 90 %.

Losses over the ICs i and the final exit::

    SDN training      sum_i tau_i CE_i + CE_final,  tau_i(e) = min(C_i, 0.01 + e C_i / E) in epoch e = 1..E
    IC-only training  sum_i CE_i, the network itself frozen

An IC may read the block's sum before its last ReLU (``ic_input="pre"``) or after it (``"post"``); the published code
does either, depending on how a network got into memory.

Shapes: images ``(B, D, H, W)``, logits of an exit ``(B, C)``, logits of all exits ``(E, B, C)``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import AnytimeModel
from baselines.gradient_equilibrium import equilibrate
from baselines.residual import Backbone

#: Nominal shares of the network's cost at which the ICs stand, and the largest weights of their losses (section 4.2).
POSITIONS = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)


def pooling_window(size: int) -> int:
    """Window of the feature reduction for a map ``size`` pixels wide: a quarter, or -1 (no pooling) below 4.

    >>> [pooling_window(size) for size in (2, 4, 8, 16, 32)]
    [-1, 1, 2, 4, 8]
    """
    return -1 if size < 4 else size // 4


def survey(backbone: Backbone, image_shape: Sequence[int]) -> tuple[list[int], list[tuple[int, int, int]]]:
    """MACs of each block for one image ``image_shape`` (D, H, W), and the shape (C, H, W) of each block's output.

    The stem's MACs count in the first block, the head's come last. They are those of the executed convolutions and
    matrix products, measured on PyTorch's meta device, where shapes are worked out and no arithmetic is done.
    """
    ghost = copy.deepcopy(backbone).to("meta").eval()
    stem, x = _macs_of(ghost.stem, torch.empty(1, *image_shape, device="meta"))
    macs, shapes = [], []
    for block in ghost.blocks:
        cost, x = _macs_of(block, x)
        macs.append(cost)
        shapes.append((x.shape[1], x.shape[2], x.shape[3]))
    macs[0] += stem
    return [*macs, _macs_of(ghost.head, x)[0]], shapes


def _macs_of(module: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = module(x)
    return int(counter.get_total_flops()) // 2, out


def place_classifiers(macs: Sequence[int], positions: Sequence[float] = POSITIONS) -> dict[int, float]:
    """Block (from 0) to nominal position, for the blocks whose cumulative share of ``macs`` is nearest to a position.

    ``macs`` as from ``survey``, the head last. The last block gets no IC, the head being there; where two
    positions meet at one block, the nearer one keeps it, so a short network has fewer ICs.

    >>> place_classifiers([10] * 10 + [0], (0.15, 0.3, 0.32, 1.0))
    {0: 0.15, 2: 0.3, 8: 1.0}
    """
    total, done, shares = sum(macs), 0, []
    for cost in macs[:-2]:
        done += cost
        shares.append(done / total)
    placed: dict[int, float] = {}
    for position in positions if shares else ():
        block = min(range(len(shares)), key=lambda b: abs(shares[b] - position))
        if block not in placed or abs(shares[block] - position) < abs(shares[block] - placed[block]):
            placed[block] = position
    return dict(sorted(placed.items()))


class InternalClassifier(nn.Module):
    """Feature reduction and a linear layer, for a map of ``channels`` x ``height`` x ``width``.

    The window is chosen per side. ``alpha`` weights the maximum and is not confined to [0, 1]. Where the window is a
    single pixel the mix is the map itself: ``alpha`` exists, as published, and takes no gradient. The linear layer
    reads ``further`` numbers beside the map.
    """

    def __init__(self, channels: int, height: int, width: int, num_classes: int, further: int = 0) -> None:
        super().__init__()
        windows = pooling_window(height), pooling_window(width)
        self.window = (max(1, windows[0]), max(1, windows[1]))
        self.alpha = nn.Parameter(torch.rand(1), requires_grad=max(windows) > 1) if max(windows) > 0 else None
        features = channels * (height // self.window[0]) * (width // self.window[1])
        self.linear = nn.Linear(features + further, num_classes)

    def reduce(self, x: Tensor) -> Tensor:
        """The mix of maximum and average over windows, ``(B, channels, h, w)``."""
        if self.alpha is None or self.window == (1, 1):
            return x
        return self.alpha * F.max_pool2d(x, self.window) + (1 - self.alpha) * F.avg_pool2d(x, self.window)

    def forward(self, x: Tensor, further: Tensor | None = None) -> Tensor:
        """Logits ``(B, classes)`` of ``x (B, C, H, W)`` and, where there are some, ``further (B, F)`` numbers."""
        features = self.reduce(x).flatten(1)
        return self.linear(features if further is None else torch.cat((features, further), dim=1))


def plain_classifier(k: int, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The IC of exit ``k`` for maps of ``shape`` (C, H, W)."""
    return InternalClassifier(*shape, num_classes)


class ShallowDeepNet(AnytimeModel):
    """``backbone`` with internal classifiers placed by its MACs on images of ``image_shape`` (D, H, W).

    ``positions`` are the shares of the MACs at which they stand; ``blocks`` names the blocks instead, from 0.
    ``make_classifier`` builds the IC of exit k for the shape (C, H, W) it reads. With ``frozen`` only the ICs learn:
    the backbone's weights take no gradient and its batch norm stays in eval mode even in ``train()``.
    ``gradient_equilibrium`` rescales the gradients that the exits send into the blocks while training.
    Raises ValueError for an ``ic_input`` other than "pre" or "post".
    """

    compacts = True

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 10,
        image_shape: Sequence[int] = (3, 32, 32),
        ic_input: str = "pre",
        positions: Sequence[float] = POSITIONS,
        frozen: bool = False,
        gradient_equilibrium: bool = False,
        blocks: Sequence[int] | None = None,
        make_classifier: Callable[[int, tuple[int, int, int], int], nn.Module] = plain_classifier,
    ) -> None:
        super().__init__()
        if ic_input not in ("pre", "post"):
            raise ValueError(f"ic_input is '{ic_input}'; expected 'pre' (before the block's ReLU) or 'post'")
        self.image_shape = tuple(image_shape)
        self.backbone = backbone
        self.ic_input = ic_input
        self.frozen = frozen
        self.gradient_equilibrium = gradient_equilibrium
        macs, shapes = survey(backbone, image_shape)
        placed = place_classifiers(macs, positions)
        if blocks is not None:
            placed = {block: sum(macs[: block + 1]) / sum(macs) for block in sorted(blocks)}
        #: Blocks, from 0, after which an IC stands, and each IC's nominal share of the cost (the C_i of the loss).
        self.ic_blocks = tuple(placed)
        self.nominal = tuple(placed.values())
        self.num_exits = len(placed) + 1
        # The stem is the first tick, so block b (from 0) is done at tick b + 2.
        self.ticks = (*(block + 2 for block in placed), len(backbone.blocks) + 1)
        self.classifiers = nn.ModuleList(
            make_classifier(k, shapes[block], num_classes) for k, block in enumerate(placed)
        )
        if frozen:
            backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> ShallowDeepNet:
        """As ``nn.Module.train``, except that a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, C)`` of one exit after another; ``send`` a mask ``(B,)`` to go on with some samples alone."""
        x, done = self._begin(images), 0
        for k, (classifier, block) in enumerate(zip(self.classifiers, self.ic_blocks, strict=True)):
            read, x = self._advance(x, done, block)
            if self.gradient_equilibrium:
                read, x = equilibrate(read, x, k, self.num_exits)
            keep = yield classifier(read)
            x, done = x if keep is None else x[keep], block + 1
        yield self._finish(x, done)

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit k without the ICs before it."""
        self.check_exit(k)
        x = self._begin(images)
        if k < len(self.ic_blocks):
            return self.classifiers[k](self._advance(x, 0, self.ic_blocks[k])[0])
        return self._finish(x, 0)

    def _begin(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, but this network's classifiers were built for "
                f"(B, {', '.join(map(str, self.image_shape))})"
            )
        return self.backbone.stem(images)

    def _advance(self, x: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Blocks ``first`` to ``last``: what an exit after the last one reads, and what the network goes on with."""
        for block in self.backbone.blocks[first:last]:
            x = block(x)
        exit_block: Any = self.backbone.blocks[last]
        before, after = exit_block.split(x)
        return before if self.ic_input == "pre" else after, after

    def _finish(self, x: Tensor, first: int) -> Tensor:
        """Blocks from ``first`` on and the head."""
        for block in self.backbone.blocks[first:]:
            x = block(x)
        return self.backbone.head(x)


def tau(epoch: int, epochs: int, nominal: Sequence[float] = POSITIONS) -> tuple[float, ...]:
    """Weights of the ICs' losses in epoch ``epoch`` = 1..epochs (section 4.2).

    >>> tau(1, 100)[0], tau(100, 100)[:2]
    (0.0115, (0.15, 0.3))
    """
    return tuple(min(share, 0.01 + epoch * share / epochs) for share in nominal)


def exit_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of each exit ``(E,)`` from ``logits (E, B, C)`` and ``targets (B,)``."""
    return torch.stack([F.cross_entropy(exit_logits, targets) for exit_logits in logits])


def sdn_loss(logits: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Loss of SDN training: the ICs' cross-entropies times ``weights``, plus the final exit's."""
    losses = exit_losses(logits, targets)
    # Filled where it is used: a copy from the host would wait for the device, and cannot be captured.
    factors = torch.stack([losses.new_full((), weight) for weight in weights])
    return (losses[:-1] * factors).sum() + losses[-1]


def ic_only_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of IC-only training: the sum of the ICs' cross-entropies, the final exit left out."""
    return exit_losses(logits[:-1], targets).sum()
