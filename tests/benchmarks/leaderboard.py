"""How long 1,000 records of 10,000 test images take to become leaderboards, and in how much memory.

    python tests/benchmarks/leaderboard.py [--records 1000] [--images 10000] [--keep FOLDER]
    python tests/benchmarks/leaderboard.py --published

The store is made first (ten minutes, two tasks x two devices x fifty methods x five seeds) and not timed. Then it is
verified, built and checked, and ``--published`` verifies and checks the repository's own records. Each is a process of
its own, whose wall time is printed. The suite remembers by content: at first nothing, after ``verify`` that records
hold, after ``build`` or ``check`` how boards are drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def make_store(root: Path, records: int, images: int, methods: int = 50, exits: int = 9) -> None:
    """Every record has a trace of its own, and scores that follow from it."""
    from support import generated_records as generated

    for task in ("one", "two"):
        for device in ("generated-cpu", "generated-gpu"):
            generated.fill(
                root, methods, max(1, records // (methods * 4)), task=task, device=device, images=images, exits=exits
            )


def timed(*arguments: str) -> None:
    """Run a command of the suite and print how long it took."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "anytime_bench", *arguments], check=True, stdout=subprocess.DEVNULL)
    print(f"{' '.join(arguments[: 2 - (arguments[0] == 'verify')])}: {time.perf_counter() - begun:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="make the store here once and use it again")
    parser.add_argument("--published", action="store_true", help="check the repository's own boards instead")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        os.environ["ANYTIME_BENCH_CACHE"] = stack.enter_context(tempfile.TemporaryDirectory())
        root = ROOT if options.published else options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store, out = root / "results", root / "leaderboards"
        if not store.exists():
            begun = time.perf_counter()
            make_store(store, options.records, options.images)
            print(f"store made in {time.perf_counter() - begun:.0f} s")
        print(f"{sum(1 for _ in store.rglob('*.json'))} records")
        boards = ("--results", str(store), "--out", str(out))
        timed("verify", str(store))
        timed("leaderboard", "check" if options.published else "build", *boards)
        timed("leaderboard", "check", *boards)
        print(f"peak of a process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")
        for page in () if options.published else sorted(out.rglob("*.html")):
            print(f"{page.relative_to(out)}: {page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
