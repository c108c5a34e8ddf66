"""A method from outside, in one file: what the README shows."""

from torch import nn

from anytime_bench import AnytimeModel, Method, MethodCard


class TwoExitNet(AnytimeModel):
    num_exits, ticks = 2, (1, 2)

    def __init__(self, task):
        super().__init__()
        d, h, w = task.shape
        self.first = nn.Sequential(nn.Conv2d(d, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.early, self.late = nn.Linear(16 * h * w, task.num_classes), nn.Linear(32 * h * w, task.num_classes)

    def stream(self, images):
        x = self.first(images)
        yield self.early(x.flatten(1))
        yield self.late(self.second(x).flatten(1))


class TwoExits(Method):
    card = MethodCard(title="Two exits", ticks="one convolution")

    def build(self, task):
        return TwoExitNet(task)
