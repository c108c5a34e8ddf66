"""What the trace GRU knows about stopping, beside the confidence rule: accuracy at equal cost, and who knows best.

The rule itself is ``scores/trace_gru.py``. It learns from one half of the validation split; the other half sets the
thresholds of both rules; the test split is only judged. CPU only, seeded, deterministic for one torch version and
processor, some seconds; results are therefore kept apart from scores that repeat on any machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.analysis.results import RULES, AtBudget, EqualCost, LearnedStopping, RuleGap, RuleResult
from anytime_bench.files import cached_arrays, file_sha256
from anytime_bench.scores import stopping, trace_gru
from anytime_bench.scores.confidence import auroc
from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.stopping_contract import Answers, Arrays
from anytime_bench.scores.trace_gru import TraceGru, answer_is_final, features, stop_probabilities, train
from anytime_bench.scores.verdicts import paired_difference
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
    """Fit the GRU on one half of ``val``, or read what a record ``stored`` of it, or what was learned here before.

    Raises ``TraceError`` where there is nothing to fit or to decide.
    """
    if test.num_exits != val.num_exits:
        raise TraceError(f"val_predictions: expected {test.num_exits} exits as on the test split, got {val.num_exits}")
    if test.num_exits < 2:
        raise TraceError("test_predictions: a single exit leaves nothing to decide")
    first, fit = TraceGru().halves(val)
    weights = stored or cached_arrays(_key(val, seed), lambda: train(first, seed))
    return Learned(fit, stop_probabilities(weights, Answers.of(fit)), stop_probabilities(weights, Answers.of(test)))


def lesson(val: Trace, seed: int = 0) -> str:
    """The SHA-256 of all that a GRU learns from when ``val`` is the validation split."""
    first = TraceGru().halves(val)[0]
    return hashlib.sha256(f"{first.predictions.shape} {seed}".encode() + first.predictions.tobytes()
                          + features(Answers.of(first)).tobytes()).hexdigest()  # fmt: skip


def _key(val: Trace, seed: int) -> str:
    """The lesson, and what makes weights of it."""
    return f"{TraceGru.name} {lesson(val, seed)} torch {version('torch')} {file_sha256(Path(trace_gru.__file__))}"


def learned_stopping(
    test: Trace, val: Trace, cost: ArrayLike, reference_cost: float, *, seed: int = 0, stored: Arrays | None = None
) -> LearnedStopping:
    """Accuracy at 25/50/75/100 % of ``reference_cost`` when the GRU decides, beside the confidence rule's.

    Both rules get their thresholds from the same half of ``val``. Two thresholds fitted to one budget on the validation
    split spend unequally on the test split, which would favour the rule that spends more. For ``equal_cost`` the
    confidence rule therefore gets the thresholds with which it spends exactly what the GRU has spent; costs alone
    choose them, no label. ``stored`` is what the record's GRU learned, where it did.
    """
    learned = learn(test, val, seed, stored)
    fit, costs = learned.fit, check_cost(cost) / reference_cost
    bare = test.confidence.astype(np.float64)
    on_test = {"gru": learned.on_test, "confidence": bare}
    fitted = {
        "gru": stopping.sweep(learned.on_fit, fit.correct, costs),
        "confidence": stopping.sweep(fit.confidence.astype(np.float64), fit.correct, costs),
    }
    swept = {name: stopping.sweep(scores, test.correct, costs) for name, scores in on_test.items()}
    at_budget: dict[str, dict[str, AtBudget | None]] = {name: {} for name in RULES}
    equal_cost: dict[str, EqualCost | None] = {}
    expected: dict[str, dict[str, Floats]] = {}
    for budget in BUDGETS:
        place = str(budget)
        for name in RULES:
            mixture = stopping.threshold_for(fitted[name], budget / 100)
            if mixture is None:
                at_budget[name][place] = None
                continue
            right, spent = stopping.apply_mixture(mixture, on_test[name], test.correct, costs)
            at_budget[name][place] = AtBudget(float(right.mean()), spent)
            if name == "gru":
                same = stopping.threshold_for(swept["confidence"], max(spent, float(swept["confidence"].cost[0])))
                assert same is not None
                as_right, as_much = stopping.apply_mixture(same, bare, test.correct, costs)
                expected[place] = {"gru": right, "confidence": as_right}
                gap = rule_difference(right, as_right)
                equal_cost[place] = EqualCost(**vars(gap), cost={"gru": spent, "confidence": as_much})
        equal_cost.setdefault(place, None)
    final = answer_is_final(test)[:-1]
    results = {name: RuleResult(at_budget[name], _known(auroc(on_test[name][:-1], final))) for name in RULES}
    curves = {name: (each.cost, each.accuracy) for name, each in swept.items()}
    return LearnedStopping(results["gru"], results["confidence"], equal_cost, expected, curves)


def rule_difference(gru: Floats, confidence: Floats) -> RuleGap:
    """Accuracies of both rules and their difference from expected correctness ``(S, N)``, verdict about the GRU.

    Both rules stop the same nets, so seeds are paired here and not only images.
    """
    gap = paired_difference(gru, confidence, by_seed=True)
    return RuleGap(float(gru.mean()), float(confidence.mean()), gap.value, gap.low, gap.high, gap.verdict)


def _known(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
