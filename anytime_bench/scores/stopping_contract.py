"""What a stopping rule is: fitted on the validation split, then asked after each answer which images stop there.

A rule has one knob; ``settings`` are the knob's values, so that a rule is a curve of accuracy over mean cost. It sees
``Answers``: what the exits so far said, never a label, a later exit or another image.

Shapes: predictions, confidence, squared norm ``(K, N)`` for the K exits so far; costs ``(E,)``, cumulative, in
multiples of the reference's full cost. The rules' table is ``stopping_rules.RULES``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.stopping import sweep
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Exits = NDArray[np.intp]
Arrays = Mapping[str, NDArray[Any]]


class RuleError(TraceError):
    """What a rule gave that no rule may give; who knows its name says it."""


@dataclass(frozen=True)
class Answers:
    """What the exits so far said: classes, probability of that class, sum of squared probabilities, ``(K, N)`` each."""

    num_classes: int
    predictions: NDArray[Any]
    confidence: Floats
    squared_norm: Floats

    @classmethod
    def of(cls, trace: Trace) -> Answers:
        """All answers of a trace, without its labels."""
        return cls(
            trace.num_classes,
            trace.predictions,
            trace.confidence.astype(np.float64),
            trace.squared_norm.astype(np.float64),
        )

    def until(self, k: int) -> Answers:
        """The answers of exits 0..k."""
        end = k + 1
        return Answers(self.num_classes, self.predictions[:end], self.confidence[:end], self.squared_norm[:end])

    @property
    def shape(self) -> tuple[int, int]:
        """Exits so far and images, ``(K, N)``."""
        return self.predictions.shape[0], self.predictions.shape[1]


@dataclass(frozen=True)
class Curve:
    """A fitted rule at each of its settings: accuracy in [0, 1] and mean cost, ``(T,)`` each."""

    accuracy: Floats
    cost: Floats


class FittedRule(ABC):
    """A rule that has seen the validation split; ``settings`` are the values of its knob."""

    settings: Sequence[float]

    @abstractmethod
    def stop(self, answers: Answers, setting: float) -> ArrayLike:
        """Whether each image stops now, ``(N,)`` truth values, by what the exits so far said of it."""

    def exits(self, answers: Answers, setting: float) -> Exits:
        """Where each image leaves, ``(N,)``: the first exit at which ``stop`` says so, else the last one.

        A rule that can decide for all exits at once overrides this; the result must be the same.
        """
        exits, images = answers.shape
        leave = np.full(images, exits - 1)
        for k in reversed(range(exits - 1)):
            stops = np.asarray(self.stop(answers.until(k), setting))
            if stops.dtype != bool or stops.shape != (images,):
                raise RuleError(f"stop gave {stops.dtype} of shape {stops.shape}, expected bool ({images},)")
            leave[stops] = k
        return leave

    def exits_at(self, answers: Answers, settings: Sequence[float]) -> Sequence[Exits]:
        """``exits`` for several settings: where what they share is worth computing once."""
        return [self.exits(answers, setting) for setting in settings]

    def curve(self, trace: Trace, cost: ArrayLike, settings: Sequence[float] | None = None) -> Curve:
        """What each of ``settings`` (None: of the rule's own) gives on a split; ``cost (E,)`` is cumulative."""
        costs, index, answers = check_cost(cost), np.arange(trace.num_samples), Answers.of(trace)
        leaves = checked_exits(self, answers, self.settings if settings is None else settings)
        accuracy = [trace.correct[leave, index].mean(dtype=np.float64) for leave in leaves]
        return Curve(np.array(accuracy), np.array([costs[leave].mean() for leave in leaves]))


class StoppingRule(ABC):
    """One way of deciding when to stop. ``name`` is its name in files, ``title`` the one in tables."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def fit(self, val: Trace, cost: Floats) -> FittedRule:
        """The rule for a network whose exits cost ``cost (E,)``, fitted on the validation split."""

    def calibration(self, val: Trace) -> Trace:
        """The part of the validation split on which the spending of budgets is fitted: all of it."""
        return val


class LearnedRule(StoppingRule):
    """A rule with weights of its own: learned once, stored beside the trace, read ever after.

    ``learn`` may take seconds and need torch; ``fit_learned`` must need neither. Weights are small arrays by name. The
    first half of the validation images, in an order of their own, is learned from; budgets are spent on the other half.
    """

    def halves(self, val: Trace) -> tuple[Trace, Trace]:
        """What is learned from, and what thresholds and budgets are fitted on."""
        if val.num_samples < 4:
            raise TraceError(f"val_labels: expected at least 4 validation images to fit on, got {val.num_samples}")
        half = val.num_samples // 2
        order = np.random.default_rng([0, 0x4A1F]).permutation(val.num_samples)
        return val.subset(order[:half]), val.subset(order[half:])

    def calibration(self, val: Trace) -> Trace:
        return self.halves(val)[1]

    @abstractmethod
    def learn(self, val: Trace, cost: Floats) -> dict[str, NDArray[Any]]:
        """What the rule learns from the validation split, deterministic for equal inputs."""

    @abstractmethod
    def fit_learned(self, val: Trace, cost: Floats, learned: Arrays) -> FittedRule:
        """The fitted rule from what ``learn`` gave for the same arguments."""

    def fit(self, val: Trace, cost: Floats) -> FittedRule:
        return self.fit_learned(val, cost, self.learn(val, cost))


@dataclass(frozen=True)
class Thresholds(FittedRule):
    """Stop where ``sureness (K, N)`` of the newest answer reaches the setting; settings must increase."""

    settings: Sequence[float]
    sureness: Callable[[Answers], Floats]

    def stop(self, answers: Answers, setting: float) -> Flags:
        return np.asarray(self.sureness(answers)[-1] >= setting)

    def exits(self, answers: Answers, setting: float) -> Exits:
        return self.exits_at(answers, [setting])[0]

    def exits_at(self, answers: Answers, settings: Sequence[float]) -> Sequence[Exits]:
        sureness = self.sureness(answers)
        sure = np.stack([sureness >= setting for setting in settings])  # (T, K, N)
        sure[:, -1] = True
        return list(sure.argmax(axis=1))

    def curve(self, trace: Trace, cost: ArrayLike, settings: Sequence[float] | None = None) -> Curve:
        # The same numbers as by asking for every setting, from one histogram.
        grid = self.settings if settings is None else settings
        swept = sweep(self.sureness(Answers.of(trace)), trace.correct, cost, grid)
        return Curve(swept.accuracy, swept.cost)


def checked_exits(fitted: FittedRule, answers: Answers, settings: Sequence[float]) -> list[Exits]:
    """``fitted.exits_at``, or ``RuleError`` where a rule names exits that there are not."""
    exits, images = answers.shape
    leaves = [np.asarray(leave) for leave in fitted.exits_at(answers, settings)]
    for leave in leaves:
        if leave.shape != (images,) or leave.min(initial=0) < 0 or leave.max(initial=0) >= exits:
            raise RuleError(
                f"{type(fitted).__name__} gave leaves of shape {leave.shape}, expected {images} exits in 0..{exits - 1}"
            )
    return [leave.astype(np.intp, copy=False) for leave in leaves]


def fitted_on(rule: StoppingRule, val: Trace, cost: Floats) -> FittedRule:
    """``rule.fit``, or ``RuleError`` where it gives no fitted rule with settings."""
    fitted = rule.fit(val, cost)
    if not isinstance(fitted, FittedRule):
        raise RuleError(f"fit gave {type(fitted).__name__}, expected an object of a class derived from FittedRule")
    if len(getattr(fitted, "settings", ())) == 0:
        raise RuleError(f"{type(fitted).__name__} has no settings: give its class the values of its knob, one or more")
    return fitted
