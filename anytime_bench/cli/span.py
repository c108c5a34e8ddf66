"""The verb ``span``: parallel time of a method, as tables, a timeline, a graph and a picture.

Nothing heavy is imported until the verb runs. Exit status as in ``cli.main``: 0 done, 2 for bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anytime_bench.cli.options import DataRoot, Device, Json, Plugin, load_plugins
from anytime_bench.errors import UserError
from anytime_bench.runs.progress import progress


def span(
    method: Annotated[str, typer.Argument(help="A name from `anytime-bench list methods`.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Whose images and options are used.")] = "digits",
    lanes: Annotated[str, typer.Option("--lanes", help="Numbers of lanes, separated by commas; inf is unlimited.")] = (
        "1,2,4,8,16,inf"
    ),
    batch: Annotated[int, typer.Option("--batch", help="Images per pass.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="Time to spend on measuring.")] = 2.0,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write the schedules: FILE for ui.perfetto.dev.")
    ] = None,
    graph: Annotated[Path | None, typer.Option("--graph", help="Write the operators: FILE for Graphviz.")] = None,
    gantt: Annotated[Path | None, typer.Option("--gantt", help="Draw the schedules: FILE.png or FILE.svg.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value option of the method.")] = None,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Work and span: what would parallel hardware gain this method? Measured per operator, without training."""
    counts = parsed_lanes(lanes)
    if batch < 1:
        raise UserError(f"--batch {batch}: expected at least 1 image.")
    if seconds <= 0:
        raise UserError(f"--seconds {seconds:g}: expected more than 0.")
    if gantt is not None and gantt.suffix not in (".png", ".svg"):
        raise UserError(f"--gantt '{gantt}': expected a file that ends in .png or .svg.")
    load_plugins(plugin)
    from anytime_bench.analysis.span_files import write_files
    from anytime_bench.analysis.span_tables import show_span, span_report
    from anytime_bench.runs.span import span_of_method

    with progress("span") as bar:
        subject = span_of_method(
            method, task, overrides=overrides or (), data_root=data_root, device=device, batch_size=batch,
            budget_seconds=seconds, progress=lambda share, what: bar.at(share),
        )  # fmt: skip
    written = write_files(subject, counts, trace=trace, graph=graph, gantt=gantt)
    if as_json:
        report = span_report(subject, counts).model_dump(mode="json")
        print(json.dumps({**report, "files": [str(path) for path in written]}))
        return
    show_span(subject, counts)
    for path in written:
        print(path)


def parsed_lanes(text: str) -> tuple[int | None, ...]:
    """``1,2,inf`` -> ``(1, 2, None)``, ascending; raises ``UserError`` for anything else."""
    counts: set[float] = set()
    for part in text.split(","):
        word = part.strip()
        if word == "inf":
            counts.add(float("inf"))
        elif word.isdecimal() and int(word) > 0:
            counts.add(int(word))
        else:
            raise UserError(
                f"--lanes '{text}': '{word}' is not a number of lanes. Expected whole numbers of at least 1, or inf, "
                "separated by commas, such as 1,2,4,inf."
            )
    return tuple(None if count == float("inf") else int(count) for count in sorted(counts))
