"""The verb ``profile``: the board of this device, and one model under a load.

Nothing heavy is imported until the verb runs. Exit status as in ``cli.main``: 0 done, 2 for bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from anytime_bench.cli.options import DataRoot, Device, Json, Plugin, load_plugins, require_folder
from anytime_bench.errors import UserError
from anytime_bench.runs.progress import progress

#: The published records of a checkout; elsewhere there are none, and rows have times alone.
RECORDS = Path("results")


def profile(
    task: Annotated[str, typer.Option("--task", "-t", help="Whose rows are timed.")] = "digits",
    methods: Annotated[str, typer.Option("--methods", help="Only these, separated by commas. Default: all rows.")] = "",
    records: Annotated[Path, typer.Option("--records", help="Where accuracies come from.")] = RECORDS,
    seconds: Annotated[float, typer.Option("--seconds", help="About how long all timing together may take.")] = 100.0,
    threads: Annotated[int, typer.Option("--threads", help="Intra-op threads; 0 is torch's own choice.")] = 0,
    load: Annotated[
        float | None,
        typer.Option("--load", help="Play a Poisson load on one method instead: requests per full answer's time."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the profile's files.")] = Path("profile"),
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value option, without records.")] = None,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time every row on this device without training, and join the accuracies of published records."""
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if seconds <= 0:
        raise UserError(f"--seconds {seconds:g}: expected more than 0.")
    if threads < 0:
        raise UserError(f"--threads {threads}: expected 0 or more.")
    if records != RECORDS:
        require_folder(records)
    load_plugins(plugin)
    if load is not None:
        _play(load, names, task=task, records=records, overrides=overrides or (), device=device, data_root=data_root,
              as_json=as_json)  # fmt: skip
        return
    from rich.console import Console

    from anytime_bench.runs.disk import check_writable
    from anytime_bench.runs.guard import guarded
    from anytime_bench.runs.profile import profile as measure

    check_writable(out)
    with guarded(), progress("profile") as bar:
        result = measure(
            task, records=records, methods=names, overrides=overrides or (), device=device, data_root=data_root,
            seconds=seconds, threads=threads or None, progress=lambda share, what: bar.at(share, what),
        )  # fmt: skip
    from anytime_bench.cli.tables import print_table
    from anytime_bench.leaderboard.profile import about, profile_table, write_profile

    paths = write_profile(result, out)
    if as_json:
        print(json.dumps({**result.model_dump(mode="json"), "files": [str(path) for path in paths]}))
        return
    print_table(profile_table(result))
    for line in about(result):
        Console(highlight=False).print(line, markup=False)
    for path in paths:
        print(path)


def _play(rate: float, names: list[str], *, as_json: bool, **place: Any) -> None:
    from anytime_bench.harness.load import LoadSettings
    from anytime_bench.runs.guard import guarded
    from anytime_bench.runs.load import load_on_method

    with guarded():
        report = load_on_method(names, LoadSettings(rate=rate), **place)
    if as_json:
        print(report.model_dump_json())
        return
    from anytime_bench.cli.load_table import print_load

    print_load(report)
