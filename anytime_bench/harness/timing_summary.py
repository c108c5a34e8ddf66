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
17, 1989), blocks of about R^(1/3) rounds, because neighbouring rounds share the machine's mood.

Errors: ``ValueError`` naming the array that is missing or out of shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.trace.axes import timed

Floats = NDArray[np.floating[Any]]

RESAMPLES = 1000
#: The reference may speed up or slow down by this share between the first and the last third of the rounds.
DRIFT_LIMIT = 0.10
#: Below this many rounds an interval says little.
ROUNDS_LEAST = 30
#: A first exit dearer than this share of the last one leaves nothing to gain by stopping.
NOTHING_TO_GAIN = 0.90


def summarise(samples: Mapping[str, Floats], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The timing block of a record, JSON-able, from raw ``samples`` and what ``meta`` says of how they were taken.

    The first batch size is the headline: its latency stands at the top level, its device time (None on a CPU, which
    has no queue of its own between host and device) under ``device_time``, further sizes under ``batches``.
    ``comparable`` and ``reasons`` belong to the batch size beside which they stand.
    """
    seed = int(meta.get("seed", 0))
    result: dict[str, Any] = dict(meta)
    notes = list(meta.get("notes", ()))
    sizes = [int(size) for size in meta["batch_sizes"]]
    batches: dict[str, Any] = {}
    for size in sizes:
        clocks = {
            clock: _clock_block(samples, size, clock, meta, seed)
            for clock in timed()
            if f"batch{size}_{clock}_run_through" in samples
        }
        if "latency" not in clocks:
            raise ValueError(f"batch{size}_latency_run_through: missing from the timing samples")
        rounds = len(samples[f"batch{size}_latency_run_through"])
        reasons = list(meta.get("disturbances", {}).get(str(size), ()))
        if rounds < ROUNDS_LEAST:
            reasons.append(f"only {rounds} rounds were run, but a comparison needs at least {ROUNDS_LEAST}")
        drift = reference_drift(_round_medians(samples, size, "latency", "reference")[:, 0])
        if drift > DRIFT_LIMIT:
            reasons.append(f"the reference's own time drifted by {drift:.0%} while it was measured")
        batches[str(size)] = {
            "rounds": rounds,
            "inferences_per_round": int(samples[f"batch{size}_latency_run_through"].shape[1]),
            "stopped_because": meta["stopped_because"][str(size)],
            **clocks,
            "comparable": not reasons,
            "reasons": reasons,
        }
        # Exits that cost the same expose a model that works ahead of being asked.
        p50 = [exit_["p50"] for exit_ in clocks["latency"]["run_through"]]
        if len(p50) > 1 and p50[0] > NOTHING_TO_GAIN * p50[-1]:
            notes.append(
                f"batch {size}: exit 0 takes {p50[0] / p50[-1]:.0%} of the last exit's time, so stopping early saves "
                "nothing: the model does its work before the first answer is asked for"
            )
    headline = batches.pop(str(sizes[0]))
    result.update(headline.pop("latency"))
    result.update(
        **{**dict.fromkeys(timed()[1:]), **headline},
        batches=batches,
        notes=notes,
        meta=dict(meta),
    )
    return result


def clock_block(timing: Mapping[str, Any], axis: str) -> dict[str, Any]:
    """What a timing block says of one clock at the headline batch size; empty where that clock was not read."""
    block = timing if axis == timed()[0] else timing.get(axis)
    return dict(block) if isinstance(block, Mapping) else {}


def _clock_block(
    samples: Mapping[str, Floats], size: int, clock: str, meta: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    prefix = f"batch{size}_{clock}_"
    reference = _round_medians(samples, size, clock, "reference")
    stops = meta["stop"][clock]
    block: dict[str, Any] = {
        "clock": meta["clocks"][clock],
        "stop": stops["run_through"],
        "reference_full": {**spread(samples[prefix + "reference"][..., None], seed)[0], "stop": stops["prefix"]},
    }
    for name in sorted(name.removeprefix(prefix) for name in samples if name.startswith(prefix)):
        if name == "reference":
            continue
        ratios = _round_medians(samples, size, clock, name) / reference
        stop = stops["prefix"] if name == "prefix" else stops["run_through"]
        times = [{**row, "stop": stop} for row in spread(samples[prefix + name], seed)]
        compared = [{**row, "stop": stop} for row in median_interval(ratios, seed)]
        if name == "run_through":
            block["run_through"], block["ratio_to_reference"] = times, compared
            block["throughput"] = [size / row["p50"] for row in times]
        elif name == "prefix":
            block["prefix"], block["prefix_ratio_to_reference"] = times, compared
        else:
            execution = name.removeprefix("execution_")
            block.setdefault("executions", {})[execution] = {"run_through": times, "ratio_to_reference": compared}
    waits = [name for name in samples if name.startswith(f"batch{size}_queue_")] if clock == "latency" else []
    if waits:
        total = sum(float(samples[name.replace("_queue_", "_latency_")].sum()) for name in waits)
        block["queue_share"] = sum(float(samples[name].sum()) for name in waits) / total
    return block


def _round_medians(samples: Mapping[str, Floats], size: int, clock: str, what: str) -> NDArray[np.float64]:
    """Median inference of each round, waits for a core left out: ``(R, E)``, or ``(R, 1)`` for the reference."""
    times = np.asarray(samples[f"batch{size}_{clock}_{what}"], dtype=np.float64)
    queue = samples.get(f"batch{size}_queue_{what}") if clock == "latency" else None
    if queue is not None:
        if queue.shape != times.shape:
            raise ValueError(f"batch{size}_queue_{what}: expected shape {times.shape}, got {queue.shape}")
        times = np.maximum(times - queue, 1e-9)
    medians = np.median(times, axis=1)
    return medians if medians.ndim == 2 else medians[:, None]


def spread(times: Floats, seed: int) -> list[dict[str, float]]:
    """p50, p90, p99, mean and the interval of the median per exit, from seconds ``(R, I, E)``."""
    flat = np.asarray(times, dtype=np.float64)
    rows = flat.reshape(-1, flat.shape[-1])
    p50, p90, p99 = np.percentile(rows, (50, 90, 99), axis=0)
    medians = median_interval(np.median(flat, axis=1), seed)
    return [
        {
            "p50": float(p50[k]),
            "p90": float(p90[k]),
            "p99": float(p99[k]),
            "mean": float(rows[:, k].mean()),
            # The median of all inferences may lie a hair outside the interval of the median over rounds.
            "low": min(medians[k]["low"], float(p50[k])),
            "high": max(medians[k]["high"], float(p50[k])),
        }
        for k in range(rows.shape[1])
    ]


def resampled_rounds(rounds: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """Rounds drawn anew in blocks of about ``rounds^(1/3)`` neighbours: indices ``(resamples, rounds)``."""
    length = max(1, round(rounds ** (1 / 3)))
    blocks = -(-rounds // length)
    starts = np.random.default_rng(seed).integers(0, rounds - length + 1, size=(resamples, blocks))
    return (starts[..., None] + np.arange(length)).reshape(resamples, -1)[:, :rounds]


def median_interval(values: Floats, seed: int, resamples: int = RESAMPLES) -> list[dict[str, float]]:
    """Median over rounds of ``values (R, E)`` with its 95 % moving-block bootstrap interval, per exit."""
    values = np.asarray(values, dtype=np.float64)
    index = resampled_rounds(len(values), seed, resamples)
    medians = np.median(values[index], axis=1)  # (resamples, E)
    low, high = np.percentile(medians, (2.5, 97.5), axis=0)
    middle = np.median(values, axis=0)
    return [
        {"value": float(m), "low": float(min(lo, m)), "high": float(max(hi, m))}
        for m, lo, hi in zip(middle, low, high, strict=True)
    ]


def widest(intervals: list[dict[str, float]]) -> float:
    """Largest width of an interval relative to its value."""
    return max((row["high"] - row["low"]) / row["value"] for row in intervals)


def reference_drift(reference: Floats) -> float:
    """Relative change of the reference's median from the first to the last third of the rounds ``(R,)``."""
    third = max(1, len(reference) // 3)
    first, last = np.median(reference[:third]), np.median(reference[-third:])
    return float(abs(last / first - 1))


def ratios_of(
    samples: Mapping[str, Floats], size: int = 1, clock: str = "latency", what: str = "run_through"
) -> NDArray[np.float64]:
    """Per-round ratios of the run-through (or ``prefix``) times to the reference, ``(R, E)``."""
    run = _round_medians(samples, size, clock, what)
    return run / _round_medians(samples, size, clock, "reference")
