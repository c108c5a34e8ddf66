"""Every stopping rule at every budget, as a record holds it, and the oracle above them.

Rules are fitted on the validation split, on each cost axis of its own, and judged on the test split. Costs are
multiples of the reference's full cost, budgets are in percent of it. A learned rule takes part where the record's
arrays hold what it learned (``rule_<name>.<array>``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.intervals import mean_interval
from anytime_bench.scores.results import Estimate, Points
from anytime_bench.scores.stopping_contract import LearnedRule, RuleError, StoppingRule, fitted_on
from anytime_bench.scores.stopping_rules import BUDGETS, at_budgets, stopping_rules
from anytime_bench.trace.answers import Trace

Floats = NDArray[np.float64]
Learned = Mapping[str, Mapping[str, NDArray[Any]]]

#: The name under which the oracle stands among the rules.
ORACLE = "oracle"
PREFIX = "rule_"


def rules_at_budgets(
    test: Trace, val: Trace, costs: Mapping[str, Floats], learned: Learned, names: Collection[str] | None = None
) -> dict[str, dict[str, Points]]:
    """Accuracy with its interval per rule, axis and budget; ``names`` limits the rules, the oracle among them."""
    budgets = [budget / 100 for budget in BUDGETS]
    results: dict[str, dict[str, Points]] = {}
    for name, rule in stopping_rules().items():
        if names is not None and name not in names:
            continue
        if isinstance(rule, LearnedRule) and name not in learned:
            continue
        try:
            results[name] = _at_budgets(rule, test, val, costs, learned.get(name, {}), budgets)
        except RuleError as error:
            raise RuleError(f"stopping rule '{name}': {error}") from error
    if names is None or ORACLE in names:
        results[ORACLE] = {axis: _points(oracle_at(test.correct, cost, budgets)) for axis, cost in costs.items()}
    return results


def _at_budgets(
    rule: StoppingRule,
    test: Trace,
    val: Trace,
    costs: Mapping[str, Floats],
    learned: Mapping[str, NDArray[Any]],
    budgets: Sequence[float],
) -> dict[str, Points]:
    """One rule, fitted on each axis."""
    if isinstance(rule, LearnedRule):
        # It learned for the counted costs; they are what its weights belong to.
        fits = dict.fromkeys(costs, rule.fit_learned(val, costs["macs"], learned))
    else:
        fits = {axis: fitted_on(rule, val, cost) for axis, cost in costs.items()}
    spent_on = rule.calibration(val)
    return {
        axis: _points(
            [
                None if result is None else result.correct
                for result in at_budgets(fits[axis], spent_on, test, cost, budgets)
            ]
        )
        for axis, cost in costs.items()
    }


def oracle_at(correct: ArrayLike, cost: ArrayLike, budgets: Sequence[float]) -> list[Floats | None]:
    """Expected correctness per image ``(N,)`` of the best choice of exits whose mean cost is at most each budget.

    Every image leaves at exit 0 or pays for its first right exit; the cheapest of these are paid for first, which no
    rule can beat at that cost. None where exit 0 alone costs more.

    >>> [row.tolist() for row in oracle_at([[1, 0, 0], [1, 1, 0]], [1.0, 4.0], [1.0, 1.5, 2.0])]
    [[1.0, 0.0, 0.0], [1.0, 0.5, 0.0], [1.0, 1.0, 0.0]]
    """
    right, costs = np.asarray(correct, dtype=bool), check_cost(cost)
    first = right.argmax(axis=0)
    price = np.where(right.any(axis=0), costs[first] - costs[0], np.inf) / right.shape[1]
    results: list[Floats | None] = []
    for budget in budgets:
        if budget < costs[0]:
            results.append(None)
            continue
        expected, left = right[0].astype(np.float64), budget - costs[0]
        for step in np.unique(price[(price > 0) & np.isfinite(price)]):
            images = price == step
            share = min(1.0, left / (step * images.sum()))
            expected[images] = share
            left -= share * step * images.sum()
        results.append(expected)
    return results


def learn_rules(val: Trace, cost: Floats, known: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """What learned rules, but those ``known``, make of the validation split, as arrays of a record; some seconds."""
    return {
        f"{PREFIX}{name}.{part}": values
        for name, rule in stopping_rules().items()
        if isinstance(rule, LearnedRule) and name not in known
        for part, values in rule.learn(val, cost).items()
    }


def learned_from(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """What each learned rule learned, out of a record's arrays."""
    learned: dict[str, dict[str, NDArray[Any]]] = {}
    for key, values in arrays.items():
        if key.startswith(PREFIX):
            name, _, part = key.removeprefix(PREFIX).partition(".")
            learned.setdefault(name, {})[part] = values
    return learned


def _points(rows: Sequence[Floats | None]) -> Points:
    points: Points = {}
    for budget, expected in zip(BUDGETS, rows, strict=True):
        if expected is None:
            points[str(budget)] = None
            continue
        interval = mean_interval(expected[None])
        points[str(budget)] = Estimate.of(interval.value, (max(interval.low, 0.0), min(interval.high, 1.0)))
    return points
