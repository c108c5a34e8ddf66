"""The cascade on a residual stream: every branch of a Vision Transformer works at every step, arriving one step late.

The idea of Iuzzolino, Mozer, Bengio (NeurIPS 2021, arXiv 2102.09808), written for a ResNet, carried over to a network
whose blocks add to a stream and never gate it. For branches l = 1..L (attention and MLP of each block, L = twice the
depth) with F_l what branch l adds, at step k::

    in_1(k)     = embedding(image at step k)
    in_{l+1}(k) = in_l(k) + m_l(k) F_l(in_l(k-1))        F_l of step -1 is 0
    m_l(k)      = 1 in the parallel schedule, [k >= l] in the serial one
    logits(k)   = readout(in_{L+1}(k)),  k = 0..L

What follows from it, and is tested: exit L is the plain ViT with the same weights, in both schedules; serial exit k is
that ViT without the branches above branch k. With no ReLU on the shortcut the stream is a sum, so the L residuals of a
step are independent of one another: the parallel schedule is Jacobi's iteration on the L equations of the network,
exact after L steps because each equation looks only at those before it. Layer norm works on one token at a time, so
unlike batch norm it needs no statistics per step, and weights trained as a plain ViT can be run as a cascade as they
are.

Two executors give the same numbers. ``forward`` goes branch by branch: for a still image the input of branch l takes l
distinct values, and all of them go through the branch in one batch. ``stream`` goes step by step and leaves alone what
did not change; on a GPU the branches of one step run side by side. Work: sum of l x cost_l, about (L+1)/2 plain passes,
for the parallel schedule and one plain pass for the serial one. The longest chain of operators to exit L is that of a
plain pass in both.

Shapes: images ``(B, D, H, W)``, frames ``(F, B, D, H, W)``, tokens ``(B, T, C)``, of n distinct steps ``(n, B, T, C)``;
logits ``(E, B, classes)``, E = L + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel
from baselines.cascade.parallel import Inline, Lanes, lanes_for
from baselines.vit.network import branches, check_images, embed, read_out, readouts

SCHEDULES = ("parallel", "serial")
HEADS = ("single", "multi")


class CascadedViT(AnytimeModel):
    """``network`` run as a cascade. ``heads="multi"`` gives every exit a readout of its own."""

    compacts: ClassVar[bool] = True

    def __init__(self, network: VisionTransformer, schedule: str = "parallel", heads: str = "single") -> None:
        super().__init__()
        for name, value, choices in (("schedule", schedule, SCHEDULES), ("heads", heads, HEADS)):
            if value not in choices:
                raise UserError(f"{name} is '{value}'; expected {' or '.join(choices)}.")
        self.network, self.schedule = network, schedule
        self.length = len(branches(network))
        self.num_exits = self.length + 1
        self.ticks = range(1, self.num_exits + 1)
        self.readouts = readouts(network, self.length if heads == "multi" else 0)

    def start(self, branch: int) -> int:
        """The first step at which branch 1..L counts."""
        return branch if self.schedule == "serial" else 1

    def head(self, tokens: Tensor, k: int) -> Tensor:
        """Logits of exit ``k`` from the stream's end."""
        return read_out(self.readouts[k] if k < len(self.readouts) else self.network, tokens)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all exits ``(E, B, classes)``, branch by branch: one batch for all the steps that differ."""
        check_images(self.network, images)
        stream = embed(self.network, images).unsqueeze(0)  # (n, B, T, C), the last step standing for all later ones
        for branch in branches(self.network):
            seen = stream if self.schedule == "parallel" else stream[-1:]
            residual = branch(seen.flatten(0, 1)).unflatten(0, (len(seen), -1))
            late = torch.cat([stream[len(stream) - len(seen) + 1 :], stream[-1:]]) + residual
            stream = torch.cat([stream[: len(stream) - len(seen) + 1], late])
        if not self.readouts:
            return read_out(self.network, stream.flatten(0, 1)).unflatten(0, (self.num_exits, -1))
        return torch.stack([self.head(tokens, k) for k, tokens in enumerate(stream)])

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, classes)`` per exit; ``send`` a mask ``(B,)`` to go on with some samples alone."""
        check_images(self.network, images)
        return self._answers([images] + [None] * self.length, self._run(images))

    def watch(self, frames: Tensor) -> Iterator[Tensor]:
        """Logits ``(B, classes)`` per exit, exit k having seen ``frames[0..k]`` of ``frames (F, B, D, H, W)``.

        Raises ValueError where there are fewer frames than exits.
        """
        if frames.ndim != 5 or len(frames) < self.num_exits:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}, but one frame per step is needed: "
                f"({self.num_exits} or more, B, D, H, W)"
            )
        check_images(self.network, frames[0])
        return self._answers((frames[k] for k in range(self.num_exits)), self._run(frames))

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, classes)`` of exit ``k`` with no other head; one plain pass where that is the answer."""
        self.check_exit(k)
        check_images(self.network, images)
        if self.schedule == "serial" or k == self.length:
            return self.head(self.plain(images, k), k)
        run = self._run(images)
        for step in range(k + 1):
            run.advance(images if step == 0 else None)
        return run.logits()

    def plain(self, images: Tensor, count: int) -> Tensor:
        """Tokens ``(B, T, C)`` after the first ``count`` branches of the plain network."""
        tokens = embed(self.network, images)
        for branch in branches(self.network)[:count]:
            tokens = tokens + branch(tokens)
        return tokens

    def executions(self) -> dict[str, Callable[[Tensor], Iterator[Tensor]]]:
        """Other ways to run the parallel schedule: ``dense`` computes every branch at every step; ``one_lane``, on a
        GPU, runs the branches of a step one after the other."""
        if self.schedule == "serial":
            return {}
        others: dict[str, Callable[[Tensor], Iterator[Tensor]]] = {
            "dense": lambda images: self._answers([images] * self.num_exits, self._run(images))
        }
        if next(self.parameters()).is_cuda:
            others["one_lane"] = lambda images: self._answers([images] + [None] * self.length, LazyStream(self))
        return others

    def _run(self, images: Tensor) -> LazyStream:
        return LazyStream(self, lanes_for(images, self.length + 2, spreads=self.schedule == "parallel"))

    def _answers(self, inputs: Iterable[Tensor | None], run: LazyStream) -> Generator[Tensor, Tensor | None, None]:
        for images in inputs:
            run.advance(images)
            keep = yield run.logits()
            if keep is not None:
                run.keep(keep)


@dataclass
class BranchState:
    """What a branch remembers from step to step, as tokens."""

    source: Any = None  # what the residual was computed of
    residual: Any = None
    base: Any = None  # the two terms of the last sum, and the sum: what the next branch saw
    added: Any = None
    sum: Any = None


class LazyStream:
    """A run of a cascade, step by step; a token that is the same object as before stands for an unchanged tensor.

    What the branches see is made at the next step, when they are asked for, and each starts as soon as its own input
    is there. The answer adds all residuals at once, so that it waits for no chain of L additions. Lane 0 holds the
    embedding, lane l branch l and the sum behind it, lane L + 1 the answers (:mod:`baselines.cascade.parallel`).
    """

    def __init__(self, model: CascadedViT, lanes: Lanes | None = None) -> None:
        self.model = model
        self.lanes: Lanes = Inline() if lanes is None else lanes
        self.branches = branches(model.network)
        self.states = [BranchState() for _ in self.branches]
        self.step = -1
        self.kept: Tensor | None = None  # indices of the samples still in the run
        self.embedded: Any = None

    def advance(self, images: Tensor | None = None) -> None:
        """Go to the next step, with ``images (B, D, H, W)`` where they are new."""
        self.step += 1
        self.lanes.begin()
        if self.step:
            self._work(self.embedded)
        if images is not None:
            kept = images if self.kept is None else images[self.kept]
            self.embedded = self.lanes.run(0, partial(embed, self.model.network), self.lanes.give(kept))

    def logits(self) -> Tensor:
        """This step's answer ``(B, classes)``."""
        residuals = [state.residual for state in self.states if state.residual is not None]
        work = partial(_answer, self.model, self.step)
        return self.lanes.take(self.lanes.run(self.model.length + 1, work, self.embedded, *residuals))

    def _work(self, stream: Any) -> None:
        """Start the branches that count now, on the stream of the step before, as far as they have not seen it."""
        for number, (branch, state) in enumerate(zip(self.branches, self.states, strict=True), 1):
            seen, stream = stream, self._past(number, state, stream)  # a lane must not keep the next branch waiting
            if self.step >= self.model.start(number) and seen is not state.source:
                state.residual, state.source = self.lanes.run(number, branch, seen), seen

    def _past(self, number: int, state: BranchState, stream: Any) -> Any:
        """The stream behind a branch at the step before; nobody asks for it behind the last."""
        if state.residual is None or number == self.model.length:
            return stream
        if state.sum is None or stream is not state.base or state.residual is not state.added:
            state.base, state.added = stream, state.residual
            state.sum = self.lanes.run(number, torch.add, stream, state.residual)
        return state.sum

    def keep(self, mask: Tensor) -> None:
        """Go on with the samples where ``mask (B,)`` is true, B being the samples still in the run."""
        index = mask.nonzero().squeeze(1)
        self.kept = index if self.kept is None else self.kept[index]
        selected: dict[int, Any] = {}  # tokens that were one object stay one object

        def select(token: Any) -> Any:
            if token is not None and id(token) not in selected:
                selected[id(token)] = self.lanes.give(self.lanes.take(token)[index])
            return None if token is None else selected[id(token)]

        self.embedded = select(self.embedded)
        for state in self.states:
            for entry in fields(state):
                setattr(state, entry.name, select(getattr(state, entry.name)))


def _answer(model: CascadedViT, k: int, embedded: Tensor, *residuals: Tensor) -> Tensor:
    """Logits of exit ``k`` from the embedding and all residuals of its step."""
    return model.head(torch.stack([embedded, *residuals]).sum(0) if residuals else embedded, k)
