"""A recurrent convolutional network with bottom-up, lateral and top-down connections (BLT), a readout per step.

Source: Spoerer, Kietzmann, Mehrer, Charest, Kriegeskorte, *Recurrent neural networks can explain flexible trading of
speed and accuracy in biological vision*, PLOS Computational Biology 2020 (the network with lateral connections, BL);
top-down connections as in Spoerer, McClure, Kriegeskorte, Frontiers in Psychology 2017. With areas n = 1..N at steps
t = 0..T-1, h_0(t) the stem's features of the image::

    h_n(t) = relu(norm_{n,t}(B_n * down(h_{n-1}(t)) + L_n * h_n(t-1) + T_n * h_{n+1}(t-1)))    h_n(-1) = 0
    logits(t) = readout(mean over the map of h_N(t))

B_n and L_n are 3x3 convolutions, T_n a transposed 3x3 convolution of stride 2, ``down`` a 2x2 max pool (the identity
for n = 1). The weights are those of all steps; the norm has statistics per step. A step is a whole sweep from the stem
to the readout, so that already the first answer has seen the image.

*Ticks.* One tick is one layer of ideal parallel time, as one block is in a cascade: all areas work side by side, the
stem first. h_n(t) waits for h_{n-1}(t), h_n(t-1) and, with top-down connections, h_{n+1}(t-1), so that it is done at
tick 1 + n + 2 t; without them at 1 + n + t. Step t reads the image that is there when its stem begins.

Shapes: images ``(B, D, H, W)``, logits of an exit ``(B, C)``, frames ``(F, B, D, H, W)``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel
from baselines.cascade.norm import TemporalNorm
from baselines.residual import Head, Stem


class Area(nn.Module):
    """One layer: a bottom-up convolution from ``channels_in``, recurrent ones where asked for, a norm with a row per
    step. ``channels_above`` is None for an area without top-down connections."""

    def __init__(self, channels_in: int, channels: int, channels_above: int | None, lateral: bool, steps: int) -> None:
        super().__init__()
        self.bottom_up = nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)
        self.lateral = nn.Conv2d(channels, channels, 3, 1, 1, bias=False) if lateral else None
        self.top_down: nn.ConvTranspose2d | None = None
        if channels_above is not None:
            self.top_down = nn.ConvTranspose2d(channels_above, channels, 3, 2, 1, bias=False)
        self.norm = TemporalNorm(channels, steps)

    def forward(self, drive: Tensor, own: Tensor | None, above: Tensor | None, step: int) -> Tensor:
        """Activity at ``step`` from the bottom-up ``drive (B, channels, H, W)`` and the activities of the step before.

        ``drive`` is left as it is.
        """
        total = drive
        if self.lateral is not None and own is not None:
            total = total + self.lateral(own)
        if self.top_down is not None and above is not None:
            total = total + self.top_down(above, output_size=drive.shape[-2:])
        return self.norm(drive.clone() if total is drive else total, first=step, relu=True)


@dataclass
class Activity:
    """What a network carries from step to step: the first area's drive, and the activity of each area."""

    drive: Tensor | None = None
    areas: list[Tensor] = field(default_factory=list)

    def keep(self, mask: Tensor) -> None:
        """Drop the samples that ``mask (B,)`` leaves out."""
        assert self.drive is not None
        self.drive, self.areas = self.drive[mask], [area[mask] for area in self.areas]


class RecurrentNet(AnytimeModel):
    """``areas`` layers of ``width``, 2 ``width``, 4 ``width``, ... channels, run for ``steps`` steps with an exit each.

    ``stem_pool`` as in the suite's ResNet. Raises ValueError for sizes below 1.
    """

    compacts = True

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        areas: int = 4,
        steps: int = 8,
        lateral: bool = True,
        top_down: bool = True,
        stem_pool: bool = True,
    ) -> None:
        super().__init__()
        for name, size in {"width": width, "areas": areas, "steps": steps}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}, but every size must be at least 1")
        channels = [width * 2**n for n in range(areas)]
        self.stem = Stem(in_channels, width, stem_pool)
        self.areas = nn.ModuleList(
            Area(below, own, above if top_down else None, lateral, steps)
            for below, own, above in zip([width, *channels], channels, [*channels[1:], None], strict=False)
        )
        self.readout = Head(channels[-1], num_classes)
        #: Ticks from the start of one step to that of the next.
        self.period = 2 if top_down and areas > 1 else 1
        self.num_exits = steps
        self.ticks = tuple(1 + areas + self.period * step for step in range(steps))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, C)`` of one step after another; the image's own drive is computed once.

        ``send`` a mask ``(B,)`` to go on with some samples alone.
        """
        activity = Activity()
        for step in range(self.num_exits):
            keep = yield self.readout(self._advance(activity, step, images if step == 0 else None))
            if keep is not None:
                activity.keep(keep)

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit k, without the readouts before it."""
        self.check_exit(k)
        activity = Activity()
        for step in range(k):
            self._advance(activity, step, images if step == 0 else None)
        return self.readout(self._advance(activity, k, images if k == 0 else None))

    def watch(self, frames: Tensor) -> Iterator[Tensor]:
        """Logits ``(B, C)`` of one step after another, step t reading the frame of tick ``period * t``.

        Raises ValueError where there are fewer frames than the last step needs.
        """
        needed = self.period * (self.num_exits - 1) + 1
        if frames.ndim != 5 or len(frames) < needed:
            raise ValueError(f"frames have shape {tuple(frames.shape)}, expected ({needed} or more, B, D, H, W)")
        activity = Activity()
        for step in range(self.num_exits):
            yield self.readout(self._advance(activity, step, frames[self.period * step]))

    def _advance(self, activity: Activity, step: int, images: Tensor | None) -> Tensor:
        """One step on new ``images``, or on those of the step before; the highest area's activity."""
        areas, before = cast("list[Area]", list(self.areas)), activity.areas
        if images is not None:
            activity.drive = areas[0].bottom_up(self.stem(images))
        assert activity.drive is not None
        now: list[Tensor] = []
        for n, area in enumerate(areas):
            drive = area.bottom_up(_halve(now[-1])) if n else activity.drive
            own = before[n] if before else None
            above = before[n + 1] if n + 1 < len(before) else None
            now.append(area(drive, own, above, step))
        activity.areas = now
        return now[-1]


def _halve(x: Tensor) -> Tensor:
    """The maximum over 2x2 windows; a last odd row or column is a window of its own."""
    return F.max_pool2d(x, 2, ceil_mode=True)
