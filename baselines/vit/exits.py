"""A Vision Transformer with a head after every n-th block.

Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929) for the network; Bakhtiarnia, Zhang, Iosifidis, *Multi-Exit
Vision Transformer for Dynamic Inference*, 2021 (arXiv 2106.15183) for heads between its blocks. A head is what the
network has at its end, final norm, pool and linear layer, with weights of its own; the last exit is the network's own
answer.

Shapes: images ``(B, D, H, W)``, tokens ``(B, T, C)``, logits of an exit ``(B, classes)``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel
from baselines.vit.network import check_images, embed, read_out, readouts


class ViTExits(AnytimeModel):
    """``network`` with exits after the blocks ``every``, ``2 * every``, ... (counted from 1) and after the last."""

    compacts: ClassVar[bool] = True

    def __init__(self, network: VisionTransformer, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise UserError(f"every={every}: expected 1 (a head after each block) or more.")
        self.network = network
        depth = len(network.blocks)
        #: How many blocks are done at each exit.
        self.exit_blocks = (*range(every, depth, every), depth)
        self.readouts = readouts(network, len(self.exit_blocks) - 1)
        self.num_exits = len(self.exit_blocks)
        # The embedding is the first tick, and a block's two branches take one each.
        self.ticks = tuple(1 + 2 * blocks for blocks in self.exit_blocks)

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, classes)`` of one exit after another; ``send`` a mask ``(B,)`` to go on with some samples."""
        check_images(self.network, images)
        tokens, done = embed(self.network, images), 0
        for k, blocks in enumerate(self.exit_blocks):
            tokens, done = self.network.blocks[done:blocks](tokens), blocks
            keep = yield self._answer(tokens, k)
            tokens = tokens if keep is None else tokens[keep]

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, classes)`` of exit k without the heads before it."""
        self.check_exit(k)
        check_images(self.network, images)
        return self._answer(self.network.blocks[: self.exit_blocks[k]](embed(self.network, images)), k)

    def _answer(self, tokens: Tensor, k: int) -> Tensor:
        return read_out(self.readouts[k] if k < len(self.readouts) else self.network, tokens)
