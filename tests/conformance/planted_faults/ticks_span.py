"""Ticks that hardly grow, though every exit waits for all blocks before it."""

from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard


class Net(AnytimeModel):
    num_exits, ticks = 4, (1, 1.01, 1.02, 1.03)

    def __init__(self, task):
        super().__init__()
        channels = task.shape[0]
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (channels, 8, 8, 8))
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(4))

    def stream(self, images):
        for block, head in zip(self.blocks, self.heads, strict=True):
            images = block(images).relu()
            yield head(images.mean((2, 3)))


class PlantedTicksSpan(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)
