"""A model that answers with fixed logits, to test what is made of answers without a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel


class FixedAnswers(AnytimeModel):
    """Answers with ``logits (E, B, C)``, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.num_exits, self.ticks = logits, len(logits), tuple(range(1, len(logits) + 1))

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """The logits, exit by exit."""
        yield from self.logits
