"""From raw timing samples to the numbers of a record: a pure function, without torch, so that anyone can redo it.

Samples are float32 seconds. ``batch<b>_<clock>_<what>`` holds, for R rounds of I inferences each,

=================== ========= =========================================================================
what                shape     content
=================== ========= =========================================================================
reference           (R, I)    the reference's full answer
run_through         (R, I, E) start to exit k, every answer on the way given
prefix              (R, I, E) ``answer(images, k)`` alone (batch 1 only)
execution_<name>    (R, I, E) run-through of a further execution the model offers (batch 1 only)
=================== ========= =========================================================================

with clock ``latency`` or ``device_time``. ``batch<b>_queue_<what>`` is the part of each latency that the thread spent
waiting for a core although it could run (the kernel's run delay). Percentiles are of the latency as it was: a user
waits for the queue too. Ratios to the reference leave that wait out on both sides, because a long inference loses its
core to a neighbour more often than a short one, and so the neighbour would change the ratio.

The ratio of a round is the median of its I inferences over the median of the reference's I inferences of that round;
the value is the median over rounds. Intervals: 95 %, moving-block bootstrap over rounds (Kuensch, Annals of Statistics
17, 1989), blocks of about R^(1/3) rounds, because consecutive rounds are correlated.

Errors: ``ValueError`` naming the array that is missing or out of shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.timing_block import BatchTiming, ClockBlock, Execution, Spread, Timing, TimingMeta
from anytime_bench.scores.results import Estimate
from anytime_bench.trace.axes import timed

Floats = NDArray[np.floating[Any]]

#: The clock that every timing reads, and the only one that sees waits for a core.
HOST = "latency"
RESAMPLES = 1000
#: The reference may speed up or slow down by this share between the first and the last third of the rounds.
DRIFT_LIMIT = 0.10
#: Below this many rounds an interval says little.
MIN_ROUNDS = 30
#: A first exit dearer than this share of the last one leaves nothing to gain by stopping.
NOTHING_TO_GAIN = 0.90


def summarise(samples: Mapping[str, Floats], meta: TimingMeta) -> Timing:
    """The timing block of a record from raw ``samples`` and what ``meta`` says of how they were taken.

    Each batch size is ``comparable`` by itself, or says why not in ``reasons``.
    """
    batches = {str(size): _batch(samples, size, meta) for size in meta.batch_sizes}
    notes = [*meta.notes, *(note for size, batch in batches.items() for note in _gain_notes(size, batch))]
    return Timing(meta=meta, batches=batches, notes=notes)


def _batch(samples: Mapping[str, Floats], size: int, meta: TimingMeta) -> BatchTiming:
    if f"batch{size}_{HOST}_run_through" not in samples:
        raise ValueError(f"batch{size}_{HOST}_run_through: missing from the timing samples")
    rounds, inferences = samples[f"batch{size}_{HOST}_run_through"].shape[:2]
    reasons = list(meta.disturbances.get(str(size), ()))
    if rounds < MIN_ROUNDS:
        reasons.append(f"only {rounds} rounds were run, but a comparison needs at least {MIN_ROUNDS}")
    drift = reference_drift(_round_medians(samples, size, HOST, "reference")[:, 0])
    if drift > DRIFT_LIMIT:
        reasons.append(f"the reference's own time drifted by {drift:.0%} while it was measured")
    clocks = [clock for clock in timed() if f"batch{size}_{clock}_run_through" in samples]
    return BatchTiming(
        rounds=rounds,
        inferences_per_round=inferences,
        stopped_because=meta.stopped_because[str(size)],
        comparable=not reasons,
        reasons=reasons,
        clocks={clock: _clock_block(samples, size, clock, meta) for clock in clocks},
    )


def _gain_notes(size: str, batch: BatchTiming) -> list[str]:
    """Exits that cost the same expose a model that works ahead of being asked."""
    p50 = [times.p50 for times in batch.clocks[HOST].run_through]
    if len(p50) < 2 or p50[0] <= NOTHING_TO_GAIN * p50[-1]:
        return []
    return [
        f"batch {size}: exit 0 takes {p50[0] / p50[-1]:.0%} of the last exit's time, so stopping early saves "
        "nothing: the model does its work before the first answer is asked for"
    ]


def _clock_block(samples: Mapping[str, Floats], size: int, clock: str, meta: TimingMeta) -> ClockBlock:
    prefix, seed = f"batch{size}_{clock}_", meta.seed
    reference = _round_medians(samples, size, clock, "reference")

    def times(what: str) -> list[Spread]:
        return spread(samples[prefix + what], seed)

    def ratios(what: str) -> list[Estimate]:
        return median_interval(_round_medians(samples, size, clock, what) / reference, seed)

    run_through = times("run_through")
    alone = prefix + "prefix" in samples
    others = [name.removeprefix(prefix) for name in sorted(samples) if name.startswith(prefix + "execution_")]
    return ClockBlock(
        clock=meta.clocks[clock],
        stop=meta.stop[clock]["run_through"],
        prefix_stop=meta.stop[clock]["prefix"],
        reference_full=spread(samples[prefix + "reference"][..., None], seed)[0],
        run_through=run_through,
        ratio_to_reference=ratios("run_through"),
        throughput=[size / each.p50 for each in run_through],
        prefix=times("prefix") if alone else [],
        prefix_ratio_to_reference=ratios("prefix") if alone else [],
        executions={
            name.removeprefix("execution_"): Execution(run_through=times(name), ratio_to_reference=ratios(name))
            for name in others
        },
        queue_share=queue_share(samples, size) if clock == HOST else None,
    )


def queue_share(samples: Mapping[str, Floats], size: int) -> float | None:
    """The part of all latencies at one batch size that was spent waiting for a core; None where no clock saw it."""
    waits = [name for name in samples if name.startswith(f"batch{size}_queue_")]
    if not waits:
        return None
    total = sum(float(samples[name.replace("_queue_", f"_{HOST}_")].sum()) for name in waits)
    return sum(float(samples[name].sum()) for name in waits) / total


def _round_medians(samples: Mapping[str, Floats], size: int, clock: str, what: str) -> NDArray[np.float64]:
    """Median inference of each round, waits for a core left out: ``(R, E)``, or ``(R, 1)`` for the reference."""
    times = np.asarray(samples[f"batch{size}_{clock}_{what}"], dtype=np.float64)
    queue = samples.get(f"batch{size}_queue_{what}") if clock == HOST else None
    if queue is not None:
        if queue.shape != times.shape:
            raise ValueError(f"batch{size}_queue_{what}: expected shape {times.shape}, got {queue.shape}")
        times = np.maximum(times - queue, 1e-9)
    medians = np.median(times, axis=1)
    return medians if medians.ndim == 2 else medians[:, None]


def spread(times: Floats, seed: int) -> list[Spread]:
    """p50, p90, p99, mean and the interval of the median per exit, from seconds ``(R, I, E)``."""
    flat = np.asarray(times, dtype=np.float64)
    rows = flat.reshape(-1, flat.shape[-1])
    p50, p90, p99 = np.percentile(rows, (50, 90, 99), axis=0)
    medians = median_interval(np.median(flat, axis=1), seed)
    return [
        Spread(
            p50=float(p50[k]),
            p90=float(p90[k]),
            p99=float(p99[k]),
            mean=float(rows[:, k].mean()),
            # The median of all inferences may lie a hair outside the interval of the median over rounds.
            low=min(medians[k].low, float(p50[k])),
            high=max(medians[k].high, float(p50[k])),
        )
        for k in range(rows.shape[1])
    ]


def resampled_rounds(rounds: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Rounds drawn anew in blocks of about ``rounds^(1/3)`` neighbours: indices ``(resamples, rounds)``."""
    length = max(1, round(rounds ** (1 / 3)))
    blocks = -(-rounds // length)
    starts = np.random.default_rng(seed).integers(0, rounds - length + 1, size=(resamples, blocks))
    return (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :rounds]


def median_interval(values: Floats, seed: int, resamples: int = RESAMPLES) -> list[Estimate]:
    """Median over rounds of ``values (R, E)`` with its 95 % moving-block bootstrap interval, per exit."""
    values = np.asarray(values, dtype=np.float64)
    index = resampled_rounds(len(values), seed, resamples)
    medians = np.median(values[index], axis=1)  # (resamples, E)
    low, high = np.percentile(medians, (2.5, 97.5), axis=0)
    middle = np.median(values, axis=0)
    return [
        Estimate(value=float(m), low=float(min(lo, m)), high=float(max(hi, m)))
        for m, lo, hi in zip(middle, low, high, strict=True)
    ]


def widest(intervals: list[Estimate]) -> float:
    """Largest width of an interval relative to its value."""
    return max((each.high - each.low) / each.value for each in intervals)


def reference_drift(reference: Floats) -> float:
    """Relative change of the reference's median from the first to the last third of the rounds ``(R,)``."""
    third = max(1, len(reference) // 3)
    first, last = np.median(reference[:third]), np.median(reference[-third:])
    return float(abs(last / first - 1))


def ratios_of(
    samples: Mapping[str, Floats], size: int = 1, clock: str = HOST, what: str = "run_through"
) -> NDArray[np.float64]:
    """Per-round ratios of the run-through (or ``prefix``) times to the reference, ``(R, E)``."""
    run = _round_medians(samples, size, clock, what)
    return run / _round_medians(samples, size, clock, "reference")
