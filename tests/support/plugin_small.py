"""A method of three linear exits on digits that trains in well under a second; width and scale are options."""

from dataclasses import dataclass

from torch import nn

from anytime_bench import AnytimeModel, Method, MethodCard

WIDTHS = (4, 8, 16)


class SmallNet(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, pixels, classes, width):
        super().__init__()
        sizes = [width * factor for factor in WIDTHS]
        self.bodies = nn.ModuleList(nn.Linear(a, b) for a, b in zip([pixels, *sizes], sizes, strict=False))
        self.heads = nn.ModuleList(nn.Linear(size, classes) for size in sizes)

    def stream(self, images):
        x = images.flatten(1)
        for body, head in zip(self.bodies, self.heads, strict=True):
            x = body(x).relu()
            yield head(x)


@dataclass
class SmallConfig:
    width: int = 1
    scale: float = 1.0


class Small(Method):
    card = MethodCard("Small", deviations=("it is small",))
    Config = SmallConfig

    def build(self, task):
        depth, height, width = task.shape
        return SmallNet(depth * height * width, task.num_classes, self.config.width)

    def training_loss(self, model, images, targets, progress):
        return self.config.scale * super().training_loss(model, images, targets, progress)
