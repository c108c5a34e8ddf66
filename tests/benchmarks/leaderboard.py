"""How long 1,000 records of 10,000 test images take to become leaderboards, and in how much memory.

    python tests/benchmarks/leaderboard.py [--records 1000] [--images 10000] [--keep FOLDER]
    python tests/benchmarks/leaderboard.py --published

The store is made first (ten minutes, two tasks x two devices x fifty methods x five seeds) and not timed; builds run in
processes of their own, whose wall time and peak resident memory are printed, with the sizes of the pages. Of what the
suite remembers by content nothing is there at first: the first time is that of a clean clone, which verifies every
record, draws and learns; the second finds records verified and boards drawn. ``--published`` times ``leaderboard
check`` on the repository's own records instead.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CHECK = [sys.executable, "-m", "anytime_bench", "leaderboard", "check"]
BUILD = """
import os, resource, sys, time
from pathlib import Path
from anytime_bench.leaderboard.build import build, check
if __name__ == "__main__":
    start = time.perf_counter()
    paths = build(Path(sys.argv[1]), Path(sys.argv[2]), workers=len(os.sched_getaffinity(0)))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(time.perf_counter() - start, peak / 1024, len(paths))
"""


def make_store(root: Path, records: int, images: int, methods: int = 50, exits: int = 9) -> None:
    """Every record has a trace of its own, and scores that follow from it."""
    from support import generated_records as generated

    for task in ("one", "two"):
        for device in ("generated-cpu", "generated-gpu"):
            generated.fill(
                root, methods, max(1, records // (methods * 4)), task=task, device=device, images=images, exits=exits
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="make the store here once and use it again")
    parser.add_argument("--published", action="store_true", help="check the repository's own boards instead")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        remembered = stack.enter_context(tempfile.TemporaryDirectory())
        environment = {**os.environ, "ANYTIME_BENCH_CACHE": remembered}
        if options.published:
            for when in ("first", "again"):
                start = time.perf_counter()
                subprocess.run(CHECK, cwd=Path(__file__).parents[2], env=environment, check=True)
                print(f"leaderboard check, {when}: {time.perf_counter() - start:.1f} s")
            return
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = root / "results"
        if not store.exists():
            start = time.perf_counter()
            make_store(store, options.records, options.images)
            print(f"store made in {time.perf_counter() - start:.0f} s")
        count = sum(1 for _ in store.rglob("*.json"))
        out = root / "leaderboards"
        for when in ("first", "again"):
            run = subprocess.run(
                [sys.executable, "-c", BUILD, str(store), str(out)],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            seconds, peak, files = run.stdout.split()
            print(f"{count} records: built {when} in {float(seconds):.1f} s, peak {float(peak):.0f} MiB, {files} files")
        for page in sorted(out.rglob("*.html")):
            print(f"{page.relative_to(out)}: {page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
