"""What is read from traces, as typed results, and their JSON (``as_json``). Accuracies and AUROCs are in [0, 1], costs
multiples of the reference's full answer; arrays serve means over seeds and the picture and are no part of the JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RULES = ("gru", "confidence")


@dataclass(frozen=True)
class Bounds:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SeedRange:
    """A mean over seeds with the lowest and the highest seed."""

    value: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class ResponseTime:
    """Mean cost until images are answered, of the most and of the least typical quarter."""

    typical_quarter: float
    atypical_quarter: float


@dataclass(frozen=True)
class ReferenceNet:
    path: str
    method: str
    seed: int


@dataclass(frozen=True)
class Typicality:
    """Spearman's correlation of response time and typicality, with both vectors ``(N,)``."""

    spearman: Bounds
    response_time: ResponseTime
    references: list[ReferenceNet]
    typical: Floats = field(compare=False, repr=False)
    times: Floats = field(compare=False, repr=False)


@dataclass(frozen=True)
class AtBudget:
    accuracy: float
    cost: float


@dataclass(frozen=True)
class RuleResult:
    """A rule by budget in percent, None where no exit is that cheap, and how well it knows final answers: the AUROC per
    exit but the last, None where all answers are alike."""

    at_budget: dict[str, AtBudget | None]
    auroc: list[float | None]


@dataclass(frozen=True)
class RuleGap:
    """Accuracies of both rules and their difference with its interval; the verdict is about the GRU."""

    gru: float
    confidence: float
    value: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class EqualCost(RuleGap):
    """The same where both rules spend the same; ``cost`` by rule."""

    cost: dict[str, float]


@dataclass(frozen=True)
class LearnedStopping:
    """Both rules on the test split. ``expected``: correctness ``(N,)`` per budget and rule; ``curves``: cost and
    accuracy per rule over its thresholds."""

    gru: RuleResult
    confidence: RuleResult
    equal_cost: dict[str, EqualCost | None]
    expected: dict[str, dict[str, Floats]] = field(compare=False, repr=False)
    curves: dict[str, tuple[Floats, Floats]] = field(compare=False, repr=False)


@dataclass(frozen=True)
class OODScores:
    """AUROC of the task's own images against out-of-distribution ones per score, and two less the last exit's."""

    last_exit: Bounds
    mean_confidence: Bounds
    trace_density: Bounds
    mean_confidence_minus_last_exit: Bounds
    trace_density_minus_last_exit: Bounds


@dataclass(frozen=True)
class OOD(OODScores):
    """The same against ``images`` images of another ``task``."""

    task: str
    images: int


@dataclass(frozen=True)
class SeedMeans:
    """One method over its seeds; None is what some seed lacks. Stopping by budget, out-of-distribution by score."""

    method: str
    task: str
    seeds: list[int]
    typicality: SeedRange | None = None
    stopping: dict[str, RuleGap] | None = None
    ood: dict[str, SeedRange] | None = None

    def as_json(self) -> Any:
        return {name: value for name, value in as_json(self).items() if value is not None}


def as_json(value: Any) -> Any:
    """Results as plain dictionaries and lists, without their arrays, which are the fields that are not compared."""
    if is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value) if each.compare}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value
