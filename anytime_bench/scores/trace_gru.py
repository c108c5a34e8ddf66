"""Stopping by a small GRU that reads the trace, as in the source paper: "is the current answer already the final one?"

The GRU sees, exit by exit, the log-odds of the confidence, the squared norm of the probabilities and whether the answer
has just changed; it says how probable it is that the answer will not change any more. It learns from one half of the
validation split, on the CPU, in float64, seeded; what it learned is kept in float32 and read back by the recurrence
written out in NumPy, so that a stored rule decides the same on every machine.
Source: Iuzzolino et al., NeurIPS 2021 (metacognition of stopping).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from anytime_bench.scores.stopping_contract import Answers, Arrays, Floats, LearnedRule, Thresholds
from anytime_bench.trace.answers import Trace

HIDDEN = 16
STEPS = 200
BATCH = 512
LEARNING_RATE = 0.02
#: What it learns, by name.
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "head_weight", "head_bias", "mean", "spread")
#: Probabilities of "final already" from which to stop.
GRID = (*np.linspace(0, 0.99, 100), 0.995, 0.999, 1.0)


def features(answers: Answers) -> Floats:
    """What the GRU reads, ``(K, N, 3)``: log-odds of confidence, squared norm, 1 where the answer has just changed."""
    confidence = np.clip(answers.confidence, 1e-3, 1 - 1e-3)
    changed = np.zeros(answers.shape)
    changed[1:] = answers.predictions[1:] != answers.predictions[:-1]
    return np.stack([scipy.special.logit(confidence), answers.squared_norm, changed], axis=2)


def answer_is_final(trace: Trace) -> NDArray[np.bool_]:
    """Whether exit k's answer is the last exit's answer, ``(E, N)``: the GRU's target."""
    return trace.predictions == trace.predictions[-1]


def stop_probabilities(learned: Arrays, answers: Answers) -> Floats:
    """Probability that each answer is final, ``(K, N)``, by the gates as ``torch.nn.GRU`` has them."""
    weights = {name: np.asarray(values, dtype=np.float64) for name, values in learned.items()}
    seen = (features(answers) - weights["mean"]) / weights["spread"]
    hidden = np.zeros((answers.shape[1], HIDDEN))
    probabilities = np.empty(answers.shape)
    for k, step in enumerate(seen):
        from_input = step @ weights["weight_ih"].T + weights["bias_ih"]
        from_hidden = hidden @ weights["weight_hh"].T + weights["bias_hh"]
        i_reset, i_update, i_new = np.split(from_input, 3, axis=1)
        h_reset, h_update, h_new = np.split(from_hidden, 3, axis=1)
        update = scipy.special.expit(i_update + h_update)
        new = np.tanh(i_new + scipy.special.expit(i_reset + h_reset) * h_new)
        hidden = (1 - update) * new + update * hidden
        probabilities[k] = scipy.special.expit(hidden @ weights["head_weight"] + weights["head_bias"])
    return probabilities


class TraceGru(LearnedRule):
    """Stop once the GRU's probability that the answer is final reaches a threshold."""

    name = "trace_gru"
    title = "trace GRU"

    def learn(self, val: Trace, cost: Floats) -> dict[str, NDArray[Any]]:
        return train(self.halves(val)[0])

    def fit_learned(self, val: Trace, cost: Floats, learned: Arrays) -> Thresholds:
        return Thresholds(GRID, lambda answers: stop_probabilities(learned, answers))


def train(trace: Trace, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Fit the GRU on ``trace``; its weights by name, float32."""
    # Scores are imported by every verb; only learning needs torch.
    import torch
    from torch import nn

    inputs = torch.from_numpy(features(Answers.of(trace)))
    targets = torch.from_numpy(answer_is_final(trace)).double()
    mean, spread = inputs.mean(dim=(0, 1)), inputs.std(dim=(0, 1)) + 1e-3
    batches = np.random.default_rng([seed, 0x6E0])
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # One thread: sums in one order, hence the same bits whatever the machine is set to.
        torch.set_num_threads(1)
        try:
            gru, head = nn.GRU(3, HIDDEN).double(), nn.Linear(HIDDEN, 1).double()
            optimiser = torch.optim.Adam([*gru.parameters(), *head.parameters()], lr=LEARNING_RATE)
            for _ in range(STEPS if trace.num_exits > 1 else 0):
                chosen = torch.from_numpy(batches.integers(0, trace.num_samples, min(BATCH, trace.num_samples)))
                logits = head(gru((inputs[:, chosen] - mean) / spread)[0])[..., 0]
                # The last exit is final by definition and teaches nothing.
                loss = nn.functional.binary_cross_entropy_with_logits(logits[:-1], targets[:-1, chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        finally:
            torch.set_num_threads(threads)
    named = {
        **{name.removesuffix("_l0"): values for name, values in gru.state_dict().items()},
        "head_weight": head.weight.detach().flatten(),
        "head_bias": head.bias.detach(),
        "mean": mean,
        "spread": spread,
    }
    return {name: values.numpy().astype(np.float32) for name, values in named.items()}
