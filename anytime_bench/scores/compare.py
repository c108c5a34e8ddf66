"""A against B, score by score: the paired difference, its interval and a verdict.

``score_matrices`` turns the traces of one method's seeds into per-image values ``(S, N)``, one matrix per score;
``compare`` subtracts two such collections. Both methods must have answered the same images in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores import per_sample
from anytime_bench.scores.curve import auc
from anytime_bench.scores.run_scores import AREAS, exit_cost
from anytime_bench.scores.verdicts import MARGIN, Difference, paired_difference
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]

#: Scores of which less is better; all others are better when higher.
LOWER_IS_BETTER = frozenset({"nll", "brier", "destructive_overthinking", "flips"})


@dataclass(frozen=True)
class Row:
    """One score of the comparison: means of A and B, and A minus B."""

    score: str
    a: float
    b: float
    difference: Difference


def score_matrices(
    traces: Sequence[Trace],
    costs: Sequence[Mapping[str, ArrayLike]],
    horizons: Sequence[Mapping[str, float]],
) -> dict[str, Floats]:
    """Per-image values ``(S, N)`` of every score that is a mean over images, one row per seed.

    ``costs`` and ``horizons`` are per seed, as in ``score_axes``; areas are named ``auc_1[macs]``. Only axes that
    every seed has are compared.
    """
    if not traces:
        raise TraceError("traces: expected at least one")
    if not len(traces) == len(costs) == len(horizons):
        raise TraceError(
            f"costs, horizons: expected one per trace, {len(traces)}, got {len(costs)} and {len(horizons)}"
        )
    for trace in traces[1:]:
        check_same_images(traces[0], trace)
    matrices = {
        "accuracy": np.stack([trace.correct[-1].astype(np.float64) for trace in traces]),
        "nll": np.stack([-trace.true_log_probability[-1].astype(np.float64) for trace in traces]),
        "brier": np.stack(
            [
                trace.squared_norm[-1].astype(np.float64)
                - 2 * np.exp(trace.true_log_probability[-1].astype(np.float64))
                + 1
                for trace in traces
            ]
        ),
        "destructive_overthinking": np.stack(
            [per_sample.destructive_overthinking(trace.correct).astype(np.float64) for trace in traces]
        ),
        "flips": np.stack([per_sample.flips(trace.predictions).astype(np.float64) for trace in traces]),
    }
    axes = [
        axis
        for axis in costs[0]
        if all(axis in one and axis in full for one, full in zip(costs, horizons, strict=True))
    ]
    for axis in axes:
        for name, multiple, log in AREAS:
            rows = []
            for trace, one, full in zip(traces, costs, horizons, strict=True):
                cost = exit_cost(axis, one[axis], trace.num_exits)
                horizon = multiple * full[axis]
                rows.append(auc(cost, trace.correct, horizon, 1 / trace.num_classes, log=log))
            matrices[f"{name}[{axis}]"] = np.stack(rows)
    return matrices


def compare(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    by_seed: bool = False,
    margins: Mapping[str, float] | None = None,
) -> list[Row]:
    """One row per score that both sides have, in A's order; values are ``(seeds, images)``, the images paired.

    ``by_seed`` pairs the seeds too, where both sides are the same trainings in the same order. ``margins`` overrides
    the margin of equivalence by score. Each score is judged by itself.

    >>> rows = compare({"accuracy": [[1, 1, 1, 1]]}, {"accuracy": [[0, 0, 0, 0]]})
    >>> rows[0].score, rows[0].difference.value, rows[0].difference.verdict
    ('accuracy', 1.0, 'better')
    """
    rows = []
    for name in a:
        if name not in b:
            continue
        difference = paired_difference(
            a[name],
            b[name],
            by_seed=by_seed,
            margin=(margins or {}).get(name, MARGIN),
            higher_is_better=name not in LOWER_IS_BETTER,
        )
        rows.append(Row(name, float(np.asarray(a[name]).mean()), float(np.asarray(b[name]).mean()), difference))
    return rows


def check_same_images(a: Trace, b: Trace) -> None:
    """Raise ``TraceError`` unless both traces hold the same labels in the same order."""
    if a.num_samples != b.num_samples:
        raise TraceError(f"labels: unequal sample counts, {a.num_samples} and {b.num_samples} images")
    if not np.array_equal(a.labels, b.labels):
        where = int(np.argmax(np.asarray(a.labels) != np.asarray(b.labels)))
        raise TraceError(f"labels: differ from image {where} on, so the two runs did not answer the same images")
