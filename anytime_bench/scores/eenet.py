"""EENet: scores and shares of exits learned together for a budget.

Per exit a linear *score* says how probable it is that the answer is right, from what the exit says and from the scores
before it; an *assigner* says which share of the images each exit should take. Both are learned from one half of the
validation split, for each budget of its own:

- scores: cross-entropy with "this answer is right", an image weighing as much as the assigner gives it to the exit;
- assigner: Kullback-Leibler divergence of its shares from the scores' powers, normalised, and |mean cost - budget| /
  budget.

Thresholds are then those at which the learned shares leave, exit by exit, on the other half.

Deviations from the paper, whose inputs are an exit's whole probability vector, its maximum, entropy and share of votes:
a trace keeps no vectors, so the inputs are confidence, collision probability (for entropy) and share of votes, and
scores have a constant. Gradients are cleared at each step, which the published code leaves out. Scores and assigner are
learned together rather than in alternation.
Source: Ilhan et al., Adaptive Deep Neural Network Inference Optimization with EENet, WACV 2024 (arXiv 2301.07099).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.scores.stopping import share_thresholds
from anytime_bench.scores.stopping_contract import Answers, Arrays, Exits, FittedRule, Flags, Floats, LearnedRule
from anytime_bench.trace.answers import Trace

#: Inputs of exit 0: confidence, collision probability, share of votes, a constant.
INPUTS = 4
#: Budgets that are learned for, evenly on a logarithmic scale between the costs of the first and the last exit.
BUDGETS = 5
HIDDEN = 8
STEPS = 200
BATCH = 512
LEARNING_RATE = 0.03
#: Weights of the divergence and of the cost in the loss.
DIVERGENCE, SPENDING = 0.05, 3.0
#: Power of the scores to whose shares the assigner is drawn.
SHARPNESS = 4.0


def inputs(answers: Answers) -> Floats:
    """What exit k says, ``(K, N, 4)``: confidence, squared norm, the leading class's share of votes so far, 1."""
    exits, images = answers.shape
    votes = np.zeros((images, answers.num_classes))
    share = np.empty((exits, images))
    for k, classes in enumerate(answers.predictions):
        votes[np.arange(images), classes] += 1
        share[k] = votes.max(axis=1) / (k + 1)
    return np.stack([answers.confidence, answers.squared_norm, share, np.ones((exits, images))], axis=2)


def scores(weights: Floats, answers: Answers) -> Floats:
    """Scores ``(K, N)`` by ``weights (E, 4 + E)``: four for what the exit says, the rest for the scores before it."""
    said = inputs(answers)
    exits, images = answers.shape
    result, before = np.zeros((exits, images)), np.zeros((images, weights.shape[1] - INPUTS))
    for k in range(exits):
        result[k] = said[k] @ weights[k, :INPUTS] + before @ weights[k, INPUTS:]
        before[:, k] = np.clip(result[k], 0, 1)
    return result


@dataclass(frozen=True)
class FittedEENet(FittedRule):
    """``weights`` and ``thresholds (E,)`` per budget."""

    settings: Sequence[float]
    weights: dict[float, Floats]
    thresholds: dict[float, Floats]

    def stop(self, answers: Answers, setting: float) -> Flags:
        newest = scores(self.weights[setting], answers)[-1]
        return np.asarray(newest >= self.thresholds[setting][answers.shape[0] - 1])

    def exits(self, answers: Answers, setting: float) -> Exits:
        leave = scores(self.weights[setting], answers) >= self.thresholds[setting][:, None]
        leave[-1] = True
        return leave.argmax(axis=0)


class EENet(LearnedRule):
    """Stop where a learned score reaches the exit's threshold; the setting is the budget that was learned for."""

    name = "eenet"
    title = "EENet"

    def learn(self, val: Trace, cost: Floats) -> dict[str, NDArray[Any]]:
        return train(self.halves(val)[0], cost)

    def fit_learned(self, val: Trace, cost: Floats, learned: Arrays) -> FittedRule:
        budgets = [float(budget) for budget in learned["budgets"]]
        weights = dict(zip(budgets, np.asarray(learned["weights"], dtype=np.float64), strict=True))
        shares = dict(zip(budgets, np.asarray(learned["shares"], dtype=np.float64), strict=True))
        answers = Answers.of(self.calibration(val))
        thresholds = {budget: share_thresholds(scores(weights[budget], answers), shares[budget]) for budget in budgets}
        return FittedEENet(tuple(budgets), weights, thresholds)


def train(trace: Trace, cost: Floats, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Learn for all budgets at once: ``budgets (T,)``, ``weights (T, E, 4 + E)``, ``shares (T, E)``, float32."""
    # Scores are imported by every verb; only learning needs torch.
    import torch

    exits = trace.num_exits
    budgets = np.geomspace(cost[0], cost[-1], BUDGETS + 2)[1:-1] if exits > 1 else np.array(cost)
    said = torch.from_numpy(inputs(Answers.of(trace)))
    right = torch.from_numpy(trace.correct).double()
    costs, wanted = torch.from_numpy(np.asarray(cost, dtype=np.float64)), torch.from_numpy(budgets)
    width, count = INPUTS + exits, len(budgets)
    # A score may look at the exit's own inputs and at the scores before it.
    seen = torch.tensor([[place < INPUTS + k for place in range(width)] for k in range(exits)])
    batches = np.random.default_rng([seed, 0xEE])
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(seed)
    torch.set_num_threads(1)
    try:
        weights = torch.zeros(count, exits, width, dtype=torch.float64)
        weights[..., 0] = 1.0  # begin as the confidence
        hidden = 0.3 * torch.randn(count, exits, HIDDEN, width, generator=generator, dtype=torch.float64)
        head = torch.zeros(count, exits, HIDDEN, dtype=torch.float64)
        prior = torch.zeros(count, exits, 1, dtype=torch.float64)
        parameters = [weights, hidden, head, prior]
        for parameter in parameters:
            parameter.requires_grad_()
        optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)

        def forward(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Clamped scores and shares, ``(T, E, n)`` each."""
            before = torch.zeros(count, exits, said[:, images].shape[1], dtype=torch.float64)
            answers, logits = [], []
            for k in range(exits):
                x = torch.cat([said[k, images].T.expand(count, -1, -1), before], dim=1)  # (T, width, n)
                answers.append(((weights[:, k] * seen[k])[:, None] @ x)[:, 0].clamp(1e-3, 1 - 1e-3))
                inner = torch.sigmoid((hidden[:, k] * seen[k]) @ x)
                logits.append((head[:, k][:, None] @ inner)[:, 0] + prior[:, k])
                before = before.clone()
                before[:, k] = answers[-1].detach()
            return torch.stack(answers, dim=1), torch.softmax(torch.stack(logits, dim=1), dim=1)

        for _ in range(STEPS if exits > 1 else 0):
            images = torch.from_numpy(batches.integers(0, trace.num_samples, min(BATCH, trace.num_samples)))
            score, share = forward(images)
            weight = share.detach() / share.detach().sum(dim=2, keepdim=True)
            entropy = torch.nn.functional.binary_cross_entropy(
                score, right[:, images].expand_as(score), reduction="none"
            )
            target = torch.softmax(SHARPNESS * score.detach().log(), dim=1)
            divergence = (target * (target.log() - share.log())).sum(dim=1).mean(dim=1)
            spent = (share.mean(dim=2) * costs).sum(dim=1)
            loss = (weight * entropy).sum(dim=2).mean(dim=1) + DIVERGENCE * divergence
            loss = (loss + SPENDING * (spent - wanted).abs() / wanted).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            share = forward(torch.arange(trace.num_samples))[1].mean(dim=2)
    finally:
        torch.set_num_threads(threads)
    named = {"budgets": budgets, "weights": (weights * seen).detach().numpy(), "shares": share.numpy()}
    return {name: values.astype(np.float32) for name, values in named.items()}
