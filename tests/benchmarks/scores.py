"""How long all scores take: 10,000 test and 5,000 validation images, 9 exits, 5 seeds, 2,000 resamples.

    python tests/benchmarks/scores.py [--threads 2]

Prints the median of several rounds per stage, the total of one whole evaluation from stored arrays on (wall time, and
the processor time of all threads, which other processes on the machine disturb less), and the peak memory.
"All scores" are what a record holds for each of 5 seeds (exits, areas on four axes, stopping, images), the means over
seeds with intervals, a comparison with five other seeds, response time against typicality and the out-of-distribution
AUROC. The learned stopping rule trains a network and is timed on its own line.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=5)
arguments = parser.parse_args()
# Before NumPy: its linear algebra reads the number of threads when it is loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(arguments.threads)

import numpy as np  # noqa: E402

from anytime_bench.analysis import ood, typicality  # noqa: E402
from anytime_bench.scores import compare, intervals  # noqa: E402
from anytime_bench.scores import run_scores as summary  # noqa: E402
from anytime_bench.trace.answers import Trace  # noqa: E402

EXITS, CLASSES, SEEDS = 9, 10, 5
TICKS = np.arange(1.0, EXITS + 1)
COSTS = {"ticks": TICKS, "macs": TICKS**2, "latency": TICKS * 1e-3, "device_time": TICKS * 2e-4}
HORIZONS = {axis: float(cost[-1]) for axis, cost in COSTS.items()}


def trace_of(seed: int, images: int, labels_seed: int) -> Trace:
    labels = np.random.default_rng(labels_seed).integers(0, CLASSES, images)
    rng = np.random.default_rng(seed)
    ease = np.random.default_rng(labels_seed + 1).gamma(3, 0.4, images)
    signal = np.linspace(0.3, 4, EXITS)[:, None, None] * (ease[:, None] * np.eye(CLASSES)[labels])[None]
    return Trace.from_logits(2 * signal + rng.standard_normal((EXITS, images, CLASSES)), labels)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    ours = [trace_of(seed, 10_000, 0) for seed in range(SEEDS)]
    theirs = [trace_of(seed + 100, 10_000, 0) for seed in range(SEEDS)]
    vals = [trace_of(seed + 200, 5_000, 7) for seed in range(SEEDS)]
    away = trace_of(300, 10_000, 11)
    print(f"traces built; peak so far {peak_megabytes():.0f} MiB (logits included)")

    def matrices(traces: list[Trace]) -> dict[str, Any]:
        return compare.score_matrices(traces, [COSTS] * SEEDS, [HORIZONS] * SEEDS)

    stages: dict[str, Callable[[], Any]] = {
        "weights of the resamples": lambda: (intervals.image_weights.cache_clear(), intervals.image_weights(10_000)),
        "exit_scores x5": lambda: [summary.exit_scores(trace, COSTS["macs"] / HORIZONS["macs"]) for trace in ours],
        "score_axes x5, 4 axes": lambda: [summary.score_axes(trace, COSTS, HORIZONS) for trace in ours],
        "stopping_scores x5": lambda: [
            summary.stopping_scores(test, val, {"macs": COSTS["macs"] / HORIZONS["macs"]}, rules=["confidence"])
            for test, val in zip(ours, vals, strict=True)
        ],
        "means over seeds": lambda: [intervals.mean_interval(values) for values in matrices(ours).values()],
        "compare 5 seeds with 5": lambda: compare.compare(matrices(ours), matrices(theirs)),
        "typicality": lambda: typicality.response_against_typicality(ours[0], ours[1:]),
        "ood_auroc": lambda: ood.ood_auroc(ours[0], away, vals[0]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    totals, processor = [], []
    for _ in range(arguments.rounds):
        whole, busy = time.perf_counter(), time.process_time()
        for name, stage in stages.items():
            start = time.perf_counter()
            stage()
            seconds[name].append(time.perf_counter() - start)
        totals.append(time.perf_counter() - whole)
        processor.append(time.process_time() - busy)
    for name, values in seconds.items():
        print(f"{name:28s} {statistics.median(values):7.3f} s")
    print(f"{'all scores':28s} {statistics.median(totals):7.3f} s (median of {len(totals)}, worst {max(totals):.3f})")
    print(f"{'processor time':28s} {statistics.median(processor):7.3f} s (worst {max(processor):.3f})")
    print(f"{'peak memory':28s} {peak_megabytes():7.0f} MiB")

    from anytime_bench.analysis import learned_stopping

    start = time.perf_counter()
    learned_stopping.learned_stopping(ours[0], vals[0], COSTS["macs"], HORIZONS["macs"])
    print(f"{'learned stopping, one seed':28s} {time.perf_counter() - start:7.3f} s (torch's import included)")


if __name__ == "__main__":
    main()
