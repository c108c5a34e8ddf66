"""From raw timing samples to the numbers of a record: a pure function, without torch, so that anyone can redo it.

Samples are float32 seconds. ``batch<b>_<clock>_<what>`` holds, for R rounds of I inferences each, between which the
reference's copies were visited V times each,

=================== ========= =========================================================================
what                shape     content
=================== ========= =========================================================================
reference           (R, V)    the full answer of one copy of the reference
twin                (R, V)    that of the other copy; from round to round the copies change places
run_through         (R, I, E) start to exit k, every answer on the way given
prefix              (R, I, E) ``answer(images, k)`` alone (batch 1 only)
execution_<name>    (R, I, E) run-through of a further execution the model offers (batch 1 only), or of the
                              model on more threads (``threads_<n>``) or compiled (``compile``)
reference_<name>    (R, I)    the reference by that execution, where it is not its plain answer
=================== ========= =========================================================================

with clock ``latency`` or ``device_time``. ``batch<b>_process (R,)`` says of which timing process each round is, where
there are several. ``batch<b>_queue_<what>`` is the part of each latency that the thread spent waiting for a core
although it could run (the kernel's run delay). Percentiles are of the latency as it was: a user waits for the queue
too. Ratios to the reference leave that wait out on both sides, because a long inference loses its core to a neighbour
more often than a short one, and so the neighbour would change the ratio.

The ratio of a round is the median of its I inferences over that of the reference, the geometric mean of both copies':
where a copy lies in memory is alone worth half a percent. A value is the median over a process's rounds, and the mean
over processes. Intervals: 95 %, see ``intervals_of_rounds``. The *A/A* compares the copies: the geometric mean of two
consecutive rounds' ratios is free of where they lie, and must be 1. Its interval is of 99 %, because every block is
judged by it, and at 95 % one in twenty would fall for nothing.

Errors: ``ValueError`` naming the array that is missing or out of shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.intervals_of_rounds import RESAMPLES, median_interval, widest
from anytime_bench.harness.timing_block import (
    BatchTiming,
    ClockBlock,
    Dispatch,
    Execution,
    ProcessRatios,
    Spread,
    Timing,
    TimingMeta,
)
from anytime_bench.scores.results import Estimate
from anytime_bench.trace.axes import timed

Floats = NDArray[np.floating[Any]]

#: The clock that every timing reads, and the only one that sees waits for a core.
HOST = "latency"
#: The reference may speed up or slow down by this share between the first and the last third of the rounds.
DRIFT_LIMIT = 0.10
#: Below this many rounds an interval says little.
MIN_ROUNDS = 30
#: Ends in percent of the A/A's interval, and the width that a block may have.
A_A_ENDS, A_A_WIDTH = (0.5, 99.5), 0.03
#: What float32 samples lose.
ROUNDING = 1e-6
#: A first exit dearer than this share of the last one leaves nothing to gain by stopping.
NOTHING_TO_GAIN = 0.90


def summarise(samples: Mapping[str, Floats], meta: TimingMeta) -> Timing:
    """The timing block of a record from raw ``samples`` and what ``meta`` says of how they were taken.

    Each batch size is ``comparable`` by itself, or says why not in ``reasons``.
    """
    batches = {str(size): _batch(samples, size, meta) for size in meta.batch_sizes}
    notes = [*meta.notes, *(note for size, batch in batches.items() for note in _gain_notes(size, batch))]
    return Timing(meta=meta, batches=batches, notes=notes, dispatch=_dispatch(batches, meta))


def _batch(samples: Mapping[str, Floats], size: int, meta: TimingMeta) -> BatchTiming:
    if f"batch{size}_{HOST}_run_through" not in samples:
        raise ValueError(f"batch{size}_{HOST}_run_through: missing from the timing samples")
    rounds, inferences = samples[f"batch{size}_{HOST}_run_through"].shape[:2]
    reasons = list(meta.disturbances.get(str(size), ()))
    if rounds < MIN_ROUNDS:
        reasons.append(f"only {rounds} rounds were run, but a comparison needs at least {MIN_ROUNDS}")
    reasons += _drift_reasons(samples, size)
    names = [clock for clock in timed() if f"batch{size}_{clock}_run_through" in samples]
    clocks = {clock: _clock_block(samples, size, clock, meta) for clock in names}
    reasons += [reason for clock, block in clocks.items() for reason in _a_a_reasons(clock, block.a_a)]
    return BatchTiming(
        rounds=rounds,
        inferences_per_round=inferences,
        stopped_because=meta.stopped_because[str(size)],
        comparable=not reasons,
        reasons=reasons,
        clocks=clocks,
        widest=widest([*clocks[HOST].ratio_to_reference, *clocks[HOST].prefix_ratio_to_reference]),
    )


def unknown(batch: BatchTiming, target: float) -> bool:
    """Whether a ratio's interval is wider than ``target`` of it, or that of the A/A too wide to compare."""
    a_a = batch.clocks[HOST].a_a
    return (batch.widest or 1.0) >= target or (a_a is not None and widest([a_a]) > A_A_WIDTH)


def _drift_reasons(samples: Mapping[str, Floats], size: int) -> list[str]:
    """A reference whose time changed while it was measured, in any of the processes."""
    times, process = _round_medians(samples, size, HOST, "reference")[:, 0], _process(samples, size)
    drift = max(reference_drift(times[process == each]) for each in np.unique(process))
    if drift <= DRIFT_LIMIT:
        return []
    return [f"the reference's own time drifted by {drift:.0%} while it was measured"]


def _a_a_reasons(clock: str, a_a: Estimate | None) -> list[str]:
    """Two copies of the reference that do not measure as equal, or not well enough to tell."""
    if a_a is None:
        return []
    interval = f"{a_a.value:.4f} [{a_a.low:.4f}, {a_a.high:.4f}]"
    if not a_a.low - ROUNDING <= 1 <= a_a.high + ROUNDING:
        return [f"two copies of the reference differ in {clock}: their ratio is {interval}"]
    if widest([a_a]) > A_A_WIDTH:
        return [f"two copies of the reference cannot be told equal to {A_A_WIDTH:.0%} in {clock}: {interval}"]
    return []


def _dispatch(batches: Mapping[str, BatchTiming], meta: TimingMeta) -> Dispatch | None:
    """Fixed and proportional cost of the last exit, a line through its times at the batch sizes."""
    sizes = np.array(meta.batch_sizes, dtype=np.float64)
    if len(np.unique(sizes)) < 2:
        return None
    times = np.array([batches[str(size)].clocks[HOST].run_through[-1].p50 for size in meta.batch_sizes])
    # Relative errors are what is alike, so each time counts by its inverse.
    (slope, fixed), *_ = np.linalg.lstsq(np.stack([sizes, np.ones_like(sizes)], 1) / times[:, None], times / times)
    fixed, slope = max(float(fixed), 0.0), max(float(slope), 0.0)
    return Dispatch(
        seconds=fixed,
        seconds_per_image=slope,
        seconds_per_mac=slope / meta.macs[-1] if meta.macs else None,
        share=min(fixed / float(times[np.argmin(sizes)]), 1.0),
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
    prefix, seed, process = f"batch{size}_{clock}_", meta.seed, _process(samples, size)

    def times(what: str) -> list[Spread]:
        return spread(samples[prefix + what], seed, process)

    def interval(what: str, reference: str = "reference") -> list[Estimate]:
        return median_interval(ratios_of(samples, size, clock, what, reference), seed, process=process)

    def execution(name: str) -> Execution:
        own = f"reference_{name}"
        if prefix + own not in samples:
            return Execution(run_through=times(f"execution_{name}"), ratio_to_reference=interval(f"execution_{name}"))
        return Execution(
            run_through=times(f"execution_{name}"),
            ratio_to_reference=interval(f"execution_{name}", own),
            reference_full=spread(samples[prefix + own][..., None], seed, process)[0],
        )

    run_through = times("run_through")
    alone = prefix + "prefix" in samples
    start = prefix + "execution_"
    return ClockBlock(
        clock=meta.clocks[clock],
        stop=meta.stop[clock]["run_through"],
        prefix_stop=meta.stop[clock]["prefix"],
        reference_full=spread(samples[prefix + "reference"][..., None], seed, process)[0],
        run_through=run_through,
        ratio_to_reference=interval("run_through"),
        throughput=[size / each.p50 for each in run_through],
        prefix=times("prefix") if alone else [],
        prefix_ratio_to_reference=interval("prefix") if alone else [],
        executions={
            name: execution(name) for name in (n[len(start) :] for n in sorted(samples) if n.startswith(start))
        },
        processes=_processes(samples, size, clock, seed) if len(np.unique(process)) > 1 else [],
        queue_share=queue_share(samples, size) if clock == HOST else None,
        a_a=twins_ratio(samples, size, clock, seed) if prefix + "twin" in samples else None,
    )


def _processes(samples: Mapping[str, Floats], size: int, clock: str, seed: int) -> list[ProcessRatios]:
    """The ratios of each timing process by itself."""
    process, alone = _process(samples, size), f"batch{size}_{clock}_prefix" in samples
    ratios = {what: ratios_of(samples, size, clock, what) for what in ("run_through", *(["prefix"] if alone else []))}
    return [
        ProcessRatios(
            ratio_to_reference=median_interval(ratios["run_through"][process == each], seed),
            prefix_ratio_to_reference=median_interval(ratios["prefix"][process == each], seed) if alone else [],
        )
        for each in np.unique(process)
    ]


def twins_ratio(samples: Mapping[str, Floats], size: int, clock: str, seed: int) -> Estimate:
    """The A/A: the ratio of the reference's copies, geometric means of two consecutive rounds, with 99 % interval."""
    ratios = _round_medians(samples, size, clock, "twin") / _round_medians(samples, size, clock, "reference")
    process, pairs, owners = _process(samples, size), [], []
    for each in np.unique(process):
        own = ratios[process == each]
        even = len(own) - len(own) % 2
        # A process with a single round has nothing to pair it with.
        paired = np.sqrt(own[0:even:2] * own[1:even:2]) if even else own
        pairs.append(paired)
        owners.append(np.full(len(paired), each))
    return median_interval(np.concatenate(pairs), seed, RESAMPLES, np.concatenate(owners), A_A_ENDS)[0]


def queue_share(samples: Mapping[str, Floats], size: int) -> float | None:
    """The part of all latencies at one batch size that was spent waiting for a core; None where no clock saw it."""
    waits = [name for name in samples if name.startswith(f"batch{size}_queue_")]
    if not waits:
        return None
    total = sum(float(samples[name.replace("_queue_", f"_{HOST}_")].sum()) for name in waits)
    return sum(float(samples[name].sum()) for name in waits) / total


def _process(samples: Mapping[str, Floats], size: int) -> NDArray[np.int64]:
    """Of which timing process each round is, ``(R,)``; one process where nothing is said."""
    rounds = len(samples[f"batch{size}_{HOST}_run_through"])
    process = np.asarray(samples.get(f"batch{size}_process", np.zeros(rounds)), dtype=np.int64)
    if process.shape != (rounds,):
        raise ValueError(f"batch{size}_process: expected shape {(rounds,)}, got {process.shape}")
    return process


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


def spread(times: Floats, seed: int, process: NDArray[np.int64] | None = None) -> list[Spread]:
    """p50, p90, p99, mean and the interval of the median per exit, from seconds ``(R, I, E)``."""
    flat = np.asarray(times, dtype=np.float64)
    rows = flat.reshape(-1, flat.shape[-1])
    p50, p90, p99 = np.percentile(rows, (50, 90, 99), axis=0)
    medians = median_interval(np.median(flat, axis=1), seed, process=process)
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


def reference_drift(reference: Floats) -> float:
    """Relative change of the reference's median from the first to the last third of the rounds ``(R,)``."""
    third = max(1, len(reference) // 3)
    first, last = np.median(reference[:third]), np.median(reference[-third:])
    return float(abs(last / first - 1))


def ratios_of(
    samples: Mapping[str, Floats],
    size: int = 1,
    clock: str = HOST,
    what: str = "run_through",
    reference: str = "reference",
) -> NDArray[np.float64]:
    """Per-round ratios ``(R, E)`` of what was timed to the reference, to both of its copies where there are two."""
    full = _round_medians(samples, size, clock, reference)
    if reference == "reference" and f"batch{size}_{clock}_twin" in samples:
        full = np.sqrt(full * _round_medians(samples, size, clock, "twin"))
    return _round_medians(samples, size, clock, what) / full
