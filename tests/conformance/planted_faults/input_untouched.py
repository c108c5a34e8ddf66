"""The images are normalised in place."""

from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard


class Net(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, task):
        super().__init__()
        channels = task.shape[0]
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (channels, 8, 8))
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(3))

    def stream(self, images):
        images -= images.mean((1, 2, 3), keepdim=True)
        for block, head in zip(self.blocks, self.heads, strict=True):
            images = block(images).relu()
            yield head(images.mean((2, 3)))


class PlantedInputUntouched(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)
