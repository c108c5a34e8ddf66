"""Models whose exits take known times, because they sleep: what is delivered at a deadline can be said beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from anytime_bench.methods.contract import AnytimeModel


class Sleeper(AnytimeModel):
    """Exit k is ready after (k + 1) sleeps and answers class k."""

    num_exits, ticks = 4, (1, 2, 3, 4)

    def __init__(self, sleep: float) -> None:
        super().__init__()
        self.sleep, self.scale = sleep, nn.Parameter(torch.ones(()))

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for k in range(self.num_exits):
            time.sleep(self.sleep)
            answer = torch.zeros(len(images), self.num_exits)
            answer[:, k] = 1.0
            yield answer * self.scale


class Raises(Sleeper):
    """Fails at exit 2 from its run number ``first`` on."""

    def __init__(self, sleep: float, first: int) -> None:
        super().__init__(sleep)
        self.first, self.runs = first, 0

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        self.runs += 1
        for k, logits in enumerate(super().stream(images)):
            if k == 2 and self.runs >= self.first:
                raise ValueError("no third exit today")
            yield logits


class Convolutions(AnytimeModel):
    """Three exits that compute: ``channels`` wide."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(c, channels, 3, padding=1) for c in (1, channels, channels))
        self.head = nn.Linear(channels, 4)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for block in self.blocks:
            images = block(images).relu()
            yield self.head(images.mean((2, 3)))
