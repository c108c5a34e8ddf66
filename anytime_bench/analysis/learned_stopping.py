"""What the trace GRU knows about stopping, beside the confidence rule: accuracy at equal cost, and who knows best.

The rule itself is ``scores/trace_gru.py``. It learns from one half of the validation split; the other half sets the
thresholds of both rules; the test split is only judged. CPU only, seeded, deterministic for one torch version and
processor, some seconds; results are therefore kept apart from scores that repeat on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores import stopping
from anytime_bench.scores.confidence import auroc
from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.stopping_contract import Answers, Arrays
from anytime_bench.scores.trace_gru import TraceGru, answer_is_final, stop_probabilities, train
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]

BUDGETS = (25, 50, 75, 100)


@dataclass(frozen=True)
class Learned:
    """The half of the validation split that thresholds are fitted on, and the GRU's probabilities ``(E, N)`` on it and
    on the test split; the GRU has learned from the other half."""

    fit: Trace
    on_fit: Floats
    on_test: Floats


def learn(test: Trace, val: Trace, seed: int = 0, stored: Arrays | None = None) -> Learned:
    """Fit the GRU on one half of ``val``, or read what a record ``stored`` of it.

    Raises ``TraceError`` where there is nothing to fit or to decide.
    """
    if test.num_exits != val.num_exits:
        raise TraceError(f"val_predictions: expected {test.num_exits} exits as on the test split, got {val.num_exits}")
    if test.num_exits < 2:
        raise TraceError("test_predictions: a single exit leaves nothing to decide")
    rule = TraceGru()
    first, fit = rule.halves(val)
    weights = stored or train(first, seed)
    return Learned(fit, stop_probabilities(weights, Answers.of(fit)), stop_probabilities(weights, Answers.of(test)))


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
