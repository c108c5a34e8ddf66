"""Everything that can only be measured on an idle machine, in one command: one table, and the same as JSON.

    python tests/benchmarks/idle.py [--only cascade,lanes,...] [--json idle.json] [--table idle.md] [--limit 180]

Each part is a process of its own, one after the other, that ends after ``--limit`` seconds; one that ends early or
fails is a line that does not hold. Exits with 1 where a line does not hold. About half an hour in all, on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cascade
import cascade_lanes
import psutil
import span
import timing_honest
import torch
from figure import Figure, table

PARTS: dict[str, Callable[[], Iterable[Figure]]] = {
    "cascade": cascade.figures,
    "lanes": cascade_lanes.figures,
    **{f"span_{name}": question for name, question in span.QUESTIONS.items()},
    **{f"timing_{name}": question for name, question in timing_honest.QUESTIONS.items()},
}


def run(part: str, limit: float) -> tuple[list[Figure], float]:
    """The figures of one part, measured in a fresh process, and its seconds."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figures.jsonl")
        path.touch()
        why = ""
        try:
            ended = subprocess.run([sys.executable, __file__, "--part", part, "--json", str(path)], timeout=limit)
            if ended.returncode:
                why = f"ended with exit code {ended.returncode}"
        except subprocess.TimeoutExpired:
            why = f"not done in {limit:g} s"
        figures = [Figure(**json.loads(line)) for line in path.read_text().splitlines()]
    if why:
        figures.append(Figure(part, "the part itself", "ends", why, float("nan"), False))
    return figures, time.perf_counter() - begun


def measure(part: str, path: Path) -> None:
    """Write the figures of one part, one JSON line each, as they come."""
    torch.set_num_threads(1)
    with path.open("a") as file:
        for figure in PARTS[part]():
            print(figure, flush=True)
            file.write(json.dumps(dataclasses.asdict(figure)) + "\n")
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=Path("idle.json"))
    parser.add_argument("--table", type=Path, default=Path("idle.md"))
    parser.add_argument("--limit", type=float, default=180.0)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure(options.part, options.json)
        return
    unknown = set(options.only.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"--only {options.only}: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    machine = {"torch": torch.__version__, "cores": psutil.cpu_count(), "load_before": psutil.getloadavg()[0]}
    print(machine)
    figures: list[Figure] = []
    seconds = {}
    for part in options.only.split(","):
        more, seconds[part] = run(part, options.limit)
        figures += more
        stored = {"machine": machine, "seconds": seconds, "figures": [dataclasses.asdict(each) for each in figures]}
        options.json.write_text(json.dumps(stored, indent=1) + "\n")
        options.table.write_text(table(figures) + "\n")
    print(table(figures))
    sys.exit(not all(figure.holds for figure in figures))


if __name__ == "__main__":
    main()
