"""The reader's verbs: leaderboard, verify, publish, compare, report. Functions to be mounted by ``cli``; see ``mount``.

Nothing heavy is imported until a verb runs. Exit status as in ``cli``: 1 for faults in records, 2 for bad input, 3 for
generated files that are not what the records give.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[Path, typer.Option("--results", help="The store of published records.")]
Boards = Annotated[Path, typer.Option("--out", help="Folder of the generated leaderboards.")]
Records = Annotated[list[Path], typer.Argument(help="Record files, or folders of them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where the task's files lie.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0.")]

leaderboard = typer.Typer(help="Build the leaderboards from results/, or check that they are what results/ gives.")


def mount(app: typer.Typer) -> None:
    """Add the reader's verbs to the command line."""
    app.add_typer(leaderboard, name="leaderboard", no_args_is_help=True)
    for verb in (verify, publish, compare, report):
        app.command()(verb)


@leaderboard.command("build")
def build_boards(results: Results = Path("results"), out: Boards = Path("leaderboards")) -> None:
    """Write leaderboards/<task>/<device>.{md,csv,json,html} and figures."""
    _need_folder(results)
    from anytime_bench.leaderboard.build import build

    with _progress() as step:
        paths = build(results, out, step)
    for path in paths:
        if path.suffix in (".md", ".html"):
            print(path)
    if not paths:
        print(f"there is no record below {results}, so there is no leaderboard", file=sys.stderr)


@leaderboard.command("check")
def check_boards(results: Results = Path("results"), out: Boards = Path("leaderboards"), as_json: Json = False) -> None:
    """Rebuild in memory and compare bytes; exit status 3 names the files that differ."""
    _need_folder(results)
    from anytime_bench.leaderboard.build import check

    with _progress() as step:
        findings = check(results, out, step)
    if as_json:
        print(json.dumps([{"path": str(f.path), "problem": f.problem, "fault": f.fault} for f in findings]))
    else:
        for finding in findings:
            print(finding, file=sys.stderr if finding.fault else sys.stdout)
    if any(finding.fault for finding in findings):
        raise typer.Exit(3)
    if not as_json:
        print(f"{out} is what {results} gives")


def verify(
    records: Records,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train each run again and compare.")] = False,
    retime: Annotated[bool, typer.Option("--retime", help="Time each model again and compare.")] = False,
    plugin: Annotated[list[str] | None, typer.Option("--plugin", help="A .py file or module with the method.")] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check records: schema, hashes, and every score derived anew from its raw data."""
    from anytime_bench.records.verify import record_paths, verify_paths

    paths = record_paths(records)
    found: dict[Path, list[str]] = {}
    with _progress() as step:
        for done, (path, faults) in enumerate(verify_paths(paths)):
            step(path.name[:12], done, len(paths))
            found[path] = faults
        step("done", len(paths), len(paths))
    if retrain or retime:
        _redo(found, retrain=retrain, retime=retime, plugin=plugin, data_root=data_root, device=device)
    bad = sum(bool(faults) for faults in found.values())
    if as_json:
        print(json.dumps([{"path": str(path), "faults": faults} for path, faults in found.items()]))
    else:
        for faults in found.values():
            for fault in faults:
                print(" ".join(fault.split()))
        print(f"{len(found) - bad} of {len(found)} records hold" + (f", {bad} do not" if bad else ""))
    if bad:
        raise typer.Exit(1)


def publish(records: Records, results: Results = Path("results"), as_json: Json = False) -> None:
    """Verify local records and copy them to results/, then say what to commit."""
    from anytime_bench.records.publish import publish as copy
    from anytime_bench.records.verify import record_paths

    done = copy(record_paths(records), results)
    if as_json:
        parts = {"files": done.files, "present": done.present, "faults": done.faults}
        print(json.dumps({name: [str(value) for value in values] for name, values in parts.items()}))
    elif not done.faults:
        for path in done.present:
            print(f"{path.name} is published already")
        for path in done.files:
            print(path)
        if done.files:
            print("\nnext:\n  anytime-bench leaderboard build")
            print(f"  git add {results} leaderboards")
            print(f"  git commit -m 'Results: {', '.join(sorted({path.parent.name for path in done.files}))}'")
    if done.faults:
        for fault in done.faults:
            print(" ".join(fault.split()), file=sys.stderr)
        print("nothing was published", file=sys.stderr)
        raise typer.Exit(1)


def compare(
    a: Annotated[Path, typer.Argument(help="A record, or a folder with the seeds of one method.")],
    b: Annotated[Path, typer.Argument(help="The same, to compare with.")],
    as_json: Json = False,
) -> None:
    """A minus B, score by score: paired difference, 95 % interval, verdict."""
    from dataclasses import asdict

    from anytime_bench.records.compare import compare_records

    result = compare_records(a, b)
    if as_json:
        print(json.dumps(asdict(result)))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"A = {result.a}   B = {result.b}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("score")
    for name in ("A", "B", "A - B", "95 % interval"):
        table.add_column(name, justify="right")
    table.add_column("A is")
    for row in result.rows:
        gap = row.difference
        interval = f"[{gap.low:+.4f}, {gap.high:+.4f}]"
        table.add_row(escape(row.score), f"{row.a:.4f}", f"{row.b:.4f}", f"{gap.value:+.4f}", interval, gap.verdict)
    console = Console(highlight=False)
    console.print(table)
    if result.noise:
        title = "Transient noise, a fresh frame per tick: A stateful minus B pipelined with a running mean"
        noise = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("policy of A", "moment", "kind", "A - B", "95 % interval", "A is"):
            noise.add_column(name, justify="right" if name in ("A - B", "95 % interval") else "left", no_wrap=True)
        for entry in result.noise:
            interval = f"[{entry['low']:+.4f}, {entry['high']:+.4f}]"
            moment = entry["moment"].replace("_", " ")
            noise.add_row(
                entry["policy"].replace("_", " "),
                moment,
                entry["kind"],
                f"{entry['value']:+.4f}",
                interval,
                entry["verdict"],
            )
        console.print(noise)
    for note in result.notes:
        console.print(note, markup=False)


def report(
    records: Records,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page about the records."""
    from anytime_bench.leaderboard.page import write_report
    from anytime_bench.records.verify import record_paths

    print(write_report(record_paths(records), out))


def _redo(
    found: dict[Path, list[str]],
    *,
    retrain: bool,
    retime: bool,
    plugin: list[str] | None,
    data_root: Path | None,
    device: str,
) -> None:
    """Train and time the records that hold so far; faults are added to ``found``."""
    from anytime_bench.methods.plugins import load_plugin
    from anytime_bench.records import store
    from anytime_bench.runs import reproduce
    from anytime_bench.runs.display import Display

    for each in plugin or ():
        load_plugin(each)
    display = Display()
    for path, faults in found.items():
        if faults or store.load(path).status != "ok":
            continue
        if retrain:
            faults += reproduce.retrain(path, data_root=data_root, device=device, display=display)
        if retime:
            faults += reproduce.retime(path, data_root=data_root, device=device, display=display)


def _need_folder(results: Path) -> None:
    from anytime_bench.errors import UserError

    if not results.is_dir():
        raise UserError(
            f"'{results}' is not a folder. Give the store of published records with --results, or publish a record "
            "first."
        )


class _progress:
    """A bar with the time left on standard error; nothing where that is not a terminal."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.bar.start()
        self.task = self.bar.add_task("reading", total=None)
        return lambda what, done, total: self.bar.update(self.task, description=what, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
