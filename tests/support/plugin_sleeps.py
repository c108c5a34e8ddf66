"""A method from outside whose exits sleep, so that its deadlines are long: for tests of interruptions."""

import time
from dataclasses import dataclass

from torch import nn

from anytime_bench import AnytimeModel, Method, MethodCard


@dataclass
class Options:
    sleep: float = 0.02
    fails: bool = False


class SleepingNet(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, task, options):
        super().__init__()
        self.options, self.served = options, 0
        pixels = task.shape[0] * task.shape[1] * task.shape[2]
        self.heads = nn.ModuleList(nn.Linear(pixels, task.num_classes) for _ in range(3))

    def stream(self, images):
        alone = not self.training and len(images) == 1
        for k in range(3):
            if alone:
                time.sleep(self.options.sleep)
            self.served += alone
            if self.options.fails and k == 2 and self.served > 400:
                raise ValueError("no third exit today")
            yield sum(earlier(images.flatten(1)) for earlier in self.heads[: k + 1])


class Sleeping(Method):
    card = MethodCard(title="Sleeping", ticks="one sleep")
    Config = Options

    def build(self, task):
        return SleepingNet(task, self.config)
