"""How long the conformance kit takes per baseline: wall seconds of `run_checks`, defaults and digits' recipe.

Prints for each method the median of three runs in one process; the first run includes starting the other process.
Run with `python tests/benchmarks/conformance_kit.py [METHOD ...]`.
"""

from __future__ import annotations

import statistics
import sys
import time

from anytime_bench.conformance.report import check_named
from anytime_bench.registry import methods

ROUNDS = 3


def main(names: list[str]) -> None:
    cases = [(name, task) for name in names for task in (None, "digits")]
    seconds: dict[tuple[str, str | None], list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            begun = time.perf_counter()
            check_named(*case)
            seconds[case].append(time.perf_counter() - begun)
    for (name, task), values in seconds.items():
        where = "defaults, synthetic" if task is None else f"recipe of {task}"
        print(f"{name:24} {where:20} median {statistics.median(values):6.2f} s, max {max(values):6.2f} s, n={ROUNDS}")


if __name__ == "__main__":
    main(sys.argv[1:] or methods.names())
