"""A network with one answer, its end, as an anytime model: what rows without early exits are built of."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from anytime_bench.methods.contract import AnytimeModel


class SingleExit(AnytimeModel):
    """``network`` maps images ``(B, D, H, W)`` to logits ``(B, C)``; ``ticks`` is when it is done."""

    num_exits = 1

    def __init__(self, network: nn.Module, ticks: float) -> None:
        super().__init__()
        self.network = network
        self.ticks = (ticks,)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """Logits ``(B, C)``, once."""
        yield self.network(images)
