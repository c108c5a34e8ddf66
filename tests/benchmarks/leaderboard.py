"""How long 1,000 records of 10,000 test images take to become leaderboards, and in how much memory.

    python tests/benchmarks/leaderboard.py [--records 1000] [--images 10000] [--keep FOLDER]
    python tests/benchmarks/leaderboard.py --published

The store is made first (minutes, two tasks x two devices x fifty methods x five seeds) and not timed; builds run in
processes of their own, whose wall time and peak resident memory are printed, with the sizes of the pages. Of what the
suite remembers by content nothing is there at first: the first time is that of a clean clone, which verifies every
record, draws and learns; the second finds records verified and boards drawn. ``--published`` times ``leaderboard
check`` on the repository's own records instead.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

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
    """Every record has a trace of its own; methods share what was derived from a few, so that making it is quick."""
    from support import generated_records as generated

    from anytime_bench.records.record import Artifact
    from anytime_bench.records.store import record_folder

    rng = np.random.default_rng(0)
    bases = []
    for index in range(5):
        pair = (
            generated.make_trace(0.2 + 0.15 * index, exits, images, index),
            generated.make_trace(0.5, exits, 200, index, split="val"),
        )
        bases.append(generated.make_record(f"base_{index}", seed=index, traces=pair))
    seeds = max(1, records // (methods * 4))
    for task in ("one", "two"):
        for device in ("generated-cpu", "generated-gpu"):
            for method in range(methods):
                for seed in range(seeds):
                    record, arrays = bases[(method + seed) % 5]
                    changed = dict(arrays)
                    # A few answers of each record differ, so that no two records hold the same trace.
                    predictions = arrays["test_predictions"].copy()
                    at = rng.integers(0, images, 200)
                    predictions[:, at] = arrays["test_labels"][at]
                    rank = arrays["test_true_rank"].copy()
                    rank[:, at] = 0
                    changed |= {"test_predictions": predictions, "test_true_rank": rank}
                    data = quick_npz(changed)
                    entry = Artifact(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
                    update = {
                        "method": record.method.model_copy(update={"name": f"method_{method:02d}"}),
                        "task": record.task.model_copy(update={"name": task}),
                        "training": record.training.model_copy(update={"seed": seed}),
                        "device": device,
                        "artifacts": {"trace": entry},
                    }
                    sealed = record.model_copy(update=update).sealed()
                    folder = record_folder(root, sealed)
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{sealed.record_id}.npz").write_bytes(data)
                    (folder / f"{sealed.record_id}.json").write_text(json.dumps(sealed.model_dump(mode="json")))


def quick_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """Compressed as a record's is, but at zlib's quickest level: reading costs the same."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()


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
