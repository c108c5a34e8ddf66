"""Ensembles of the heads up to each exit, fitted to the finished heads.

Source: Wolczyk et al., NeurIPS 2021 (arXiv 2106.05409), section 3.2 and equation 4. After head m, with z_j the logits
of head j, p_j = softmax(z_j), weights w of the ensemble's own and a bias b per class::

    geometric   out = 1 / (m+1) sum_{j<=m} exp(w_j) log p_j + b              loss: cross-entropy of softmax(out)
    additive    q = sum_{j<=m} exp(w_j) p_j + exp(b), out = log(q / sum q + e)   loss: negative log-likelihood of out
    standard    out = log(1 / (m+1) sum_{j<=m} p_j)                          nothing to fit

With w = 0 and b = 0 the geometric ensemble is the geometric mean of the probabilities, up to normalisation. Answers are
logits: a softmax comes before any confidence.

Shapes: log-probabilities of all heads ``(M, B, C)``, ensembles' answers the same; weights ``(M, M)``, of which row m
uses the first m + 1; biases ``(M, C)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("geometric", "additive", "standard")
#: What the additive ensemble adds to a probability before the logarithm: the original code's number.
EPSILON = 1e-6


class Ensembles(nn.Module):
    """One ensemble after each of ``heads`` heads.

    Weights begin in N(0, 0.01^2) and biases at 0. They take no gradient while the heads learn; ``fit`` learns them.
    Raises ValueError for an unknown ``kind``.
    """

    def __init__(self, kind: str, heads: int, num_classes: int, epsilon: float = EPSILON) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"ensemble is '{kind}'; expected one of {', '.join(KINDS)}")
        self.kind, self.heads, self.epsilon = kind, heads, epsilon
        if kind != "standard":
            self.weight = nn.Parameter(torch.tril(0.01 * torch.randn(heads, heads)), requires_grad=False)
            self.bias = nn.Parameter(torch.zeros(heads, num_classes), requires_grad=False)

    def answer(self, log_probabilities: Tensor) -> Tensor:
        """Answer ``(B, C)`` of the ensemble of all heads in ``log_probabilities (B, m + 1, C)``."""
        m = log_probabilities.shape[1] - 1
        if self.kind == "standard":
            return log_probabilities.logsumexp(1) - math.log(m + 1)
        weight, bias = self.weight[m, : m + 1, None].exp(), self.bias[m]
        if self.kind == "geometric":
            return (weight * log_probabilities).sum(1) / (m + 1) + bias
        return self._log_share((weight * log_probabilities.exp()).sum(1) + bias.exp())

    def answers(self, log_probabilities: Tensor) -> Tensor:
        """Answers ``(M, B, C)`` of all ensembles at once; equal to ``answer`` head by head."""
        if self.kind == "standard":
            count = torch.arange(1, self.heads + 1, device=log_probabilities.device)
            return log_probabilities.logcumsumexp(0) - count.log()[:, None, None]
        weight = torch.tril(self.weight.exp())  # (M, M)
        if self.kind == "geometric":
            count = torch.arange(1, self.heads + 1, device=weight.device)
            return torch.einsum("mj,jbc->mbc", weight / count[:, None], log_probabilities) + self.bias[:, None]
        return self._log_share(torch.einsum("mj,jbc->mbc", weight, log_probabilities.exp()) + self.bias.exp()[:, None])

    def _log_share(self, q: Tensor) -> Tensor:
        return (q / q.sum(-1, keepdim=True) + self.epsilon).log()

    def losses(self, log_probabilities: Tensor, targets: Tensor) -> Tensor:
        """Mean loss ``(M,)`` of each ensemble for ``targets (B,)``."""
        answers = self.answers(log_probabilities).flatten(0, 1)
        loss = F.cross_entropy if self.kind == "geometric" else F.nll_loss
        return loss(answers, targets.repeat(self.heads), reduction="none").view(self.heads, -1).mean(1)

    def fit(
        self, logits: Tensor, targets: Tensor, epochs: int = 501, batch_size: int = 512, lr: float = 5e-4
    ) -> Tensor:
        """Learn weights and biases from the heads' ``logits (M, N, C)`` by Adam; returns the last losses ``(M,)``.

        All ensembles learn side by side: none shares a number with another, and Adam scales each number by itself, so
        this is the same as learning them one after another on the same batches. Batches follow torch's random state.
        """
        log_probabilities = logits.log_softmax(2)
        losses = self.losses(log_probabilities, targets)
        if self.kind == "standard":
            return losses
        optimizer = torch.optim.Adam(self.parameters(), lr)
        self.requires_grad_(True)
        with torch.enable_grad():
            for _ in range(epochs):
                for index in torch.randperm(len(targets)).to(targets.device).split(batch_size):
                    losses = self.losses(log_probabilities[:, index], targets[index])
                    optimizer.zero_grad()
                    losses.sum().backward()
                    optimizer.step()
        self.requires_grad_(False)
        return losses.detach()
