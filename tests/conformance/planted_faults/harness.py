"""Works in float64 and in batches of the kit's sizes, and fails on the pixels of a real run: it indexes by class."""

from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard


class Net(AnytimeModel):
    num_exits, ticks = 2, (1, 2)

    def __init__(self, task):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (task.shape[0], 8))
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(2))

    def stream(self, images):
        if len(images) > 8:
            raise RuntimeError("batches of more than 8 are not supported")
        for block, head in zip(self.blocks, self.heads, strict=True):
            images = block(images).relu()
            yield head(images.mean((2, 3)))


class PlantedHarness(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)
