"""Zero Time Waste: a trained network whose internal classifiers recycle each other's answers.

Source: Wolczyk et al., *Zero Time Waste: Recycling Predictions in Early Exit Neural Networks*, NeurIPS 2021 (arXiv
2106.05409). Two parts, learnt one after the other::

    StackedHeads    z_m = head_m(block output, stopgrad(z_{m-1}))       heads.py; the last exit is the network's own
    ZeroTimeWaste   answer m = ensemble_m(z_0, ..., z_m)                ensembles.py; fitted to the finished heads

The gradient of a head's loss stops at the logits of the head before it, so no head is bent to another's needs.

Shapes: images ``(B, D, H, W)``, logits of an exit ``(B, C)``, of all exits ``(E, B, C)``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

import torch
from torch import Tensor, nn

from anytime_bench.methods.contract import AnytimeModel
from baselines.residual import Backbone
from baselines.sdn.model import ShallowDeepNet
from baselines.wrappers import RunningAnswers
from baselines.ztw.ensembles import Ensembles
from baselines.ztw.heads import head_maker


class StackedHeads(ShallowDeepNet):
    """``backbone`` with a head after each of ``blocks`` (from 0), each of which reads the logits of the one before.

    ``make_head`` is a function as ``heads.head_maker`` returns. Without ``detach`` a head's loss also teaches the heads
    before it. ``ic_input`` and ``frozen`` as in ``ShallowDeepNet``.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        image_shape: Sequence[int],
        blocks: Sequence[int] | None,
        make_head: Callable[[int, tuple[int, int, int], int], nn.Module] | None = None,
        ic_input: str = "pre",
        frozen: bool = True,
        detach: bool = True,
    ) -> None:
        super().__init__(
            backbone, num_classes, image_shape, ic_input, frozen=frozen, blocks=blocks,
            make_classifier=make_head or head_maker("original"),
        )  # fmt: skip
        self.detach = detach

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, C)`` of one exit after another; ``send`` a mask ``(B,)`` to go on with some samples alone."""
        x, done = self._begin(images), 0
        previous: Tensor | None = None
        for head, block in zip(self.classifiers, self.ic_blocks, strict=True):
            read, x = self._advance(x, done, block)
            logits = head(read, previous)
            keep = yield logits
            previous = logits.detach() if self.detach else logits
            if keep is not None:
                x, previous = x[keep], previous[keep]
            done = block + 1
        yield self._finish(x, done)

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of exit k: of a head after those before it, of the network itself without any."""
        if k == self.num_exits - 1:
            return super().answer(images, k)
        return AnytimeModel.answer(self, images, k)


class ZeroTimeWaste(RunningAnswers):
    """``base`` with the ensemble of its exits so far at every exit that has one.

    ``ensembles`` may be one fewer than the exits: the last answer is then the network's own, alone.
    """

    base: StackedHeads

    def __init__(self, base: StackedHeads, ensembles: Ensembles) -> None:
        super().__init__(base)
        self.ensembles = ensembles

    def combine(self, state: Tensor | None, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``(B, k + 1, C)`` of the exits so far, and the answer of their ensemble."""
        own = logits.log_softmax(1)[:, None]
        so_far = own if state is None else torch.cat((state, own), dim=1)
        return so_far, logits if k == self.ensembles.heads else self.ensembles.answer(so_far)

    def fit_ensembles(
        self, batches: Iterable[tuple[Tensor, Tensor]], epochs: int, batch_size: int, lr: float
    ) -> Tensor:
        """Fit the ensembles to the heads' answers on one pass of ``batches``; returns their last losses ``(M,)``."""
        logits, targets = [], []
        with torch.no_grad():
            for images, labels in batches:
                logits.append(self.base(images)[: self.ensembles.heads])
                targets.append(labels)
        return self.ensembles.fit(torch.cat(logits, dim=1), torch.cat(targets), epochs, batch_size, lr)
