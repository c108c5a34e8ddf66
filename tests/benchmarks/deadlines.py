"""Is what curves promise delivered at deadlines, and how long does a profile take? In a quarter of an hour.

    python tests/benchmarks/deadlines.py                       # both parts, on an idle machine
    python tests/benchmarks/deadlines.py --part deadlines --out runs/benchmark --json deadlines.json
    python tests/benchmarks/deadlines.py --small               # a try of everything in a minute: no figure of it counts

``deadlines`` trains serial_td_multihead, sdn, msdnet and cascaded_td for a few epochs on digits, so wide that H
on one thread is at least 20 ms (the narrowest of ``WIDTHS`` that is slow enough here), and interrupts each on one
thread at deadlines uniform on [0, H]. Printed per row: the delivered AUC of mode ask, the curve's AUC at the same
draws, their paired difference with its 95 % interval (goal: within 2 points), misses and lateness. With ``--out``
trained weights stay, and a second call interrupts them again without training. ``profile`` times all built-in rows on
digits and on digits scaled up to 32x32 at width 16, in the seconds that the verb takes by default, and prints the wall
time of each (goal: 180 s).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import anytime_bench
from anytime_bench import Split, make_task, register_recipe, register_task
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.deadline_summary import SHORT_HORIZON
from anytime_bench.harness.deadlines import DeadlineSettings, measure_horizon
from anytime_bench.methods.plugins import load_method
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.runs.deadlines import deadlines_on_record
from anytime_bench.runs.display import Display
from anytime_bench.runs.profile import profile
from anytime_bench.tasks.loading import load_task
from anytime_bench.tasks.task import Task
from anytime_bench.training.recipes import recipe_for

#: Widths of the reference; MSDNet is widened to about as many MACs.
WIDTHS = (64, 96, 128, 160, 192)
ROWS = ("serial_td_multihead", "sdn", "msdnet", "cascaded_td")
#: A cascade on one lane gives an exit or two within H, however well it is trained, and trains slowest.
EPOCHS = {"cascaded_td": 1}
PROFILE_LIMIT = 180.0


def large_digits(data_root: Path | None, argument: str) -> Task:
    """Digits with every pixel four times as high and as wide: 32x32."""
    task = load_task("digits", data_root)
    splits = [Split(part.images.repeat(4, 2).repeat(4, 3), part.labels) for part in task.splits.values()]
    return make_task("large_digits", "Digits (32x32)", task.card.classes, *splits)


def register() -> None:
    register_task("large_digits", large_digits)
    register_recipe("large_digits", unnamed(recipe_for("cifar10_jpeg", device="cpu")))


def unnamed(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "name"}


def wide_enough(least: float, widths: Sequence[int]) -> tuple[int, float]:
    """The narrowest of ``widths`` at which the reference takes ``least`` seconds (or the widest), and what it takes."""
    card, image = load_task("digits").card, torch.zeros(1, 1, 8, 8)
    for width in widths:
        model = load_method("serial_ce", width=width, stem_pool=False).build(card)
        with evaluating(model), one_thread():
            seconds = measure_horizon(model, image)
        if seconds >= least:
            break
    return width, seconds


def overrides_of(method: str, width: int, epochs: int) -> dict[str, Any]:
    sizes = {"channels": width, "growth": 3 * width // 4} if method == "msdnet" else {"width": width}
    return {
        "epochs": epochs, "batch_size": 32, "lr": 0.05, "reference.width": width, "evaluation.timing_rounds": 0,
        "evaluation.resamples": 100, **{f"options.{name}": size for name, size in sizes.items()},
    }  # fmt: skip


def interrupted(method: str, width: int, epochs: int, settings: DeadlineSettings, out: Path) -> Record:
    """The row's record, trained or from an earlier call, interrupted now."""
    quiet = Display(quiet=True)
    trained = [
        path
        for path in sorted((out / "digits").glob(f"*/{method}/*.json"))
        if store.load(path).method.options.get("channels" if method == "msdnet" else "width") == width
    ]
    if not trained:
        overrides = overrides_of(method, width, epochs)
        made = anytime_bench.run(method, "digits", overrides=overrides, out=out, display=quiet)
        assert made.path is not None, made.reason
        trained = [made.path]
    with one_thread():
        return deadlines_on_record(trained[0], settings, display=quiet)


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def part_deadlines(out: Path, small: bool, widths: Sequence[int]) -> list[dict[str, Any]]:
    width, horizon = (16, 0.0) if small else wide_enough(1.1 * SHORT_HORIZON, widths)
    settings = DeadlineSettings(uniform=40 if small else 1000, others=0, seconds=120.0)
    print(f"width {width}: the reference's full answer takes {1e3 * horizon:.1f} ms\n")
    print(
        "| row | H, ms | draws | delivered AUC % | curve % | difference, points | promise | missed % | late p99, ms |"
    )
    print("|:--|--:|--:|--:|--:|--:|:--|--:|--:|")
    lines = []
    for method in ROWS:
        began = time.perf_counter()
        record = interrupted(method, width, 1 if small else EPOCHS.get(method, 4), settings, out)
        block = record.deadlines
        assert block is not None, record.reason
        row = block.row("ask")
        gap = row.difference
        line = {
            "row": method, "width": width, "horizon": block.horizon, "draws": row.draws,
            "delivered": row.accuracy.model_dump(), "promised": row.promised, "difference": gap.model_dump(),
            "promise": row.promise, "misses": row.misses.value, "late_p99": row.lateness.p99,
            "exits": block.exits, "accuracy": [entry.accuracy.value for entry in record.exits],
            "threads": block.meta.threads,
            "reasons": block.reasons, "notes": block.notes, "seconds": time.perf_counter() - began,
        }  # fmt: skip
        lines.append(line)
        print(
            f"| {method} | {1e3 * block.horizon:.1f} | {row.draws} | {100 * row.accuracy.value:.1f} "
            f"| {100 * row.promised:.1f} | {100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] "
            f"| {row.promise} | {100 * row.misses.value:.1f} | {1e3 * row.lateness.p99:.1f} |", flush=True,
        )  # fmt: skip
        for reason in block.reasons:
            print(f"{method}: {reason}")
    return lines


def part_profile(small: bool) -> list[dict[str, Any]]:
    lines = []
    for task in ("digits", "large_digits"):
        began = time.perf_counter()
        made = profile(task, records=None, methods=["sdn", "serial_ce"] if small else (), seconds=4 if small else 100)
        seconds = time.perf_counter() - began
        lines.append({
            "task": task, "seconds": seconds, "rows": len(made.rows),
            "untimed": {each.label: each.reason for each in made.untimed},
            "disturbed": sum(bool(row.disturbed) for row in made.rows),
        })  # fmt: skip
        verdict = "within" if seconds <= PROFILE_LIMIT else "beyond"
        print(f"profile of {len(made.rows)} rows on {task}: {seconds:.0f} s, {verdict} {PROFILE_LIMIT:.0f} s; "
              f"not timed: {', '.join(each.label for each in made.untimed) or 'none'}", flush=True)  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("deadlines", "profile", "both"), default="both")
    parser.add_argument("--small", action="store_true", help="narrow, few deadlines, two rows profiled: a try")
    parser.add_argument("--width", type=int, help="interrupt networks of this width, whatever H is")
    parser.add_argument("--out", type=Path, help="keep records and weights in this folder")
    parser.add_argument("--json", type=Path, help="write the tables there too")
    options = parser.parse_args()
    register()
    began, threads = time.perf_counter(), torch.get_num_threads()
    widths = [options.width] if options.width else WIDTHS
    tables: dict[str, list[dict[str, Any]]] = {}
    if options.part != "profile":
        with tempfile.TemporaryDirectory() as folder:
            tables["deadlines"] = part_deadlines(options.out or Path(folder), options.small, widths)
        print(f"\n{time.perf_counter() - began:.0f} s\n", flush=True)
    if options.part != "deadlines":
        tables["profile"] = part_profile(options.small)
    about = {
        "torch": torch.__version__, "threads": threads, "small": options.small,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    print(f"\ntorch {torch.__version__}, {threads} threads, of deadlines one, one seed, batch 1")
    print(f"{about['seconds']:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps({**about, **tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
