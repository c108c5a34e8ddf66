"""Two exits: a linear classifier on the pixels, then one on the features of a convolution."""

from collections.abc import Iterator
from math import prod

from torch import Tensor, nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.tasks.task import TaskCard


class TwoExitsNet(AnytimeModel):
    num_exits, ticks = 2, (1, 2)

    def __init__(self, task: TaskCard) -> None:
        super().__init__()
        channels, height, width = task.shape
        self.early = nn.Linear(prod(task.shape), task.num_classes)
        self.body = nn.Conv2d(channels, 16, 3, padding=1)
        self.late = nn.Linear(16 * height * width, task.num_classes)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        yield self.early(images.flatten(1))
        yield self.late(self.body(images).relu().flatten(1))


class TwoExits(Method):
    card = MethodCard(title="Two exits", ticks="one tick is one classifier")

    def build(self, task: TaskCard) -> AnytimeModel:
        return TwoExitsNet(task)
