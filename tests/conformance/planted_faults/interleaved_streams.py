"""What a stream computed last lies on the model, where another stream overwrites it."""

from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard


class Net(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, task):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (task.shape[0], 8, 8))
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(3))

    def stream(self, images):
        self.features = images
        for block, head in zip(self.blocks, self.heads, strict=True):
            self.features = block(self.features).relu()
            yield head(self.features.mean((2, 3)))


class PlantedInterleavedStreams(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)
