"""The verb ``sweep`` of the command line. Imports neither torch nor a plugin: the processes of the sweep do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from anytime_bench.cli.options import DataRoot, Json, Plugin
from anytime_bench.errors import UserError


def sweep(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[PLAN.yaml] [KEY=VALUE]...", help="A plan file, and overrides.")
    ] = None,
    methods: Annotated[str | None, typer.Option("--methods", "-m", help="Names separated by commas.")] = None,
    tasks: Annotated[str | None, typer.Option("--tasks", "-t", help="Names separated by commas.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Such as 0-4 or 0,2,5.")] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Trainings at a time; the CPU's threads are divided.")
    ] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPUs to use, such as 0,1: one training each.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for checkpoints and records.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file instead of the tasks' own.")] = None,
    existing: Annotated[str | None, typer.Option(help="Runs that exist: skip, rerun or error.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Just this run: method@task@seed.")] = None,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Train what is missing; a later sweep predicts, times and records.")
    ] = False,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which a job is stopped; 0: never.")] = None,
    memory_limit: Annotated[float | None, typer.Option(help="GiB of address space per CPU job; 0: no limit.")] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="slurm: submit as array jobs instead.")] = None,
    wait: Annotated[bool, typer.Option(help="With --cluster: wait for the jobs and show the summary.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run methods x tasks x seeds: what is missing, side by side, each timed alone. Repeating it loses nothing."""
    from anytime_bench.runs.sweep import local
    from anytime_bench.runs.sweep.grid import make_grid, read_plan_file

    values: dict[str, Any] = {}
    overrides = []
    for text in arguments or []:
        if "=" in text:
            overrides.append(text)
        elif values:
            raise UserError(f"'{text}': a sweep takes one plan file; overrides have the form key=value.")
        else:
            values = read_plan_file(Path(text))
    values["overrides"] = [*(values.get("overrides") or []), *overrides]
    options = {
        "methods": methods, "tasks": tasks, "seeds": seeds, "jobs": jobs, "gpus": gpus, "device": device,
        "plugins": plugin, "data_root": data_root and str(data_root), "out": out and str(out),
        "recipe": recipe, "existing": existing, "only": only, "time_limit": time_limit,
        "memory_limit": memory_limit, "train_only": train_only or None,
    }  # fmt: skip
    values.update({key: value for key, value in options.items() if value is not None})
    grid = make_grid(values)
    if cluster not in (None, "slurm"):
        raise UserError(f"--cluster {cluster}: expected slurm.")
    if cluster:
        from anytime_bench.runs.sweep.slurm import sweep_on_slurm

        outcomes = sweep_on_slurm(grid, wait=wait, dry_run=dry_run)
    else:
        outcomes = local.sweep(grid, dry_run=dry_run)
    if as_json:
        runs = [dataclasses.asdict(each) for each in outcomes]
        print(json.dumps({"runs": runs, "repeat": grid.repeat_command(outcomes)}))
    if any(each.status == "failed" for each in outcomes):
        raise typer.Exit(1)
