"""The temporal-difference loss over exits, TD(lambda).

Each exit learns to predict a mixture of the later exits' answers and the label (Iuzzolino, Mozer, Bengio, NeurIPS
2021, section 3.1)::

    target_k = (1 - lam) * sum_{n > k} lam^(n-k-1) softmax(logits_n) + lam^(E-1-k) onehot(y),   0^0 = 1

No gradient flows through the targets. ``lam = 1`` is cross-entropy with the label at every exit, ``lam = 0`` the next
exit's answer as target (and the label at the last exit).

Shapes: logits ``(E, B, C)``, labels ``(B,)`` int64, targets ``(E, B, C)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def check_lam(lam: float) -> None:
    """Refuse a ``lam`` outside [0, 1]."""
    if not 0.0 <= lam <= 1.0:
        raise ValueError(f"lam is {lam}, but TD(lambda) needs a value in [0, 1]")


def td_targets(logits: Tensor, targets: Tensor, lam: float) -> Tensor:
    """Target distribution ``(E, B, C)`` of each exit for ``logits (E, B, C)`` and labels ``targets (B,)``.

    Computed by the backward recursion ``target_k = (1 - lam) softmax(logits_{k+1}) + lam target_{k+1}``, which
    starts from the label at the last exit. Every row sums to 1. Raises ValueError for ``lam`` outside [0, 1] or
    shapes that do not match.

    >>> td_targets(torch.zeros(2, 1, 2), torch.tensor([1]), lam=0.5)
    tensor([[[0.2500, 0.7500]],
    <BLANKLINE>
            [[0.0000, 1.0000]]])
    """
    check_lam(lam)
    if logits.ndim != 3 or targets.shape != logits.shape[1:2]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and targets {tuple(targets.shape)}, expected (E, B, C) and (B,)"
        )
    with torch.no_grad():
        probabilities = logits.softmax(-1)
        out = torch.empty_like(probabilities)
        out[-1] = F.one_hot(targets, logits.shape[-1])
        for k in range(len(logits) - 2, -1, -1):
            torch.lerp(probabilities[k + 1], out[k + 1], lam, out=out[k])
    return out


def td_loss(logits: Tensor, targets: Tensor, lam: float) -> Tensor:
    """Scalar TD(lambda) loss: the sum over the exits given of the batch mean of soft cross-entropy.

    ``logits (E, B, C)``, ``targets (B,)`` int64. It is a sum over exits, not a mean, as published.

    >>> round(td_loss(torch.zeros(3, 1, 2), torch.tensor([1]), lam=0.0).item(), 4)  # 3 log 2
    2.0794
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # autocast leaves a CPU's softmax in bfloat16
    soft = td_targets(logits, targets, lam)
    return -(soft * logits.log_softmax(-1)).sum() / logits.shape[1]
