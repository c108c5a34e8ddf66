"""A temperature that only ``finish`` adds: the stored weights fit no freshly built model."""

import torch
from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard


class Net(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, task):
        super().__init__()
        channels = task.shape[0]
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (channels, 8, 8))
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(3))
        self.temperature = None

    def stream(self, images):
        for block, head in zip(self.blocks, self.heads, strict=True):
            images = block(images).relu()
            logits = head(images.mean((2, 3)))
            yield logits if self.temperature is None else logits / self.temperature


class PlantedFinish(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)

    def finish(self, model, batches):
        model.temperature = nn.Parameter(torch.full((), 2.0))
