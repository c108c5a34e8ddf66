"""The last images and their answers are kept."""

import torch
from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard


class Net(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, task):
        super().__init__()
        channels = task.shape[0]
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (channels, 8, 8))
        self.seen, self.answers = None, []
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(3))

    def stream(self, images):
        if not self.training and self.seen is not None and torch.equal(self.seen, images):
            yield from self.answers
            return
        self.seen, self.answers, features = None, [], images
        for block, head in zip(self.blocks, self.heads, strict=True):
            features = block(features).relu()
            self.answers.append(head(features.mean((2, 3))).detach() if not self.training else None)
            yield self.answers[-1] if not self.training else head(features.mean((2, 3)))
        self.seen = images.clone()


class PlantedSameInputTwice(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)
