"""Every score of one run as JSON-ready dictionaries: what a record holds and ``verify`` recomputes.

Three entry points, all pure: ``exit_scores`` (per exit), ``score_axes`` (areas per cost axis), ``trace_scores``
(stopping rules and per-image behaviour). Shares are in [0, 1]; a value with an interval is ``{value, low, high}``;
what is undefined (AUROC without a wrong answer) is None. The time to a share of the reference's accuracy is no score of
a single run, for the reference's accuracy is another run's result: boards compute it (``curve.time_to``).

Published numbers are rounded to 10 decimals. The arithmetic behind them is exact (counts) or sums of float64, whose
last bits depend on the processor; rounding makes equal inputs give equal bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores import confidence, per_sample, risk_control, stopping
from anytime_bench.scores.curve import check_cost, exit_shares, settle
from anytime_bench.scores.intervals import RESAMPLES, accuracy_interval, percentiles, resampled_means
from anytime_bench.trace.answers import Trace, TraceError
from anytime_bench.trace.axes import AXES

Floats = NDArray[np.float64]

#: Areas per axis: name, horizon in multiples of the reference's full cost, logarithmic or not.
AREAS = (("auc_1", 1.0, False), ("auc_2", 2.0, False), ("alc_1", 1.0, True))
BUDGETS = (25, 50, 75, 100)
PATIENCES = (1, 2, 3)
DECIMALS = 10


def exit_scores(trace: Trace) -> list[dict[str, Any]]:
    """Per exit: accuracy with Wilson's interval, top-5 (None for up to 5 classes), NLL, Brier, ECE, AUROC, AUGRC."""
    correct = trace.correct
    columns = {
        "nll": confidence.nll(trace.true_log_probability),
        "brier": confidence.brier(trace.true_log_probability, trace.squared_norm),
        "ece": confidence.ece(trace.confidence, correct),
        "auroc": confidence.auroc(trace.confidence, correct),
        "augrc": confidence.augrc(trace.confidence, correct),
    }
    top5 = (np.asarray(trace.true_rank, dtype=np.int64) < 5).mean(axis=1, dtype=np.float64)
    rows = []
    for k in range(trace.num_exits):
        accuracy = accuracy_interval(correct[k])
        row: dict[str, Any] = {"accuracy": _estimate(accuracy.value, accuracy.low, accuracy.high)}
        row["top5"] = _number(top5[k]) if trace.num_classes > 5 else None
        row.update({name: _number(values[k]) for name, values in columns.items()})
        rows.append(row)
    return rows


def score_axes(
    trace: Trace,
    costs: Mapping[str, ArrayLike],
    horizons: Mapping[str, float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Per axis of ``costs``: AUC@1, AUC@2 and ALC with intervals.

    ``costs[axis]`` holds the cumulative cost of each exit ``(E,)``; ``horizons[axis]`` is the full cost of the task's
    reference model on that axis. The interval is a bootstrap over the images: an area is a fixed combination of the
    exits' accuracies, so the exits' accuracies in each resample give all areas on all axes.
    """
    chance = 1 / trace.num_classes
    resampled = resampled_means(trace.correct, resamples, seed)  # (R, E)
    accuracy = trace.accuracy
    scores: dict[str, dict[str, Any]] = {}
    for axis, raw in costs.items():
        cost = exit_cost(axis, raw, trace.num_exits)
        if axis not in horizons:
            raise TraceError(f"horizon[{axis}]: missing; expected the reference's full cost on each axis of the costs")
        scores[axis] = {}
        for name, multiple, log in AREAS:
            shares = exit_shares(cost, multiple * horizons[axis], log=log)
            low, high = percentiles(_combine(shares, resampled, chance))
            scores[axis][name] = _estimate(float(_combine(shares, accuracy[None], chance)[0]), low, high)
    return scores


def trace_scores(
    test: Trace,
    val: Trace,
    cost: ArrayLike,
    reference_cost: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Stopping rules and per-image behaviour on one cost axis, usually MACs: ``{"stopping": ..., "images": ...}``.

    ``cost (E,)`` is cumulative, ``reference_cost`` the reference's full cost in the same unit; costs are reported as
    multiples of it. Every rule is fitted on ``val`` and judged on ``test``.
    """
    costs = check_cost(cost) / reference_cost
    _check_pair(test, val, costs)
    images = _Images(test.num_samples)
    stop = _stopping(test, val, costs, images, seed)
    behaviour = _behaviour(test, costs, images)
    images.fill_in(resamples, seed)
    return {"stopping": stop, "images": behaviour}


def exit_cost(axis: str, cost: ArrayLike, exits: int) -> Floats:
    """``cost`` as ``(exits,)`` increasing numbers: settled if the axis is measured, else checked as it is."""
    values = np.asarray(cost, dtype=np.float64)
    name = f"cost[{axis}]"
    if values.shape != (exits,):
        raise TraceError(f"{name}: expected one number for each of {exits} exits, got shape {values.shape}")
    return check_cost(settle(values) if AXES[axis].settled and np.isfinite(values).all() else values, name)


class _Images:
    """Per-image values whose means want intervals: collected first, resampled together in one matrix product."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.columns: list[Floats] = []
        self.places: list[dict[str, float | None]] = []

    def mean(self, values: ArrayLike) -> dict[str, float | None]:
        """The mean of ``values (N,)`` as an estimate whose interval ``fill_in`` completes."""
        column = np.asarray(values, dtype=np.float64)
        self.columns.append(column)
        self.places.append({"value": _number(column.mean()), "low": None, "high": None})
        return self.places[-1]

    def fill_in(self, resamples: int, seed: int) -> None:
        means = resampled_means(np.stack(self.columns), resamples, seed)
        for place, column in zip(self.places, means.T, strict=True):
            low, high = percentiles(column)
            place.update(low=_number(low), high=_number(high))


def _stopping(test: Trace, val: Trace, costs: Floats, images: _Images, seed: int) -> dict[str, Any]:
    fitted = stopping.sweep(val.confidence, val.correct, costs)
    at_budget: dict[str, Any] = {}
    for budget in BUDGETS:
        mixture = stopping.threshold_for(fitted, budget / 100)
        if mixture is None:
            at_budget[str(budget)] = None
            continue
        expected, spent = stopping.apply_mixture(mixture, test.confidence, test.correct, costs)
        at_budget[str(budget)] = {
            "accuracy": images.mean(expected),
            "cost": _number(spent),
            "thresholds": [_number(mixture.low), _number(mixture.high)],
            "weight": _number(mixture.weight),
        }
    index = np.arange(test.num_samples)
    patience = []
    for steps in PATIENCES:
        leave = stopping.exits_by_patience(test.predictions, steps)
        patience.append(
            {
                "patience": steps,
                "accuracy": images.mean(test.correct[leave, index]),
                "cost": _number(costs[leave].mean()),
            }
        )
    on_test = stopping.sweep(test.confidence, test.correct, costs)
    batch = stopping.budgeted_batch(val.confidence, val.correct, test.confidence, test.correct, costs)
    best = stopping.oracle(test.correct)
    best_accuracy, best_cost = stopping.outcome(best, test.correct, costs)
    matched = stopping.threshold_for(fitted, best_cost)
    reached = stopping.apply_mixture(matched, test.confidence, test.correct, costs)[0].mean() if matched else np.nan
    return {
        "stop": "simulated",
        "fitted_on": "val",
        "at_budget": at_budget,
        "threshold": {
            # The last threshold, infinity, is None: never leave early.
            "thresholds": _list(on_test.thresholds),
            "accuracy": _list(on_test.accuracy),
            "cost": _list(on_test.cost),
            "cost_val": _list(fitted.cost),
        },
        "budgeted_batch": {
            "q": _list(batch.q),
            "accuracy": _list(batch.accuracy_test),
            "cost": _list(batch.cost_test),
            "cost_val": _list(batch.cost_val),
        },
        "patience": patience,
        "risk_control": [
            {key: _plain(value) for key, value in row.items()}
            for row in risk_control.risk_control(test, val, costs, seed=seed)
        ],
        "oracle": {
            "accuracy": images.mean(test.correct.any(axis=0)),
            "cost": _number(best_cost),
            # What the confidence rule lacks when it may spend as much as the oracle does.
            "gap": _number(best_accuracy - reached),
        },
    }


def _behaviour(test: Trace, costs: Floats, images: _Images) -> dict[str, Any]:
    correct = test.correct
    fall = per_sample.largest_fall(test.true_log_probability)
    return {
        "destructive_overthinking": images.mean(per_sample.destructive_overthinking(correct)),
        "wasted_cost": images.mean(per_sample.wasted_cost(correct, costs)),
        "hindsight_improvability": _list(per_sample.hindsight_improvability(correct)),
        "non_monotone": {f"{delta:g}": images.mean(fall > delta) for delta in per_sample.DELTAS},
        "flips": images.mean(per_sample.flips(test.predictions)),
        "confusion": None
        if test.confusion is None
        else {
            "mean": images.mean(test.confusion),
            # How well disagreement between exits predicts that the last one is wrong.
            "auroc_error": _number(confidence.auroc(test.confusion, ~correct[-1])[0]),
        },
    }


def _combine(shares: Floats, accuracy: Floats, chance: float) -> Floats:
    """Areas ``(R,)`` from accuracies ``(R, E)``, added exit by exit so that the order of additions is fixed."""
    total = np.full(len(accuracy), shares[0] * chance)
    for k, share in enumerate(shares[1:]):
        total += share * accuracy[:, k]
    return total


def _check_pair(test: Trace, val: Trace, costs: Floats) -> None:
    if val.num_samples == 0:
        raise TraceError("val_labels: the validation split is empty, so no threshold can be fitted")
    if (val.num_exits, val.num_classes) != (test.num_exits, test.num_classes):
        raise TraceError(
            f"val_predictions: expected {test.num_exits} exits and {test.num_classes} classes as on the test split, "
            f"got {val.num_exits} and {val.num_classes}"
        )
    if len(costs) != test.num_exits:
        raise TraceError(f"cost: expected one number for each of {test.num_exits} exits, got {len(costs)}")


def _number(value: float) -> float | None:
    return round(float(value), DECIMALS) if np.isfinite(value) else None


def _plain(value: Any) -> Any:
    # Costs in MACs or seconds keep all their digits: ten decimals of a second would be few.
    if value is None or isinstance(value, str):
        return value
    return float(f"{float(value):.12g}")


def _list(values: ArrayLike) -> list[float | None]:
    return [_number(value) for value in np.asarray(values, dtype=np.float64)]


def _estimate(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": _number(value), "low": _number(low), "high": _number(high)}
