"""Stopping by a small GRU that reads the trace, as in the source paper: "is the current answer already the final one?"

The GRU sees, exit by exit, the log-odds of the confidence, the squared norm of the probabilities and whether the answer
has just changed; it says how probable it is that the answer will not change any more. It learns from one half of the
validation split; the other half sets the thresholds; the test split is only judged. CPU only, seeded, deterministic for
one torch version and processor, some seconds; results are therefore kept apart from scores that repeat on any machine.
Source: Iuzzolino et al., NeurIPS 2021 (metacognition of stopping).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from anytime_bench.scores import stopping
from anytime_bench.scores.confidence import auroc
from anytime_bench.scores.curve import check_cost
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]

HIDDEN = 16
STEPS = 200
BATCH = 512
LEARNING_RATE = 0.02
BUDGETS = (25, 50, 75, 100)


def stopping_features(trace: Trace) -> Floats:
    """What the GRU reads, ``(E, N, 3)``: log-odds of confidence, squared norm, 1 where the answer has just changed."""
    confidence = np.clip(trace.confidence.astype(np.float64), 1e-3, 1 - 1e-3)
    changed = np.zeros(trace.predictions.shape)
    changed[1:] = trace.predictions[1:] != trace.predictions[:-1]
    return np.stack([special.logit(confidence), trace.squared_norm.astype(np.float64), changed], axis=2)


def answer_is_final(trace: Trace) -> NDArray[np.bool_]:
    """Whether exit k's answer is the last exit's answer, ``(E, N)``: the GRU's target."""
    return trace.predictions == trace.predictions[-1]


def stop_probabilities(train: Trace, *others: Trace, seed: int = 0) -> list[Floats]:
    """Fit the GRU on ``train`` and give its probability of "final already" on each other trace, ``(E, N)`` each."""
    import torch
    from torch import nn

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, HIDDEN)
            self.head = nn.Linear(HIDDEN, 1)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.head(self.gru(features)[0])[..., 0]

    features = torch.from_numpy(stopping_features(train))
    targets = torch.from_numpy(answer_is_final(train)).double()
    mean, spread = features.mean(dim=(0, 1)), features.std(dim=(0, 1)) + 1e-3
    batches = np.random.default_rng([seed, 0x6E0])
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # One thread: sums in one order, hence the same bits whatever the machine is set to.
        torch.set_num_threads(1)
        try:
            # In float64, so that another processor's rounding does not move an image across a threshold.
            reader = Reader().double()
            optimiser = torch.optim.Adam(reader.parameters(), lr=LEARNING_RATE)
            for _ in range(STEPS):
                chosen = torch.from_numpy(batches.integers(0, train.num_samples, min(BATCH, train.num_samples)))
                logits = reader((features[:, chosen] - mean) / spread)
                # The last exit is final by definition and teaches nothing.
                loss = nn.functional.binary_cross_entropy_with_logits(logits[:-1], targets[:-1, chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            with torch.inference_mode():
                return [
                    reader((torch.from_numpy(stopping_features(other)) - mean) / spread).sigmoid().numpy()
                    for other in others
                ]
        finally:
            torch.set_num_threads(threads)


@dataclass(frozen=True)
class Learned:
    """The half of the validation split that thresholds are fitted on, and the GRU's probabilities ``(E, N)`` on it and
    on the test split; the GRU has learned from the other half."""

    fit: Trace
    on_fit: Floats
    on_test: Floats


def learn(test: Trace, val: Trace, seed: int = 0) -> Learned:
    """Fit the GRU on one half of ``val``. Raises ``TraceError`` where there is nothing to fit or to decide."""
    if val.num_samples < 4:
        raise TraceError(f"val_labels: expected at least 4 validation images to fit on, got {val.num_samples}")
    if test.num_exits != val.num_exits:
        raise TraceError(f"val_predictions: expected {test.num_exits} exits as on the test split, got {val.num_exits}")
    if test.num_exits < 2:
        raise TraceError("test_predictions: a single exit leaves nothing to decide")
    half = val.num_samples // 2
    order = np.random.default_rng([seed, 0x4A1F]).permutation(val.num_samples)
    fit = subset(val, order[half:])
    return Learned(fit, *stop_probabilities(subset(val, order[:half]), fit, test, seed=seed))


def learned_stopping(
    test: Trace,
    val: Trace,
    cost: ArrayLike,
    reference_cost: float,
    *,
    seed: int = 0,
    learned: Learned | None = None,
) -> dict[str, Any]:
    """Accuracy at 25/50/75/100 % of ``reference_cost`` when the GRU decides, beside the confidence rule's.

    Both rules get their thresholds from the same half of ``val``. ``auroc`` says, per exit but the last, how well the
    GRU's probability and the bare confidence tell final answers from others on ``test`` (None where all are alike).
    ``learned`` is what ``learn`` gave for these traces, if it was called before.
    """
    learned = learned or learn(test, val, seed)
    fit, costs = learned.fit, check_cost(cost) / reference_cost
    rules = {
        "gru": (learned.on_fit, learned.on_test),
        "confidence": (fit.confidence.astype(np.float64), test.confidence.astype(np.float64)),
    }
    final = answer_is_final(test)[:-1]
    results: dict[str, Any] = {}
    for name, (fitted_on, judged_on) in rules.items():
        swept = stopping.sweep(fitted_on, fit.correct, costs)
        at_budget: dict[str, Any] = {}
        for budget in BUDGETS:
            mixture = stopping.threshold_for(swept, budget / 100)
            if mixture is None:
                at_budget[str(budget)] = None
                continue
            expected, spent = stopping.apply_mixture(mixture, judged_on, test.correct, costs)
            at_budget[str(budget)] = {"accuracy": float(expected.mean()), "cost": spent}
        areas = auroc(judged_on[:-1], final)
        results[name] = {
            "at_budget": at_budget,
            "auroc": [float(value) if np.isfinite(value) else None for value in areas],
        }
    return results


def subset(trace: Trace, chosen: NDArray[np.intp]) -> Trace:
    """The trace of the ``chosen`` images."""
    kept = {each.name: getattr(trace, each.name) for each in fields(Trace) if each.name != "num_classes"}
    return replace(trace, **{name: values[..., chosen] for name, values in kept.items() if values is not None})
