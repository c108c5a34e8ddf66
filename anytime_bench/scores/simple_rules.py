"""Stopping rules that learn no weights: confidence, collision probability, patience, budgeted batch, risk control.

What a rule reads must be in the stored trace. It holds the answer, its probability and the sum of squared probabilities
of each exit, so Shannon's entropy and the margin to the runner-up, which need the whole vector, are no rules here; the
collision probability (whose negative logarithm is Rényi's entropy of order 2) stands in for both: it is 1 for a certain
answer and 1/C for an even one.

Sources: confidence, Teerapittayanon et al., ICPR 2016; patience, Zhou et al., NeurIPS 2020; budgeted batch, Huang et
al., ICLR 2018; risk control, Jazbec et al., NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anytime_bench.scores.risk_control import DELTA, THRESHOLDS, Bets, losses_by_threshold
from anytime_bench.scores.stopping import BATCH_Q, GRID, batch_thresholds, exits_by_patience
from anytime_bench.scores.stopping_contract import Answers, Exits, FittedRule, Flags, Floats, StoppingRule, Thresholds
from anytime_bench.trace.answers import Trace

#: Losses of accuracy that risk control is asked to stay below.
RISKS = (0.3, 0.2, 0.15, 0.1, 0.075, 0.05, 0.03, 0.02, 0.01, 0.005)


class Confidence(StoppingRule):
    """Stop at the first answer whose probability reaches a threshold."""

    name = "confidence"
    title = "confidence"

    def fit(self, val: Trace, cost: Floats) -> Thresholds:
        return Thresholds(tuple(GRID), lambda answers: answers.confidence)


class Collision(StoppingRule):
    """Stop at the first answer whose collision probability, the sum of squared probabilities, reaches a threshold."""

    name = "collision"
    title = "collision probability"

    def fit(self, val: Trace, cost: Floats) -> Thresholds:
        return Thresholds(tuple(GRID), lambda answers: answers.squared_norm)


@dataclass(frozen=True)
class _Patience(FittedRule):
    settings: Sequence[float]

    def stop(self, answers: Answers, setting: float) -> Flags:
        newest = answers.predictions[-int(setting) - 1 :]
        return (newest == newest[-1]).all(axis=0) & (len(newest) == int(setting) + 1)

    def exits(self, answers: Answers, setting: float) -> Exits:
        return exits_by_patience(answers.predictions, int(setting))


class Patience(StoppingRule):
    """Stop once the answer has been repeated as often in a row as the setting says."""

    name = "patience"
    title = "patience"

    def fit(self, val: Trace, cost: Floats) -> FittedRule:
        return _Patience(tuple(range(1, max(2, val.num_exits))))


@dataclass(frozen=True)
class _PerExit(FittedRule):
    """A threshold of its own for each exit, ``(E,)`` per setting."""

    settings: Sequence[float]
    thresholds: Mapping[float, NDArray[np.float64]]

    def stop(self, answers: Answers, setting: float) -> Flags:
        return np.asarray(answers.confidence[-1] >= self.thresholds[setting][answers.shape[0] - 1])

    def exits(self, answers: Answers, setting: float) -> Exits:
        sure = answers.confidence >= self.thresholds[setting][:, None]
        sure[-1] = True
        return sure.argmax(axis=0)


class BudgetedBatch(StoppingRule):
    """Exit k takes a share of the images proportional to q^k: one threshold per exit, fitted on validation."""

    name = "budgeted_batch"
    title = "budgeted batch"

    def fit(self, val: Trace, cost: Floats) -> FittedRule:
        thresholds = batch_thresholds(val.confidence)
        return _PerExit(tuple(BATCH_Q), dict(zip(BATCH_Q, thresholds, strict=True)))


class RiskControl(StoppingRule):
    """The lowest threshold of confidence that loses less accuracy than the setting, with probability 0.9."""

    name = "risk_control"
    title = "risk control"

    def fit(self, val: Trace, cost: Floats) -> FittedRule:
        safe = dict.fromkeys(RISKS, np.inf)
        walking = sorted(RISKS)
        for threshold, losses in zip(THRESHOLDS, losses_by_threshold(val), strict=True):
            bets = Bets.on(losses, DELTA)
            # A loss that stays below one risk stays below every higher one.
            walking = walking[next((i for i, risk in enumerate(walking) if bets.below(risk, DELTA)), len(RISKS)) :]
            safe |= dict.fromkeys(walking, threshold)
            if not walking:
                break
        return _PerExit(RISKS, {risk: np.full(val.num_exits, threshold) for risk, threshold in safe.items()})
