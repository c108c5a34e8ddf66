"""Does bfloat16 cost accuracy? Two stores of the same rows and seeds, one trained in each precision, on validation.

    git archive d13f8b6~1 results/fashion_mnist | tar x -C /tmp   # three seeds in float32, of the same recipe
    python tests/benchmarks/precision.py /tmp/results results

Per row that both have: mean and standard deviation over the seeds that both have of the last exit's accuracy on the
validation split, and of the mean over exits, under protocol 3. A row holds where the means differ by no more
than the larger of the two standard deviations. Reads records; trains nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from anytime_bench.records.store import find, load, load_arrays

PROTOCOL = "3"


def accuracies(store: Path, precision: str) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """Accuracy on the validation split in percent, ``(E,)``, by task and row, and by seed."""
    rows: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for path in find(store):
        record = load(path)
        if record.status == "ok" and record.protocol_version == PROTOCOL and record.training.precision == precision:
            arrays = load_arrays(path, record)
            right = (arrays["val_predictions"] == arrays["val_labels"]).mean(axis=1)
            rows.setdefault((record.task.name, record.method.name), {})[record.training.seed] = 100 * right
    return rows


def main(first: str, second: str) -> int:
    fp32, bf16 = accuracies(Path(first), "fp32"), accuracies(Path(second), "bf16")
    shared = sorted(fp32.keys() & bf16.keys())
    if not shared:
        sys.exit(f"no row of {first} in fp32 is in {second} in bf16")
    worse = 0
    for task, method in shared:
        seeds = sorted(fp32[task, method].keys() & bf16[task, method].keys())
        a, b = (np.array([rows[task, method][seed] for seed in seeds]) for rows in (fp32, bf16))
        for what, x, y in (("last exit", a[:, -1], b[:, -1]), ("mean of exits", a.mean(axis=1), b.mean(axis=1))):
            spread = max(x.std(ddof=1), y.std(ddof=1))
            holds = abs(y.mean() - x.mean()) <= spread
            worse += not holds
            print(
                f"{task} {method}, {what}: fp32 {x.mean():.2f} (SD {x.std(ddof=1):.2f}), bf16 {y.mean():.2f} "
                f"(SD {y.std(ddof=1):.2f}), n = {len(seeds)}: {'holds' if holds else 'differs'}"
            )
    return int(worse > 0)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"{len(sys.argv) - 1} folders, expected two: a store trained in float32 and one trained in bfloat16")
    sys.exit(main(*sys.argv[1:]))
