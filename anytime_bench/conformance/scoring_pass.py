"""A plugin's scores and stopping rules, evaluated once on a small synthetic trace, as every record would."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from anytime_bench.conformance.kit import CheckResult
from anytime_bench.errors import describe, message
from anytime_bench.runs.guard import time_limit
from anytime_bench.scores.catalogue import SCORES
from anytime_bench.scores.run_scores import evaluated
from anytime_bench.scores.stopping_budgets import learn_rules, learned_from, rules_at_budgets
from anytime_bench.scores.stopping_rules import RULES
from anytime_bench.trace.answers import Trace, TraceError

#: Cumulative cost of the three exits, in multiples of the reference's.
COST = np.array([0.3, 0.6, 1.0])
IMAGES, CLASSES = 60, 10


def check_score(name: str) -> CheckResult:
    """The score gives its numbers, per exit or per image, and not only NaN."""

    def evaluate() -> str:
        numbers = evaluated(SCORES.resolve(name)[0], synthetic_trace(1), COST)
        return "" if np.isfinite(numbers).any() else "it is no finite number at any exit: it would stand in no record"

    return _checked(name, "score", evaluate)


def check_rule(name: str) -> CheckResult:
    """The rule fits on one split and stops at every budget on another."""

    def evaluate() -> str:
        val, known = synthetic_trace(0), [other for other in RULES.names() if other != name]
        learned = learned_from(learn_rules(val, COST, known))
        rules_at_budgets(synthetic_trace(1), val, {"macs": COST}, learned, [name])
        return ""

    return _checked(name, "stopping_rule", evaluate)


def synthetic_trace(seed: int) -> Trace:
    """Three exits that get surer with depth, on images with random labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, IMAGES)
    signal = np.array([1.0, 2.0, 3.0])[:, None, None] * np.eye(CLASSES)[labels]
    return Trace.from_logits(signal + rng.standard_normal((3, IMAGES, CLASSES)), labels)


def _checked(name: str, kind: str, evaluate: Callable[[], str]) -> CheckResult:
    start = time.perf_counter()
    try:
        with time_limit(f"{kind} '{name}'"):
            doubt = evaluate()
    except Exception as error:
        why = message(error) if isinstance(error, TraceError) else describe(error)
        return CheckResult(kind, "fail", why, time.perf_counter() - start)
    return CheckResult(kind, "warn" if doubt else "pass", doubt, time.perf_counter() - start)
