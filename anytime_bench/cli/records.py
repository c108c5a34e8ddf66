"""The reader's verbs: leaderboard, verify, rescore, publish, compare, report. See ``mount``.

Nothing heavy is imported until a verb runs. Exit status as in ``cli.main``: 1 for faults in records, 2 for bad input, 3
for generated files that are not what the records give.
"""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anytime_bench.cli.options import (
    Boards,
    DataRoot,
    Device,
    Json,
    Plugin,
    Records,
    Results,
    Verbs,
    load_plugins,
    require_folder,
)
from anytime_bench.errors import UserError
from anytime_bench.harness.cores import cores_at_hand
from anytime_bench.runs.progress import progress

RESULTS = Path("results")


class Style(StrEnum):
    """For what a figure is drawn."""

    paper = "paper"
    screen = "screen"


leaderboard = Verbs(help="Build the leaderboards from results/, or check that they are what results/ gives.")


def mount(app: Verbs) -> None:
    """Add the reader's verbs to the command line."""
    app.add_typer(leaderboard, name="leaderboard", no_args_is_help=True)
    for verb in (verify, rescore, publish, compare, report):
        app.command()(verb)


@leaderboard.command("build")
def build_boards(results: Results = RESULTS, out: Boards = Path("leaderboards"), plugin: Plugin = None) -> None:
    """Write leaderboards/index.html, and per board <task>/<device>.{md,csv,json,html} and figures."""
    require_folder(results)
    load_plugins(plugin)
    from anytime_bench.leaderboard.build import build

    with progress("reading") as bar:
        paths = build(results, out, lambda what, done, total: bar.at(done, total=total, title=what), _cores(plugin))
    for path in paths:
        if path.suffix in (".md", ".html"):
            print(path)
    if not paths:
        print(f"there is no record with results below {results}, so there is no leaderboard", file=sys.stderr)


@leaderboard.command("figures")
def board_figures(
    results: Results = RESULTS,
    out: Annotated[Path, typer.Option("--out", help="Folder of the figures.")] = Path("figures"),
    style: Annotated[Style, typer.Option("--style", help="paper: one and two columns wide; or screen.")] = Style.paper,
) -> None:
    """Draw every board's figures to <out>/<task>/ as PDF, SVG and PNG, in the sizes of a paper's columns."""
    require_folder(results)
    from anytime_bench.leaderboard.build import draw_figures

    with progress("reading") as bar:
        paths = draw_figures(results, out, style.value, lambda what, done, total: bar.at(done, total=total, title=what))
    for path in paths:
        print(path)


@leaderboard.command("check")
def check_boards(
    results: Results = RESULTS, out: Boards = Path("leaderboards"), plugin: Plugin = None, as_json: Json = False
) -> None:
    """Rebuild in memory and compare bytes; exit status 3 names the files that differ."""
    require_folder(results)
    load_plugins(plugin)
    from anytime_bench.leaderboard.build import check

    with progress("reading") as bar:
        findings = check(results, out, lambda what, done, total: bar.at(done, total=total, title=what), _cores(plugin))
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
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build each model and compare costs; no data.")] = False,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train each run again and compare all answers.")] = False,
    retime: Annotated[bool, typer.Option("--retime", help="Time each model again and compare.")] = False,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check records: schema, hashes, and every score derived anew from its raw data."""
    load_plugins(plugin)
    from anytime_bench.records.verify import record_paths
    from anytime_bench.records.verify_all import verify_paths

    paths = record_paths(records)
    results: dict[Path, list[str]] = {}
    with progress("verify", len(paths)) as bar:
        for path, faults in verify_paths(paths, _cores(plugin)):
            bar(1, path.name[:12])
            results[path] = faults
    wanted = [name for name, asked in (("rebuild", rebuild), ("retrain", retrain), ("retime", retime)) if asked]
    verdicts, unjudged = _redo(results, wanted, data_root=data_root, device=device) if wanted else ({}, set())
    bad = sum(bool(faults) for path, faults in results.items() if path not in unjudged)
    if as_json:
        judged = ((path, {"faults": faults, "agreements": verdicts.get(path, [])}) for path, faults in results.items())
        print(json.dumps([{"path": str(path), **said} for path, said in judged]))
    else:
        for path, faults in results.items():
            for line in (*verdicts.get(path, ()), *faults):
                print(" ".join(line.split()))
        parts = [f"{len(results) - bad - len(unjudged)} of {len(results)} records hold"]
        parts += [f"{bad} do not"] * bool(bad) + [f"{len(unjudged)} cannot be judged here"] * bool(unjudged)
        print(", ".join(parts))
    if bad or unjudged:
        raise typer.Exit(1)


def rescore(
    records: Records,
    learn: Annotated[bool, typer.Option("--learn", help="Let rules that learn do so where a record lacks it.")] = False,
    plugin: Plugin = None,
    as_json: Json = False,
) -> None:
    """Derive records anew from their own arrays by today's scores, as new records that supersede them."""
    load_plugins(plugin)
    from anytime_bench.records.rescore import Rescored, rescore_all
    from anytime_bench.records.verify import record_paths

    paths = record_paths(records)
    results: list[Rescored] = []
    with progress("rescore", len(paths)) as bar:
        for result in rescore_all(paths, learn):
            bar(1, result.path.name[:12])
            results.append(result)
    if as_json:
        parts = ({"path": str(r.path), "made": r.made and str(r.made), "reason": r.reason} for r in results)
        print(json.dumps(list(parts)))
    else:
        for result in results:
            print(result.made or " ".join(result.reason.split()), file=sys.stderr if result.fault else sys.stdout)
    if any(result.fault for result in results):
        raise typer.Exit(1)


def publish(records: Records, results: Results = RESULTS, plugin: Plugin = None, as_json: Json = False) -> None:
    """Verify local records and copy them to results/, then say what to commit."""
    load_plugins(plugin)
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
            where = ["--results", str(results)] * (results != RESULTS)
            plugins = [word for each in plugin or () for word in ("--plugin", each)]
            methods = {path.parent.name for path in done.files if path.suffix == ".json"}
            print(f"\nnext:\n  {shlex.join(['anytime-bench', 'leaderboard', 'build', *where, *plugins])}")
            print(f"  git add {shlex.quote(str(results))} leaderboards")
            print(f"  git commit -m 'Results: {', '.join(sorted(methods))}'")
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
    from anytime_bench.cli.tables import print_comparison

    print_comparison(result)


def report(
    records: Records,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    plugin: Plugin = None,
) -> None:
    """Write one self-contained HTML page about the records."""
    load_plugins(plugin)
    from anytime_bench.leaderboard.page import write_report
    from anytime_bench.records.verify import record_paths

    print(write_report(record_paths(records), out))


def _redo(
    results: dict[Path, list[str]], works: list[str], *, data_root: Path | None, device: str
) -> tuple[dict[Path, list[str]], set[Path]]:
    """Do the work of the records that hold so far again; faults are added to ``results``, verdicts returned, and which
    records have no other fault than that something they need is not here."""
    from anytime_bench.records import store
    from anytime_bench.runs import reproduce
    from anytime_bench.runs.display import Display
    from anytime_bench.runs.guard import guarded

    display = Display()
    verdicts: dict[Path, list[str]] = {}
    unjudged = set()
    for path, faults in results.items():
        for work in works:
            if faults or store.load(path).status != "ok":
                break
            try:
                with guarded():
                    agreement = getattr(reproduce, work)(path, data_root=data_root, device=device, display=display)
            except UserError as error:
                # Data or method of one record may be missing; the others are judged all the same.
                faults.append(f"record '{path}': it cannot be judged here: {error}")
                unjudged.add(path)
            else:
                faults += agreement.faults
                verdicts.setdefault(path, []).extend([agreement.verdict] * bool(agreement.verdict))
    return verdicts, unjudged


def _cores(plugin: list[str] | None) -> int:
    """Processes that may make boards: one per core, and this one alone where it has loaded plugins."""
    return 1 if plugin else cores_at_hand()
