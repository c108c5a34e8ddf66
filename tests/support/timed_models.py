"""Models whose times are known exactly: their clock is their own, so nothing waits."""

from __future__ import annotations

from torch import nn

from anytime_bench.methods.contract import AnytimeModel


class FakeTime:
    """Nanoseconds that pass only when a model works."""

    now = 0

    def work(self, milliseconds):
        self.now += round(milliseconds * 1e6)


class Worker(AnytimeModel):
    """Exit k takes ``steps[k]`` milliseconds more than the one before."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, time, steps=(1.0, 2.0, 4.0)):
        super().__init__()
        self.time, self.steps = time, steps
        self.heads = nn.ModuleList(nn.Linear(16, 5) for _ in steps)

    def __deepcopy__(self, memo):
        return self

    def stream(self, images):
        for step, head in zip(self.steps, self.heads, strict=True):
            self.time.work(step)
            yield head(images.flatten(1))
