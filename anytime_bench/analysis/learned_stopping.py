"""What the trace GRU knows about stopping, beside the confidence rule: accuracy at equal cost, and who knows best.

The rule itself is ``scores/trace_gru.py``. It learns from one half of the validation split; the other half sets the
thresholds of both rules; the test split is only judged. CPU only, seeded, deterministic for one torch version and
processor, some seconds; results are therefore kept apart from scores that repeat on any machine.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.analysis.results import RULES, AtBudget, EqualCost, LearnedStopping, RuleGap, RuleResult
from anytime_bench.files import cached_arrays, file_sha256
from anytime_bench.scores import trace_gru
from anytime_bench.scores.confidence import auroc
from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.simple_rules import Confidence
from anytime_bench.scores.stopping import GRID
from anytime_bench.scores.stopping_contract import Answers, Arrays, Thresholds
from anytime_bench.scores.stopping_rules import BUDGETS, at_budgets
from anytime_bench.scores.trace_gru import TraceGru, answer_is_final, features, stop_probabilities, train
from anytime_bench.scores.verdicts import paired_difference
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]


def learn(test: Trace, val: Trace, stored: Arrays | None = None) -> tuple[Trace, Arrays]:
    """The half of ``val`` that thresholds are fitted on, and the GRU's weights.

    It learned from the other half, here and now or before, unless a record ``stored`` what it learned. Raises
    ``TraceError`` where there is nothing to fit or to decide.
    """
    if test.num_exits != val.num_exits:
        raise TraceError(f"val_predictions: expected {test.num_exits} exits as on the test split, got {val.num_exits}")
    if test.num_exits < 2:
        raise TraceError("test_predictions: a single exit leaves nothing to decide")
    first, fit = TraceGru().halves(val)
    return fit, stored or cached_arrays(_key(val), lambda: train(first))


def lesson(val: Trace) -> str:
    """The SHA-256 of all that a GRU learns from when ``val`` is the validation split."""
    first = TraceGru().halves(val)[0]
    return hashlib.sha256(f"{first.predictions.shape} 0".encode() + first.predictions.tobytes()
                          + features(Answers.of(first)).tobytes()).hexdigest()  # fmt: skip


def _key(val: Trace) -> str:
    """The lesson, and what makes weights of it."""
    return f"{TraceGru.name} {lesson(val)} torch {version('torch')} {file_sha256(Path(trace_gru.__file__))}"


def learned_stopping(
    test: Trace, val: Trace, cost: ArrayLike, reference_cost: float, *, stored: Arrays | None = None
) -> LearnedStopping:
    """Accuracy at 25/50/75/100 % of ``reference_cost`` when the GRU decides, beside the confidence rule's.

    Both rules get their thresholds from the same half of ``val``. Two thresholds fitted to one budget on the validation
    split spend unequally on the test split, which would favour the rule that spends more. For ``equal_cost`` the
    confidence rule therefore gets the thresholds with which it spends exactly what the GRU has spent; costs alone
    choose them, no label. ``stored`` is what the record's GRU learned, where it did.
    """
    fit, weights = learn(test, val, stored)
    costs, answers = check_cost(cost) / reference_cost, Answers.of(test)
    # Each of the two splits is asked for more than once; its predictions are the trace's own array.
    probabilities = {id(trace.predictions): stop_probabilities(weights, Answers.of(trace)) for trace in (fit, test)}
    rules = {
        "gru": Thresholds(tuple(GRID), lambda answers: probabilities[id(answers.predictions)]),
        "confidence": Confidence().fit(fit, costs),
    }
    on_test = {name: rule.sureness(answers) for name, rule in rules.items()}
    curves = {name: rule.curve(test, costs) for name, rule in rules.items()}
    budgets = [budget / 100 for budget in BUDGETS]
    reached = {
        name: dict(zip(map(str, BUDGETS), at_budgets(rule, fit, test, costs, budgets), strict=True))
        for name, rule in rules.items()
    }
    equal_cost: dict[str, EqualCost | None] = dict.fromkeys(reached["gru"])
    expected: dict[str, dict[str, Floats]] = {}
    for budget, gru in reached["gru"].items():
        if gru is None:
            continue
        least = float(curves["confidence"].cost[0])
        (bare,) = at_budgets(rules["confidence"], test, test, costs, [max(gru.cost, least)])
        assert bare is not None
        expected[budget] = {"gru": gru.correct, "confidence": bare.correct}
        gap = rule_difference(gru.correct, bare.correct)
        equal_cost[budget] = EqualCost(**vars(gap), cost={"gru": gru.cost, "confidence": bare.cost})
    final = answer_is_final(test)[:-1]
    results = {
        name: RuleResult(
            {b: None if r is None else AtBudget(float(r.correct.mean()), r.cost) for b, r in reached[name].items()},
            _known(auroc(on_test[name][:-1], final)),
        )
        for name in RULES
    }
    drawn = {name: (curve.cost, curve.accuracy) for name, curve in curves.items()}
    return LearnedStopping(results["gru"], results["confidence"], equal_cost, expected, drawn)


def rule_difference(gru: Floats, confidence: Floats) -> RuleGap:
    """Accuracies of both rules and their difference from expected correctness ``(S, N)``, verdict about the GRU.

    Both rules stop the same nets, so seeds are paired here and not only images.
    """
    gap = paired_difference(gru, confidence, by_seed=True)
    return RuleGap(float(gru.mean()), float(confidence.mean()), gap.value, gap.low, gap.high, gap.verdict)


def _known(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
