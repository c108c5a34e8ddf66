"""What a row's clock says beside its curve: full answers per second at larger batches, and whether MACs saved are time
saved. Means over seeds; times are of the method and the reference in the same interleaved rounds.

Users of dynamic networks complain most that the count of operations falls and the clock does not: ``Promise`` puts both
side by side for every exit, each asked for alone, against the reference's full answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from anytime_bench.harness.timing_block import Spread
from anytime_bench.leaderboard.row_parts import Promise, Seconds, Throughput, digits_or_none, mean_digits, share
from anytime_bench.records.record import Record
from anytime_bench.scores.results import Estimate
from anytime_bench.trace.axes import timed

#: Below this share of MACs saved nothing was promised that the clock could keep.
LEAST_SAVED = 0.02


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's 95 % interval; of one seed the value alone, without width."""
    mean = float(np.mean(values))
    half = 0.0
    if len(values) > 1:
        half = float(special.stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Estimate(value=share(mean), low=share(mean - half), high=share(mean + half))


def throughput(records: Sequence[Record]) -> list[Throughput]:
    """Full answers per second at each batch size above 1 that every seed was timed at."""
    blocks = [record.timing.batches if record.timing else {} for record in records]
    sizes = [size for size in blocks[0] if size != "1" and all(size in block for block in blocks)]
    result = []
    for size in sorted(sizes, key=int):
        clocks = [block[size].clocks["latency"] for block in blocks]
        ratios = [1 / clock.ratio_to_reference[-1].value for clock in clocks]
        result.append(
            Throughput(
                batch=int(size),
                per_second=mean_digits([clock.throughput[-1] for clock in clocks]),
                times_reference=mean_digits(ratios),
            )
        )
    return result


def promises(records: Sequence[Record]) -> list[Promise]:
    """Per exit; empty where some seed has no times of single exits."""
    ratios = [record.timing.latency.prefix_ratio_to_reference if record.timing else [] for record in records]
    macs = records[0].reference.costs.get("macs") if records[0].reference else None
    if not macs or not all(ratios):
        return []
    result = []
    for k, entry in enumerate(records[0].exits):
        saved = 1 - entry.macs_prefix / macs
        times = [seed[k].value for seed in ratios]
        estimate = over_seeds([1 - time for time in times])
        if len(records) == 1:  # One seed has its own interval, over rounds.
            only = ratios[0][k]
            estimate = Estimate(value=estimate.value, low=share(1 - only.high), high=share(1 - only.low))
        arrives = estimate.value / saved if saved >= LEAST_SAVED else None
        result.append(Promise(macs_saved=share(saved), time_saved=estimate, arrives=digits_or_none(arrives)))
    return result


def seconds(records: Sequence[Record]) -> dict[str, list[Seconds]]:
    """Per clock and exit; a clock that some seed was not read by is left out."""
    result = {}
    for name in timed():
        blocks = [record.timing.clock(name) if record.timing else None for record in records]
        by_seed = [block.run_through for block in blocks if block is not None]
        if len(by_seed) == len(records):
            result[name] = [_seconds(exits) for exits in zip(*by_seed, strict=True)]
    return result


def _seconds(exits: Sequence[Spread]) -> Seconds:
    return Seconds(
        p50=mean_digits([each.p50 for each in exits]),
        p90=mean_digits([each.p90 for each in exits]),
        p99=mean_digits([each.p99 for each in exits]),
    )
