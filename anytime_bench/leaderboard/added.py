"""What the scores of plugins and the stopping rules say on a board, over a row's seeds.

Values are read off the records; each seed's interval is over test images. Over several seeds the mean has both: the
images' variance, which the seeds share, and the seeds' own, Student's t (``scores.variance``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anytime_bench.leaderboard.row_parts import BudgetLine, digits, mean_share, share
from anytime_bench.records.record import Added, Record
from anytime_bench.scores.results import Estimate
from anytime_bench.scores.stopping_budgets import ORACLE
from anytime_bench.scores.stopping_rules import BUDGETS, RULES
from anytime_bench.scores.variance import Spread, half_width
from anytime_bench.trace.axes import AXES

#: Half the width of a normal 95 % interval in standard deviations.
NORMAL = 1.959963984540054


def over_seeds(seeds: Sequence[Estimate]) -> Estimate:
    """The mean of one score over seeds, with its interval; a single seed keeps its own."""
    if len(seeds) == 1:
        return seeds[0]
    values = np.array([seed.value for seed in seeds])
    images = np.array([(seed.high - seed.low) / (2 * NORMAL) for seed in seeds])
    spread = Spread(
        np.asarray((images**2).mean()), np.asarray(values.var(ddof=1) / len(values)), np.asarray(len(values) - 1.0)
    )
    mean, half = float(values.mean()), float(half_width(spread))
    return Estimate(value=mean, low=mean - half, high=mean + half)


def extra_scores(records: Sequence[Record]) -> dict[str, Estimate]:
    """Added scores of a row: per image, and per exit that of the last exit (whose seeds alone give an interval)."""
    result = {}
    for name in _added_scores(records):
        if all(name in record.images for record in records):
            result[name] = over_seeds([record.images[name] for record in records])
        if all(name in record.exits[-1].scores for record in records):
            values = [record.exits[-1].scores[name] for record in records]
            result[name] = over_seeds([Estimate(value=value, low=value, high=value) for value in values])
    return {
        name: Estimate(value=digits(each.value), low=digits(each.low), high=digits(each.high))
        for name, each in result.items()
    }


def extra_exits(records: Sequence[Record], means: pd.DataFrame) -> list[dict[str, float]]:
    """Added scores per exit, means over the seeds (``frame.exit_means``), where every seed has one."""
    scores = means[[name for name in _added_scores(records) if name in means]]
    return [{name: digits(line[name]) for name in scores if pd.notna(line[name])} for line in scores.to_dict("records")]


def _added_scores(records: Sequence[Record]) -> list[str]:
    return [name.removeprefix("score ") for name in added_by_name(records) if name.startswith("score ")]


def added_by_name(records: Sequence[Record]) -> dict[str, Added]:
    """What the records say of the scores and rules that plugins added."""
    return dict(sorted((name, each) for record in records for name, each in record.added.items()))


def budget_lines(records: Sequence[Record]) -> list[BudgetLine]:
    """One line per stopping rule and cost axis that every seed has, the oracle last."""
    parts = [record.stopping.budgets if record.stopping else {} for record in records]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    titles = {name: each.title for name, each in added_by_name(records).items()}
    lines = []
    for name in sorted(names, key=lambda name: (name == ORACLE, names.index(name))):
        axes = [axis for axis in AXES if all(axis in part[name] for part in parts)]
        lines += [
            BudgetLine(
                rule=name,
                title=titles.get(f"rule {name}") or (RULES.resolve(name)[0].title if name in RULES.names() else name),
                axis=axis,
                accuracy=_points([part[name][axis] for part in parts]),
                deciding=_deciding(records) if name == "confidence" else None,
            )
            for axis in axes
        ]
    return lines


def _points(seeds: Sequence[dict[str, Estimate | None]]) -> dict[str, Estimate | None]:
    points: dict[str, Estimate | None] = {}
    for budget in map(str, BUDGETS):
        known = [each for seed in seeds if (each := seed.get(budget)) is not None]
        if len(known) < len(seeds):
            points[budget] = None
            continue
        each = over_seeds(known)
        points[budget] = Estimate(
            value=share(each.value), low=share(max(each.low, 0.0)), high=share(min(each.high, 1.0))
        )
    return points


def _deciding(records: Sequence[Record]) -> float | None:
    """Share of the time of a real stop by confidence, one image at a time, that went into deciding."""
    stops = [
        [stop.policy_share for stop in record.timing.meta.early_stop if stop.batch_size == 1] if record.timing else []
        for record in records
    ]
    return mean_share([each[0] for each in stops]) if all(stops) else None
