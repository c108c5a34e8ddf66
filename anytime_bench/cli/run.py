"""The verbs that carry methods out: run, noise, check."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anytime_bench.cli.options import DataRoot, Device, Json, Out, Plugin, command_line, load_plugins
from anytime_bench.errors import UserError

if TYPE_CHECKING:
    from anytime_bench.records.record import Record


def run(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as epochs=5 or options.lam=0.5")
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="A name from `anytime-bench list methods`.")] = "",
    task: Annotated[str, typer.Option("--task", "-t", help="A name from `anytime-bench list tasks`.")] = "digits",
    seed: Annotated[int, typer.Option(help="Weights, order and augmentation follow from it; the split does not.")] = 0,
    device: Device = "auto",
    plugin: Plugin = None,
    data_root: DataRoot = None,
    out: Out = Path("runs"),
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file instead of the task's own.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="The method whose full cost is the unit of every horizon."),
    ] = None,
    noise: Annotated[str | None, typer.Option(help="none, paper, common, all, or kinds separated by commas.")] = None,
    deadlines: Annotated[
        bool, typer.Option("--deadlines", help="Interrupt the trained model at drawn deadlines too.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the same run.")] = False,
    as_json: Json = False,
) -> None:
    """Train, measure and score one method on one task, and write its record."""
    load_plugins(plugin)
    if not method:
        from anytime_bench.registry import methods

        raise UserError(f"which method? Give one with --method. Known: {', '.join(methods.names())}.")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected 0 or more.")
    from anytime_bench.harness.deadlines import DeadlineSettings
    from anytime_bench.runs.display import Display
    from anytime_bench.runs.pipeline import run as run_method
    from anytime_bench.training.config import parsed_overrides

    values = parsed_overrides(overrides or ())
    values |= {"evaluation.noise": noise} if noise is not None else {}
    values |= {"reference": reference} if reference is not None else {}

    record = run_method(
        method, task, seed=seed, overrides=values, device=device, out=out, data_root=data_root,
        recipe=recipe, resume=resume, deadlines=DeadlineSettings() if deadlines else None,
        command=command_line(), display=Display(),
    )  # fmt: skip
    if as_json:
        print(json.dumps({"path": str(record.path), **record.model_dump(mode="json")}))
    if record.status == "failed":
        raise typer.Exit(1)


def noise(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORD...", help="Records whose trained weights are still in their runs folder."),
    ],
    kinds: Annotated[str, typer.Option(help="paper, common, all, or kinds separated by commas.")] = "paper",
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Examine the trained weights of existing records under noise; writes a new record that supersedes each."""
    load_plugins(plugin)
    from anytime_bench.runs.display import Display
    from anytime_bench.runs.guard import guarded
    from anytime_bench.runs.rerun import each_record, noise_on_record

    display = Display()

    def examined(path: Path) -> Record:
        with guarded():
            return noise_on_record(
                path, kinds, data_root=data_root, device=device, command=command_line(), display=display
            )

    for made in each_record(records, examined, display):
        if as_json:
            print(json.dumps({"path": str(made.path), **made.model_dump(mode="json")}))


def check(
    method: Annotated[str, typer.Argument(help="A method's name, or a plugin file.")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Check on this task instead of a synthetic one.")
    ] = None,
    data_root: DataRoot = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value option of the method.")] = None,
    as_json: Json = False,
) -> None:
    """Check a method against the plugin contract: pass, fail and why, per check."""
    from anytime_bench.conformance.report import check_named
    from anytime_bench.runs.guard import guarded

    with guarded():
        results = check_named(method, task, data_root, overrides or [])
    if as_json:
        print(json.dumps([{"method": name, **vars(result)} for name, result in results]))
    else:
        for name, result in results:
            why = f"  {result.why}" if result.why else ""
            print(f"{result.status:<5} {name}: {result.name}{why}")
    counts = Counter(result.status for _, result in results)
    if not as_json:
        parts = [f"{counts['pass']} checks hold"]
        parts += [f"{counts['fail']} fail"] * (counts["fail"] > 0)
        parts += [f"{counts['warn']} warn"] * (counts["warn"] > 0)
        parts += [f"{counts['skip']} not judged, for the reasons above"] * (counts["skip"] > 0)
        print(", ".join(parts))
    if counts["fail"]:
        raise typer.Exit(1)
