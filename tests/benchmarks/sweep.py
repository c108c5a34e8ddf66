"""How much two jobs at a time gain over one: a sweep of 8 short runs, both ways, on this machine.

    python tests/benchmarks/sweep.py [--timed] [--threads N]

Prints the wall time of each sweep, from the command to its summary, and their ratio. With one job at a time a job has
all threads (or N), with two each has half of them. ``--timed`` takes times too, which are serial either way.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.local import sweep
from anytime_bench.runs.sweep.workers import slots_for


def measure(jobs: int, timed: bool, epochs: int) -> float:
    """Seconds that 8 runs of serial_ce on digits take with ``jobs`` at a time, in a fresh folder."""
    out = Path(tempfile.mkdtemp(prefix="anytime-bench-sweep-"))
    timing = ["timing_rounds=5", "timing_budget=1"] if timed else ["timing_rounds=0"]
    grid = Grid(
        methods=["serial_ce"], seeds=list(range(8)), out=str(out), jobs=jobs, device="cpu",
        overrides=[f"epochs={epochs}", "resamples=100", *timing],
    )  # fmt: skip
    began = time.perf_counter()
    try:
        outcomes = sweep(grid, Console(file=io.StringIO()))
        seconds = time.perf_counter() - began
    finally:
        shutil.rmtree(out)
    assert [each.status for each in outcomes] == ["ok"] * 8
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--threads", type=int, help="bound of the threads of a job, as OMP_NUM_THREADS")
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    if given.threads:
        os.environ["OMP_NUM_THREADS"] = str(given.threads)
    elif "OMP_NUM_THREADS" in os.environ:
        del os.environ["OMP_NUM_THREADS"]
    seconds = {}
    for jobs in (1, 2):
        seconds[jobs] = measure(jobs, given.timed, given.epochs)
        print(f"{jobs} at a time, {slots_for(jobs, [])[0].threads} threads each: {seconds[jobs]:.1f} s", flush=True)
    print(f"ratio {seconds[2] / seconds[1]:.2f}")


if __name__ == "__main__":
    main()
