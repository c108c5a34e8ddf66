"""The scores of one run as typed models: what a record holds of them and ``verify`` derives anew.

Shares (accuracies, areas) are in [0, 1]; costs of stopping are multiples of the reference's full cost in MACs. NaN and
infinity are refused; what is undefined is left out or None, and the field says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of everything stored: immutable, unknown keys refused, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


#: Decimals of every stored share. The arithmetic behind them is exact (counts) or sums of float64, whose last bits
#: depend on the processor; rounding makes equal inputs give equal bytes on every machine.
DECIMALS = 10


def rounded(value: float) -> float:
    return round(float(value), DECIMALS)


class Estimate(Strict):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, ends: Sequence[float]) -> Estimate:
        """Rounded; ``ends`` are the interval's."""
        low, high = ends
        return cls(value=rounded(value), low=rounded(low), high=rounded(high))


#: Per area (``auc_1``, ...) of one cost axis.
Areas = dict[str, Estimate]


class RuleCurve(Strict):
    """A stopping rule on the test split, one entry per setting: its accuracy and mean cost.

    ``settings`` are what the rule is swept over: thresholds (None: infinity, never leave early), repeated answers
    (patience), q of the budgeted batch, epsilon of risk control.
    """

    settings: list[float | None]
    accuracy: list[float]
    cost: list[float]


#: Per budget in percent of the reference's full cost; None where a rule cannot spend so little.
Points = dict[str, Estimate | None]


class Oracle(Strict):
    """Each image leaves at its first right exit. ``gap``: what the confidence rule lacks at the oracle's mean cost,
    None where it cannot spend so little."""

    accuracy: Estimate
    cost: float
    gap: float | None = None


class Stopping(Strict):
    """Stopping rules simulated on stored answers, fitted on the validation split and judged on the test split.

    ``curves`` are accuracy over mean cost in MACs; ``budgets`` the accuracy at each budget, by rule and cost axis.
    """

    stop: Literal["simulated"] = "simulated"
    fitted_on: Literal["val"] = "val"
    curves: dict[str, RuleCurve]
    budgets: dict[str, dict[str, Points]] = Field(default_factory=dict)
    oracle: Oracle


class NoiseScores(Strict):
    """One policy under one kind of noise, all severities together: accuracy and cumulative cost of each answer."""

    final_accuracy: Estimate
    accuracy: list[float]
    cost: dict[str, list[float]]


class NoiseRow(NoiseScores):
    """``kept`` is the share of the clean accuracy that is left, None where no clean answer is right."""

    policy: str
    kind: str
    mode: str
    kept: Estimate | None = None


class NoiseBlock(Strict):
    """Everything a record says about noise; ``clean`` is keyed by policy."""

    images: int
    chance: float
    clean: dict[str, NoiseScores]
    rows: list[NoiseRow]
