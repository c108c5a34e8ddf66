"""BoostNet: exit k learns what the exits before it have left over, and answers together with them.

Source: Yu, Li, Hua, Huang, Shi, *Boosted Dynamic Neural Networks*, AAAI 2023 (arXiv 2211.16726), section 3. With f_k
the logits of exit k = 0..E-1 of any anytime network and one weight w_k per exit::

    F_k    = f_k + w_k F_{k-1},  F_{-1} = 0                        the answer of exit k
    loss   = sum_k CE(f_k + w_k stopgrad(F_{k-1}), y)              so loss k teaches f_k alone

All exits come from one forward pass, in which batch norm moves once. The published code weights the same exits one
position off in training, and so trains another sum than it answers with unless all weights are equal::

    loss   = sum_k CE(f_k + stopgrad(G_{k-1}), y),  G_k = w_k (f_k + G_{k-1}),  G_{-1} = 0

Shapes: logits of an exit ``(B, C)``, of all exits ``(E, B, C)``, weights ``(E,)``; the first weight meets F_{-1} = 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel
from baselines.wrappers import RunningAnswers


class BoostedNet(RunningAnswers):
    """``base`` with its exits added up. ``reweight`` is one weight for all exits or one per exit.

    The weights are a buffer: they decide the answers, so they are stored with the parameters and a loaded network
    answers as it was trained. Raises ValueError for another number of weights.
    """

    def __init__(self, base: AnytimeModel, reweight: float | Sequence[float] = 0.5) -> None:
        super().__init__(base)
        self.reweight: Tensor
        self.register_buffer("reweight", torch.tensor(weight_per_exit(reweight, base.num_exits)))

    def combine(self, state: Tensor | None, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """F_k from F_{k-1} (``state``) and f_k."""
        total = logits if state is None else logits + self.reweight[k] * state
        return total, total


def weight_per_exit(reweight: float | Sequence[float], exits: int) -> list[float]:
    """One weight per exit from one number or from a list of ``exits`` numbers; anything else raises ValueError.

    >>> weight_per_exit(0.5, 3), weight_per_exit([0.9, 0.4, 0.7], 3)
    ([0.5, 0.5, 0.5], [0.9, 0.4, 0.7])
    """
    weights = [reweight] * exits if isinstance(reweight, int | float) else list(reweight)
    if len(weights) != exits or not all(isinstance(weight, int | float) for weight in weights):
        raise ValueError(f"reweight is {reweight}; expected one number, or one for each of the {exits} exits")
    return [float(weight) for weight in weights]


def boosted_losses(logits: Tensor, targets: Tensor, weights: Tensor, published: bool = False) -> Tensor:
    """Cross-entropy ``(E,)`` of every exit's own logits ``(E, B, C)`` on top of the exits before it.

    ``targets (B,)``, ``weights (E,)``. The exits before are constants: no gradient flows through them. ``published``
    adds up G_{k-1} instead of w_k F_{k-1} (see above).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # sums of logits lose digits in bfloat16
    losses, before = [], torch.zeros_like(logits[0])
    for own, weight in zip(logits, weights, strict=True):
        offset = before if published else weight * before
        losses.append(F.cross_entropy(own + offset, targets))
        total = own.detach() + offset
        before = weight * total if published else total
    return torch.stack(losses)
