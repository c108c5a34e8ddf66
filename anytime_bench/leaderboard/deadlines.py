"""What came of interrupting a row's models at deadlines, over its seeds: the promise of the curve held against it.

A record's interval is over its draw of deadlines and images. Records of a row have draws of their own unless they were
made with one ``--seed``: then a lucky draw is lucky for all of them, which the scatter of the seeds does not show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from anytime_bench.harness.deadline_summary import MODES, PARTS, DeadlineBlock, Delivered, DeliveredPoint, Mode, verdict
from anytime_bench.leaderboard.added import NORMAL
from anytime_bench.leaderboard.row_parts import Interrupted, Served, ServedPoint, digits, mean_digits, mean_share, share
from anytime_bench.records.record import Record
from anytime_bench.scores.results import Estimate
from anytime_bench.scores.variance import Spread, half_width


def interrupted(records: Sequence[Record]) -> Interrupted | None:
    """Uniform deadlines, per mode; None where no record of the row was interrupted."""
    blocks = [record.deadlines for record in records if record.deadlines]
    if not blocks:
        return None
    return Interrupted(
        horizon=mean_digits([block.horizon for block in blocks]),
        draws=sum(block.row().draws for block in blocks),
        disturbed=list(dict.fromkeys(reason for block in blocks for reason in block.reasons)),
        modes=[_served(blocks, mode) for mode in MODES],
    )


def over_draws(seeds: Sequence[Estimate], draws: Sequence[int], least: float = 0.0) -> Estimate:
    """The mean over seeds, with its interval cut to [``least``, 1]; ``draws`` names the draw of each seed's record.

    Student's t over the seeds, whose scatter holds what draws of their own do to them; of a draw that several seeds
    have in common the variance is added, with the weight that it has in the mean. One seed has its own interval.
    """
    if len(seeds) == 1:
        return Estimate(value=share(seeds[0].value), low=share(seeds[0].low), high=share(seeds[0].high))
    values = np.array([each.value for each in seeds])
    of_draw = float(np.mean([((each.high - each.low) / (2 * NORMAL)) ** 2 for each in seeds]))
    common = sum((times / len(seeds)) ** 2 for times in Counter(draws).values() if times > 1)
    # Seeds that happen to agree better than their draws allow are no more certain than those.
    student = max(float(values.var(ddof=1)), of_draw) / len(seeds)
    spread = Spread(np.asarray(common * of_draw), np.asarray(student), np.asarray(len(seeds) - 1.0))
    mean, half = float(values.mean()), float(half_width(spread))
    return Estimate(value=share(mean), low=share(max(mean - half, least)), high=share(min(mean + half, 1.0)))


def _served(blocks: Sequence[DeadlineBlock], mode: Mode) -> Served:
    rows, draws = [block.row(mode) for block in blocks], [block.meta.seed for block in blocks]
    difference = over_draws([row.difference for row in rows], draws, -1.0)
    return Served(
        mode=mode,
        delivered=over_draws([row.accuracy for row in rows], draws),
        promised=mean_share([row.promised for row in rows]),
        difference=difference,
        verdict=verdict(difference),
        misses=mean_share([row.misses.value for row in rows]),
        **_times(rows),
        points=[_point(parts, draws) for parts in _points([block.points[mode] for block in blocks])],
    )


def _times(rows: Sequence[Delivered]) -> dict[str, float]:
    return {
        "late_p50": mean_digits([row.lateness.p50 for row in rows]),
        "late_p99": mean_digits([row.lateness.p99 for row in rows]),
        "late_max": digits(max(row.lateness.max for row in rows)),
        "free_p99": mean_digits([row.release.p99 for row in rows]),
    }


def _points(seeds: Sequence[Sequence[DeliveredPoint]]) -> list[list[DeliveredPoint]]:
    """By the part of [0, H]: one point per seed, where every seed has one."""
    parts = [{int(point.deadline * PARTS): point for point in points} for points in seeds]
    return [[each[part] for each in parts] for part in sorted(parts[0]) if all(part in each for each in parts)]


def _point(seeds: Sequence[DeliveredPoint], draws: Sequence[int]) -> ServedPoint:
    return ServedPoint(
        deadline=mean_digits([each.deadline for each in seeds]),
        delivered=over_draws([each.accuracy for each in seeds], draws),
        promised=mean_share([each.promised for each in seeds]),
    )
