"""The second exit is a second look at the first one's work."""

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
        first = self.blocks[0](images).relu()
        sharp = self.heads[0](first.mean((2, 3)))
        yield sharp
        yield 2 * sharp
        second = self.blocks[2](self.blocks[1](first).relu()).relu()
        yield self.heads[1](second.mean((2, 3))) + self.heads[2](second.amax((2, 3)))


class PlantedMacsIncrease(Method):
    card = MethodCard(title="Planted fault")

    def build(self, task):
        return Net(task)
