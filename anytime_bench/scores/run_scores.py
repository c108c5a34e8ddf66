"""Every score of one run, as a record holds it and ``verify`` derives it anew.

Pure functions of traces and costs: ``exit_scores`` (per exit), ``score_axes`` (areas per cost axis), ``image_scores``
(what single images do), ``stopping_scores`` (rules that stop early). Shares are in [0, 1]. The time to a share of the
reference's accuracy is no score of a single run, for the reference's accuracy is another run's result: boards compute
it (``curve.time_to``).

Shares are rounded (``results.DECIMALS``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores import stopping
from anytime_bench.scores.catalogue import Score, scores
from anytime_bench.scores.curve import area, check_cost, exit_shares, settle
from anytime_bench.scores.intervals import RESAMPLES, accuracy_interval, percentiles, resampled_means
from anytime_bench.scores.results import Areas, Estimate, Oracle, RuleCurve, Stopping, rounded
from anytime_bench.scores.stopping_budgets import Learned, rules_at_budgets
from anytime_bench.scores.stopping_contract import FittedRule
from anytime_bench.scores.stopping_rules import at_budgets, stopping_rules
from anytime_bench.trace.answers import Trace, TraceError
from anytime_bench.trace.axes import AXES

Floats = NDArray[np.float64]

#: Areas per axis: name, horizon in multiples of the reference's full cost, logarithmic or not.
AREAS = (("auc_1", 1.0, False), ("auc_2", 2.0, False), ("alc_1", 1.0, True))
#: The settings at which a record holds a rule's curve.
CURVES: dict[str, Sequence[float]] = {
    "confidence": tuple(stopping.GRID),
    "budgeted_batch": tuple(stopping.BATCH_Q),
    "patience": (1, 2, 3),
    "risk_control": (0.01, 0.02, 0.05),
}


def exit_scores(trace: Trace, cost: ArrayLike) -> list[tuple[Estimate, dict[str, float]]]:
    """Per exit: accuracy with Wilson's interval, and every score of the catalogue that is defined.

    ``cost (E,)`` is cumulative, in multiples of the reference's full cost in MACs.
    """
    relative = check_cost(cost)
    tables = {score.name: evaluated(score, trace, relative) for score in scores("exit")}
    rows = []
    for k in range(trace.num_exits):
        accuracy = accuracy_interval(trace.correct[k])
        defined = {name: rounded(values[k]) for name, values in tables.items() if np.isfinite(values[k])}
        rows.append((Estimate.of(accuracy.value, (accuracy.low, accuracy.high)), defined))
    return rows


def image_scores(trace: Trace, cost: ArrayLike, *, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """The mean over images of every score per image, with a bootstrap interval over images; ``cost`` as above."""
    relative = check_cost(cost)
    return _image_means({score.name: evaluated(score, trace, relative) for score in scores("image")}, resamples)


def evaluated(score: Score, trace: Trace, relative: Floats) -> Floats:
    """One score's numbers, ``(E,)`` or ``(N,)``; ``TraceError`` for another shape, and for an image without one."""
    name, count = score.name, trace.num_exits if score.per == "exit" else trace.num_samples
    table = np.asarray(score.function(trace, relative), dtype=np.float64)
    if table.shape != (count,):
        raise TraceError(f"score '{name}': expected {count} numbers, its function gave shape {table.shape}")
    missing = int((~np.isfinite(table)).sum())
    if missing and score.per == "image":
        raise TraceError(f"score '{name}': expected a finite number per image, {missing} of {count} have none")
    return table


def score_axes(
    trace: Trace,
    costs: Mapping[str, ArrayLike],
    horizons: Mapping[str, float],
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Areas]:
    """Per axis of ``costs``: AUC@1, AUC@2 and ALC with intervals.

    ``costs[axis]`` holds the cumulative cost of each exit ``(E,)``; ``horizons[axis]`` is the full cost of the task's
    reference model on that axis. The interval is a bootstrap over the images: an area is a fixed combination of the
    exits' accuracies, so the exits' accuracies in each resample give all areas on all axes.
    """
    chance = 1 / trace.num_classes
    resampled = resampled_means(trace.correct, resamples).T  # (E, R)
    axes: dict[str, Areas] = {}
    for axis, raw in costs.items():
        cost = exit_cost(axis, raw, trace.num_exits)
        if axis not in horizons:
            raise TraceError(f"horizon[{axis}]: missing; expected the reference's full cost on each axis of the costs")
        axes[axis] = {}
        for name, multiple, log in AREAS:
            shares = exit_shares(cost, multiple * horizons[axis], log=log)
            value = float(area(shares, trace.accuracy, chance))
            axes[axis][name] = Estimate.of(value, percentiles(area(shares, resampled, chance)))
    return axes


def stopping_scores(
    test: Trace,
    val: Trace,
    costs: Mapping[str, ArrayLike],
    learned: Learned | None = None,
    *,
    rules: Collection[str] | None = None,
    resamples: int = RESAMPLES,
) -> Stopping:
    """Rules that stop early, fitted on ``val`` and judged on ``test``.

    ``costs (E,)`` are cumulative, in multiples of the reference's full cost, per axis; curves are over ``macs``.
    ``learned`` is what the rules that learn have learned; ``rules`` names those wanted at budgets (None: all).
    """
    relative = {axis: exit_cost(axis, cost, test.num_exits) for axis, cost in costs.items()}
    macs = relative["macs"]
    _check_pair(test, val)
    right = _image_means({"oracle": test.correct.any(axis=0)}, resamples)["oracle"]
    known = stopping_rules()
    fits = {name: known[name].fit(val, macs) for name in CURVES}
    return Stopping(
        curves=_curves(test, fits, macs),
        budgets=rules_at_budgets(test, val, relative, learned or {}, rules),
        oracle=_oracle(test, val, macs, fits["confidence"], right),
    )


def _curves(test: Trace, fits: Mapping[str, FittedRule], costs: Floats) -> dict[str, RuleCurve]:
    curves = {}
    for name, settings in CURVES.items():
        curve = fits[name].curve(test, costs, settings)
        curves[name] = RuleCurve(
            settings=[_setting(value) for value in settings],
            accuracy=[rounded(value) for value in curve.accuracy],
            cost=[rounded(value) for value in curve.cost],
        )
    return curves


def _oracle(test: Trace, val: Trace, costs: Floats, confidence: FittedRule, accuracy: Estimate) -> Oracle:
    best_accuracy, best_cost = stopping.outcome(stopping.oracle(test.correct), test.correct, costs)
    (matched,) = at_budgets(confidence, val, test, costs, [best_cost])
    gap = None if matched is None else rounded(best_accuracy - matched.correct.mean())
    return Oracle(accuracy=accuracy, cost=rounded(best_cost), gap=gap)


def exit_cost(axis: str, cost: ArrayLike, exits: int) -> Floats:
    """``cost`` as ``(exits,)`` increasing numbers: settled if the axis is measured, else checked as it is."""
    values = np.asarray(cost, dtype=np.float64)
    name = f"cost[{axis}]"
    if values.shape != (exits,):
        raise TraceError(f"{name}: expected one number for each of {exits} exits, got shape {values.shape}")
    return check_cost(settle(values) if AXES[axis].settled and np.isfinite(values).all() else values, name)


def _image_means(tables: Mapping[str, ArrayLike], resamples: int) -> dict[str, Estimate]:
    """Means of values per image ``(N,)`` with bootstrap intervals, all resampled together in one matrix product."""
    columns = np.stack([np.asarray(values, dtype=np.float64) for values in tables.values()])
    means = resampled_means(columns, resamples).T
    rows = zip(tables, columns, means, strict=True)
    return {name: Estimate.of(column.mean(), percentiles(resampled)) for name, column, resampled in rows}


def _check_pair(test: Trace, val: Trace) -> None:
    if val.num_samples == 0:
        raise TraceError("val_labels: the validation split is empty, so no threshold can be fitted")
    if (val.num_exits, val.num_classes) != (test.num_exits, test.num_classes):
        raise TraceError(
            f"val_predictions: expected {test.num_exits} exits and {test.num_classes} classes as on the test split, "
            f"got {val.num_exits} and {val.num_classes}"
        )


def _setting(value: float) -> float | None:
    """None for infinity, the threshold that nobody passes."""
    return rounded(value) if np.isfinite(value) else None
