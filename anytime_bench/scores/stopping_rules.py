"""The table of stopping rules, to which plugins add, and what a rule gives for a budget.

A budget between two settings of a rule is met by mixing them: each image takes one or the other at random, in the
proportion that spends the budget on the validation split. Nothing is fitted on the test split. A stop here is
simulated; ``harness/early_stop.py`` measures real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.errors import UserError
from anytime_bench.registry import Registry
from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.eenet import EENet
from anytime_bench.scores.simple_rules import BudgetedBatch, Collision, Confidence, Patience, RiskControl
from anytime_bench.scores.stopping_contract import Answers, FittedRule, StoppingRule, checked_exits
from anytime_bench.scores.trace_gru import TraceGru
from anytime_bench.trace.answers import Trace

Floats = NDArray[np.float64]

#: In percent of the reference's full cost.
BUDGETS = (25, 50, 75, 100)

_BUILTIN: tuple[type[StoppingRule], ...] = (
    Confidence,
    Collision,
    Patience,
    BudgetedBatch,
    RiskControl,
    TraceGru,
    EENet,
)

RULES = Registry("anytime_bench.stopping", "stopping rule", {rule.name: rule for rule in _BUILTIN})


def register_stopping_rule(rule: type[StoppingRule]) -> type[StoppingRule]:
    """Add a rule of one's own, usable as a decorator of its class; a taken name or an object raises ``UserError``."""
    named = getattr(rule, "__name__", type(rule).__name__)
    if not callable(rule):
        name = getattr(rule, "name", named)
        raise UserError(f"stopping rule '{name}': expected a class, got an object: register_stopping_rule({named}).")
    for part in ("name", "title"):
        if not isinstance(getattr(rule, part, None), str):
            raise UserError(f"stopping rule '{named}' has no {part}. Give its class the attribute {part}.")
    RULES.add(rule.name, rule)
    return rule


def stopping_rules() -> dict[str, StoppingRule]:
    """One object of every rule by name, the suite's own first."""
    return {name: RULES.resolve(name)[0]() for name in RULES.names()}


@dataclass(frozen=True)
class AtBudget:
    """A rule that spends a budget on the validation split, on the test split.

    ``correct (N,)`` is the expected correctness of each image, ``cost`` the mean cost there; ``settings`` are mixed,
    the second with probability ``weight``.
    """

    correct: Floats
    cost: float
    settings: tuple[float, float]
    weight: float


def at_budgets(
    fitted: FittedRule, val: Trace, test: Trace, cost: ArrayLike, budgets: Sequence[float]
) -> list[AtBudget | None]:
    """One result per budget, in the unit of ``cost``; None where the rule cannot spend so little.

    A rule that cannot spend as much keeps its most expensive setting.
    """
    costs, index = check_cost(cost), np.arange(test.num_samples)
    spends = fitted.curve(val, costs).cost
    mixtures = [_mixture(fitted.settings, spends, budget) for budget in budgets]
    settings = list(dict.fromkeys(setting for mixture in mixtures if mixture for setting in mixture[:2]))
    leaves = dict(zip(settings, checked_exits(fitted, Answers.of(test), settings), strict=True)) if settings else {}
    results: list[AtBudget | None] = []
    for mixture in mixtures:
        if mixture is None:
            results.append(None)
            continue
        low, high, weight = mixture
        expected, spent = np.zeros(test.num_samples), 0.0
        for setting, share in ((low, 1 - weight), (high, weight)):
            expected += share * test.correct[leaves[setting], index]
            spent += share * float(costs[leaves[setting]].mean())
        results.append(AtBudget(expected, spent, (low, high), weight))
    return results


def _mixture(settings: Sequence[float], spends: Floats, budget: float) -> tuple[float, float, float] | None:
    """Two settings and the weight of the second that spend ``budget``, given what each setting spends ``(T,)``."""
    order = np.argsort(spends, kind="stable")
    after = int(np.searchsorted(spends[order], budget, side="right"))
    if after == 0:
        return None
    low, high = int(order[after - 1]), int(order[min(after, len(order) - 1)])
    gap = spends[high] - spends[low]
    return settings[low], settings[high], float((budget - spends[low]) / gap) if gap > 0 else 0.0
