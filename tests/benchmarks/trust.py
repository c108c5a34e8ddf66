"""What trust costs an honest user: seconds of ``verify`` on the published store and of ``publish`` of one record.

Run on idle cores: ``python tests/benchmarks/trust.py [RESULTS]``. Each command is a process of its own, as a user types
it, with an empty cache of verdicts; the start of Python is part of it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from anytime_bench.records import store


def seconds(*words: str, cache: str) -> float:
    """Wall seconds of one command, which must succeed."""
    started = time.perf_counter()
    environment = {**os.environ, "ANYTIME_BENCH_CACHE": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Users have compiled modules.
    command = [sys.executable, "-m", "anytime_bench", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(results: Path) -> None:
    paths = list(store.find(results))
    with tempfile.TemporaryDirectory() as folder:
        cache = f"{folder}/cache"
        print(f"verify {results}: {len(paths)} records, {seconds('verify', str(results), cache=cache):.1f} s")
        # The newest record is published, eleven times, into a store that holds all others.
        newest = max(paths, key=lambda path: store.load(path).created)
        copied = Path(folder) / "results"
        shutil.copytree(results, copied)
        took = []
        for trial in range(11):
            for path in copied.rglob(f"{newest.stem}.*"):
                path.unlink()
            os.sync()  # Else publish, which waits for the disk, also waits for the copy.
            took.append(seconds("publish", str(newest), "--results", str(copied), cache=f"{folder}/{trial}"))
        times = f"median {statistics.median(took):.2f} s ({min(took):.2f} to {max(took):.2f}, n = {len(took)})"
        print(f"publish one record beside {len(paths) - 1}: {times}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
