"""The verb ``tune``: a learning rate per row, chosen with the same small budget on the validation split."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from anytime_bench.cli.options import DataRoot, Device, Json, Out, Plugin, load_plugins
from anytime_bench.errors import UserError


def tune(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides.")] = None,
    methods: Annotated[str, typer.Option("--methods", "-m", help="Names separated by commas.")] = "",
    task: Annotated[str, typer.Option("--task", "-t", help="The task.")] = "digits",
    factors: Annotated[str, typer.Option("--factors", help="Multiples of the recipe's rate to try.")] = "0.333,1,3",
    share: Annotated[float, typer.Option("--epochs", help="Share of the recipe's epochs to train.")] = 1 / 3,
    seed: Annotated[int, typer.Option("--seed", help="The one seed of all candidates.")] = 0,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the recipe with the chosen rates: FILE.yaml.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name or file instead of the task's own.")] = None,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Choose a learning rate per method: the same small budget for each, the validation split alone."""
    rates = _numbers(factors)
    if not 0 < share <= 1:
        raise UserError(f"--epochs {share:g}: expected a share of the recipe's epochs, above 0 and up to 1.")
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise UserError("which methods? Give names separated by commas with --methods.")
    if write is not None and write.suffix not in (".yaml", ".yml"):
        raise UserError(f"--write '{write}': expected a file that ends in .yaml.")
    load_plugins(plugin)
    from anytime_bench.runs.disk import check_writable
    from anytime_bench.runs.display import Display
    from anytime_bench.runs.plan import pick_device
    from anytime_bench.runs.tune import tune as choose
    from anytime_bench.runs.tune import write_recipe
    from anytime_bench.tasks.loading import load_task

    if write is not None:
        check_writable(write.parent)
    loaded = load_task(task, data_root)
    results = []
    for name in names:
        result = choose(
            name, loaded, overrides=overrides or [], factors=rates, epoch_share=share, seed=seed, device=device,
            out=out, recipe=recipe, data_root=data_root, display=Display(quiet=as_json),
        )  # fmt: skip
        results.append(result)
        if write is not None:
            write_recipe(result, write, recipe, pick_device(device).type)
        if not as_json:
            print(f"{name}: lr {result.best.lr:g}  ({result.why()})")
    if as_json:
        print(json.dumps([{**dataclasses.asdict(result), "best": result.best.lr} for result in results]))
    elif write is not None:
        print(f"wrote {write}; use it with --recipe {write}")


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise UserError(f"--factors '{text}': expected positive numbers separated by commas, such as 0.333,1,3.")
    return numbers
