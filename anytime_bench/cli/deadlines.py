"""The verb ``deadlines``: an existing record's model, interrupted for real, or shown frames at a rate.

Nothing heavy is imported until the verb runs. Exit status as in ``cli.main``: 0 done, 2 for bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anytime_bench.cli.options import DataRoot, Device, Json, Plugin, command_line, load_plugins

if TYPE_CHECKING:
    from anytime_bench.records.record import Record


def deadlines(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORD...", help="Records whose trained weights are still in a runs folder."),
    ],
    draws: Annotated[int, typer.Option("--draws", help="Uniform deadlines per mode.")] = 600,
    others: Annotated[int, typer.Option("--others", help="Log-uniform ones per mode, and as many of jitter.")] = 200,
    jitter: Annotated[
        Path | None, typer.Option("--jitter", help="Deadlines to replay: a file, one per line, in multiples of H.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Longest time to spend.")] = 240.0,
    seed: Annotated[
        int | None, typer.Option(help="Deadlines, images and the order of modes follow from it. Default: the record's.")
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="Let noisy frames arrive at fixed rates instead: streaming accuracy.")
    ] = False,
    rates: Annotated[
        str, typer.Option("--rates", help="Of --frames: a frame every so many full answers of the reference.")
    ] = "0.25,0.5,1,2",
    noise: Annotated[
        str, typer.Option("--noise", help="Of --frames: the kind of noise, drawn afresh per frame.")
    ] = "occlusion",
    runs: Annotated[
        Path | None, typer.Option("--runs", help="The runs folder with the weights. Default: the record's own store.")
    ] = None,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Interrupt the models of existing records at deadlines; writes a new record that supersedes each."""
    load_plugins(plugin)
    from rich.console import Console

    from anytime_bench.harness.deadlines import DeadlineSettings
    from anytime_bench.harness.streaming_clips import StreamingSettings
    from anytime_bench.runs.closing import deadline_tables, streaming_tables
    from anytime_bench.runs.deadlines import deadlines_on_record, read_jitter, read_rates
    from anytime_bench.runs.display import Display
    from anytime_bench.runs.guard import guarded
    from anytime_bench.runs.rerun import each_record

    settings: DeadlineSettings | StreamingSettings
    if frames:
        settings = StreamingSettings(rates=read_rates(rates), kind=noise, seed=seed)
    else:
        replayed = read_jitter(jitter) if jitter else ()
        settings = DeadlineSettings(uniform=draws, others=others, jitter=replayed, seconds=seconds, seed=seed)
    display, console = Display(), Console(highlight=False)

    def interrupted(path: Path) -> Record:
        with guarded():
            return deadlines_on_record(
                path, settings, data_root=data_root, device=device, out=runs, command=command_line(), display=display
            )

    for made in each_record(records, interrupted, display):
        if as_json:
            print(json.dumps({"path": str(made.path), **made.model_dump(mode="json", exclude_none=True)}))
            continue
        for part in streaming_tables(made.streaming) if frames else deadline_tables(made.deadlines):
            console.print(part, soft_wrap=isinstance(part, str))
