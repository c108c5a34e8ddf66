"""The cascaded ResNet: every residual block works at every step, its residual arriving one step late.

Source: Iuzzolino, Mozer, Bengio, *Improving Anytime Prediction with Parallel Cascaded Networks and a
Temporal-Difference Loss*, NeurIPS 2021 (arXiv 2102.09808). For blocks l = 1..L with residual
branch F_l and shortcut S_l, at step k::

    in_1(k)   = stem(image at step k)
    out_l(k)  = relu(S_l(in_l(k)) + m_l(k) d_l(k))                    in_{l+1}(k) = out_l(k)
    d_l(k)    = F_l(in_l(k-1)), d_l(0) = 0                            delay "osd": one step
    d_l(k)    = a d_l(k-1) + (1-a) F_l(in_l(k)), d_l(-1) = 0          delay "ews": exponential smoothing
    m_l(k)    = 1 for the parallel schedule, [k >= l] for the serial one
    logits(k) = head(pool(out_L(k))),  k = 0..E-1, E = L + 1 by default

At k = L (osd) this is the plain ResNet with the same weights; serial exit k is that ResNet without the residual
branches above block k. ``stem_delay=True`` is the published form, where the stem's output passes the delay too: exit 0
is then blind, and exit L is one step short of full depth.

Three executors give the same numbers. ``forward`` goes block by block: a block's input takes few distinct values over
the steps (block l's settles at step l-1 for a still image), and all of them go through the block in one batch.
``stream`` goes step by step, lazily, and leaves alone what did not change; on a GPU the blocks run side by side, each
in a lane of its own (:mod:`baselines.cascade.parallel`).

Shapes: images ``(B, D, H, W)``, logits ``(E, B, C)``, frames ``(F, B, D, H, W)``; features of the n distinct steps of a
sequence ``(n * B, C, H, W)``, step by step, the last step standing for all later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel
from baselines.cascade.blocks import BLOCKS, Block
from baselines.cascade.fast import convolve, folded, join, suited
from baselines.cascade.norm import TemporalNorm
from baselines.cascade.parallel import lanes_for
from baselines.cascade.stepwise import LazySteps
from baselines.residual import Stem, check_sizes, initialise


class CascadedResNet(AnytimeModel):
    """A ResNet with ``sum(blocks)`` residual blocks, run as a cascade.

    ``blocks`` gives the number of blocks per stage; stage s has ``width * 2**s`` channels (four times that at its
    output with ``block="bottleneck"``). ``heads="multi"`` gives every exit a linear layer of its own. ``num_exits``
    may exceed L + 1. ``stem_pool=False`` leaves out the stem's max pool, for small images. ``inner`` gives the channels
    between the two convolutions of each basic block (see :mod:`baselines.cascade.balance`).

    Raises ValueError, naming the value, for an unknown choice, ``alpha`` outside [0, 1), and sizes below 1.
    """

    compacts: ClassVar[bool] = True

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        num_classes: int = 10,
        in_channels: int = 3,
        schedule: str = "parallel",
        delay: str = "osd",
        alpha: float = 0.9,
        heads: str = "single",
        stem_delay: bool = False,
        stem_pool: bool = True,
        num_exits: int | None = None,
        block: str = "basic",
        inner: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check_choice("schedule", schedule, ("parallel", "serial"))
        _check_choice("delay", delay, ("osd", "ews"))
        _check_choice("heads", heads, ("single", "multi"))
        _check_choice("block", block, tuple(BLOCKS))
        _check_alpha(alpha)
        check_sizes(blocks, width=width, num_classes=num_classes, in_channels=in_channels)
        self.depth = sum(blocks)
        if inner is not None and (len(inner) != self.depth or min(inner) < 1):
            raise ValueError(f"inner is {tuple(inner)}, expected a width of at least 1 for each of {self.depth} blocks")
        self.num_exits = self.depth + 1 if num_exits is None else num_exits
        if self.num_exits < 1:
            raise ValueError(f"num_exits is {num_exits}, but a model needs at least one exit")
        self.ticks = range(1, self.num_exits + 1)
        self.in_channels, self.schedule, self.delay, self.alpha = in_channels, schedule, delay, alpha
        self.stem_delay = stem_delay
        self.total_stride = 2 ** (len(blocks) - 1 + stem_pool)

        self.stem = Stem(in_channels, width, stem_pool, norm=partial(TemporalNorm, rows=1))
        self.blocks = nn.ModuleList()
        channels = width
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                rows = self._norm_rows(len(self.blocks) + 1)
                middle = None if inner is None else inner[len(self.blocks)]
                self.blocks.append(BLOCKS[block](channels, width * 2**stage, stride, rows, middle))
                channels = width * 2**stage * BLOCKS[block].expansion
        self.heads = nn.ModuleList(
            nn.Linear(channels, num_classes) for _ in range(self.num_exits if heads == "multi" else 1)
        )
        initialise(self)

    def numbered(self) -> Iterator[tuple[int, Block]]:
        """The blocks with their numbers 1..L."""
        return enumerate(cast("Iterable[Block]", self.blocks), 1)

    def _norm_rows(self, block: int) -> int:
        """How many rows of statistics block 1..L needs: one per distinct value its input takes for a still image."""
        if self.delay == "ews":
            return 1 if block == 1 and not self.stem_delay else self.depth + 1
        if self.stem_delay:
            return block + 1
        return block if self.schedule == "parallel" else 1

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, but this model expects (B, {self.in_channels}, H, W)"
            )
        self.check_size(*images.shape[2:])

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError for images smaller than the product of the strides."""
        if min(height, width) < self.total_stride:
            raise ValueError(
                f"images are {height}x{width}, too small for a total stride of {self.total_stride}: "
                "use larger images, stem_pool=False or fewer stages"
            )

    def start(self, block: int) -> int:
        """The first step at which block 1..L's residual counts, whatever the delay holds by then."""
        if self.schedule == "serial":
            return block
        return 1 if self.delay == "osd" else 0

    def head(self, features: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit ``k`` from the last block's features."""
        return self.heads[min(k, len(self.heads) - 1)](features.mean((2, 3)))

    # ---------------------------------------------------------------- layer by layer

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all exits ``(E, B, C)``, block by block: one batch per block for all its distinct inputs."""
        self._check(images)
        x, steps = self._delayed_stem(self._stem(suited(images)))
        for number, block in self.numbered():
            through = self._smoothed if self.delay == "ews" else self._shifted
            x, steps = through(block, number, x, steps)
        pooled = x.mean((2, 3)).unflatten(0, (steps, -1))  # (n, B, channels)
        last = torch.arange(self.num_exits, device=x.device).clamp(max=steps - 1)
        if len(self.heads) == 1:
            return self.heads[0](pooled)[last]
        return torch.stack([head(pooled[min(k, steps - 1)]) for k, head in enumerate(self.heads)])

    def _stem(self, images: Tensor) -> Tensor:
        """The stem's features ``(B, width, H, W)``; in evaluation its norm is part of its convolution."""
        norm = cast("TemporalNorm", self.stem.norm)
        if self.training or torch.is_grad_enabled() or torch.is_autocast_enabled(images.device.type):
            return self.stem(images)
        scale, shift = norm.affine(0, 1)
        return self.stem.pool(self.stem.relu(folded(self.stem.conv, scale[0], shift[0], images)))

    def _delayed_stem(self, x: Tensor) -> tuple[Tensor, int]:
        if not self.stem_delay:
            return x, 1
        if self.delay == "osd":
            return torch.cat([torch.zeros_like(x), x][: self.num_exits]), min(2, self.num_exits)
        return torch.cat([(1 - self.alpha ** (k + 1)) * x for k in range(self.num_exits)]), self.num_exits

    def _shifted(self, block: Block, number: int, x: Tensor, steps: int) -> tuple[Tensor, int]:
        """One block under the one-step delay: the residual of step k - 1 joins the shortcut of step k."""
        batch = len(x) // steps
        start, end = self.start(number), self.num_exits - 1  # residuals count at steps start..end
        shortcut = block.shortcut(x)
        if start > end:
            return F.relu(shortcut), steps
        low, high = min(start - 1, steps - 1), min(end - 1, steps - 1)
        residual = block.residual(x[low * batch : (high + 1) * batch], high + 1 - low, low, convolve)
        if self.training and high < steps - 1:
            # No answer uses the residual of the last step, but its row of statistics serves models with more exits.
            with torch.no_grad():
                block.residual(x[(high + 1) * batch :], steps - 1 - high, high + 1, convolve)
        pairs = [
            (min(k, steps - 1), None if k < start else min(k - 1, high) - low) for k in range(max(high + 1, start) + 1)
        ]
        return join(shortcut, residual, pairs, batch), len(pairs)

    def _smoothed(self, block: Block, number: int, x: Tensor, steps: int) -> tuple[Tensor, int]:
        """One block under exponential smoothing: its output changes at every step."""
        batch, start = len(x) // steps, self.start(number)
        shortcut = block.shortcut(x).split(batch)
        residual = block.residual(x, steps, 0, convolve).split(batch)
        out, delayed = [], (1 - self.alpha) * residual[0]
        for k in range(self.num_exits):
            if k:
                delayed = self.alpha * delayed + (1 - self.alpha) * residual[min(k, steps - 1)]
            straight = shortcut[min(k, steps - 1)]
            out.append(straight + delayed if k >= start else straight)
        return F.relu(torch.cat(out), inplace=True), self.num_exits

    # ---------------------------------------------------------------- step by step

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Yield logits ``(B, C)`` per exit; only blocks whose input changed are computed again.

        ``send(keep)`` with a boolean mask ``(B,)`` goes on with the kept samples alone.
        """
        self._check(images)
        return self._answers([images] + [None] * (self.num_exits - 1), images)

    def watch(self, frames: Tensor) -> Iterator[Tensor]:
        """Yield logits ``(B, C)`` per exit, exit k having seen ``frames[0..k]`` of ``frames (F, B, D, H, W)``.

        Raises ValueError where there are fewer frames than exits.
        """
        if frames.ndim != 5 or len(frames) < self.num_exits:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}, but one frame per step is needed: "
                f"({self.num_exits} or more, B, {self.in_channels}, H, W)"
            )
        self._check(frames[0])
        return self._answers((frames[k] for k in range(self.num_exits)), frames)

    def follow(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield logits ``(B, C)`` after every frame ``(B, D, H, W)``: a step of the cascade each, without end."""
        run: LazySteps | None = None
        for k, frame in enumerate(frames):
            self._check(frame)
            run = run or self._run(frame)
            yield run.logits(run.advance(frame)[-1], k)

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit ``k`` with no other head.

        A deadline of full depth or more, known in advance, takes one plain pass, of either schedule: by then the
        parallel cascade is the plain ResNet too, and its earlier steps need not be run.
        """
        self.check_exit(k)
        self._check(images)
        settled = self.schedule == "serial" or k >= self.depth
        if settled and self.delay == "osd" and not self.stem_delay:
            return self.plain(images, k)
        run = self._run(images)
        for step in range(k + 1):
            features = run.advance(images if step == 0 else None)
        return run.logits(features[-1], k)

    def executions(self) -> dict[str, Callable[[Tensor], Iterator[Tensor]]]:
        """Other ways to run the parallel cascade: ``dense`` computes every block at every step, as published, and
        ``one_lane``, on a GPU, runs the blocks one after the other instead of side by side."""
        if self.schedule == "serial":
            return {}
        others: dict[str, Callable[[Tensor], Iterator[Tensor]]] = {
            "dense": lambda images: self._answers([images] * self.num_exits, images)
        }
        if self.delay == "osd" and next(self.parameters()).is_cuda:
            others["one_lane"] = lambda images: self._answers(
                [images] + [None] * (self.num_exits - 1), images, LazySteps(self)
            )
        return others

    def plain(self, images: Tensor, k: int | None = None) -> Tensor:
        """Logits ``(B, C)`` of the plain ResNet with these weights, residual branches above block ``k`` left out."""
        self._check(images)
        k = self.num_exits - 1 if k is None else k
        x = self.stem(suited(images) if self.training else images)
        for number, block in self.numbered():
            if number > k:
                x = x if isinstance(block.shortcut, nn.Identity) else torch.relu_(block.shortcut(x))
            elif self.training:  # as fast as forward; in evaluation, convolutions stay what they are, to be counted
                residual = block.residual(x, 1, block.norm1.rows - 1, convolve)
                x = torch.relu_(residual.add_(block.shortcut(x)))
            else:
                x = block(x)
        return self.head(x, k)

    def _run(self, images: Tensor) -> LazySteps:
        spreads = self.schedule == "parallel" and self.delay == "osd"
        return LazySteps(self, lanes_for(images, self.depth + 2, spreads))

    def _answers(
        self, inputs: Iterable[Tensor | None], images: Tensor, run: LazySteps | None = None
    ) -> Generator[Tensor, Tensor | None, None]:
        run, pooled_from, logits = run or self._run(images), None, torch.empty(0)
        for k, image in enumerate(inputs):
            features = run.advance(image)[-1]
            if features is not pooled_from or len(self.heads) > 1:
                logits, pooled_from = run.logits(features, k), features
            keep = yield logits
            if keep is not None:
                run.keep(keep)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def _check_alpha(alpha: float) -> None:
    if alpha == 1.0:
        raise ValueError("alpha is 1, and such a delay never emits anything: choose a value in [0, 1)")
    if not 0.0 <= alpha < 1.0:
        raise ValueError(f"alpha is {alpha}, but exponential smoothing needs a value in [0, 1)")
