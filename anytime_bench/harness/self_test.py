"""Does the harness measure equal things as equal? Two copies of one small ResNet, timed against each other (A/A).

The interval of their ratio must contain 1 and be narrow; where it is not, no comparison made here and now holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.scores.results import Estimate

#: Widest relative interval of the A/A ratio on a quiet machine.
WIDTH_ALLOWED = {"cpu": 0.05, "cuda": 0.01}


class EqualRatio(Estimate):
    """A ratio that should be 1, with the width of its interval relative to it."""

    width: float
    contains_one: bool
    narrow: bool

    @property
    def holds(self) -> bool:
        return self.contains_one and self.narrow


class SelfTest(BaseModel):
    """Whether equal models measure as equal: ``passed`` where, on every clock, the 99 % interval of the ratio contains
    1 and is narrow enough for the device; ``verdict`` puts it into a sentence."""

    passed: bool
    verdict: str
    width_allowed: float
    clocks: dict[str, EqualRatio]
    engine: str
    threads: int | None
    rounds: int
    stopped_because: str
    comparable: bool
    reasons: list[str]
    queue_share: float | None


class PlainResNet(AnytimeModel):
    """Stem, four residual blocks and a linear head; the one exit of a network that cannot be interrupted."""

    num_exits, ticks = 1, (5.0,)

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stem = _unit(3, width)
        self.blocks = nn.ModuleList(nn.Sequential(_unit(width, width), _unit(width, width)) for _ in range(4))
        self.head = nn.Linear(width, classes)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x)
        yield self.head(x.mean((2, 3)))


def _unit(channels_in: int, channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


def self_test(
    device: torch.device | str = "cpu",
    seconds: float = 10.0,
    threads: int | None = None,
    engine: str = "auto",
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
) -> SelfTest:
    """Time two copies of one model against each other for about ``seconds``."""
    device = torch.device(device)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = PlainResNet().to(device)
        images = torch.randn(64, 3, 32, 32)
    settings = TimingSettings(engine=engine, budget_seconds=seconds, seed=seed, threads=threads, target=0.0)
    summary = time_exits(copy.deepcopy(model), model, images, device, settings, progress).summary()
    allowed = WIDTH_ALLOWED.get(device.type, WIDTH_ALLOWED["cpu"])
    clocks = {clock: _judge(block.a_a, allowed) for clock, block in summary.headline.clocks.items() if block.a_a}
    passed = all(ratio.holds for ratio in clocks.values())
    faults = [
        f"the {name} ratio of two copies of one model is {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"
        for name, ratio in clocks.items()
        if not ratio.holds
    ]
    reasons = summary.headline.reasons
    return SelfTest(
        passed=passed,
        verdict="equal models measure as equal" if passed else "; ".join(dict.fromkeys(faults + reasons)),
        width_allowed=allowed,
        clocks=clocks,
        engine=summary.meta.engine,
        threads=summary.meta.threads,
        rounds=summary.headline.rounds,
        stopped_because=summary.headline.stopped_because,
        comparable=not reasons,
        reasons=reasons,
        queue_share=summary.latency.queue_share,
    )


def _judge(ratio: Estimate, allowed: float) -> EqualRatio:
    width = (ratio.high - ratio.low) / ratio.value
    return EqualRatio(**dict(ratio), width=width, contains_one=ratio.low <= 1 <= ratio.high, narrow=width < allowed)
