"""The verb ``read`` of the command line: what records' traces tell beyond their scores. See ``mount``.

Nothing heavy is imported until the verb runs. Exit status as in ``cli``: 0 done, 2 for bad input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def mount(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(read)


def read(
    records: Annotated[list[Path], typer.Argument(metavar="RECORD...", help="Record files, or folders of them.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option("--reference", help="Records that define typicality. Default: serial_ce of the same store."),
    ] = None,
    outside: Annotated[
        str | None, typer.Option("--outside", help="A task whose test images are shown to the records' models.")
    ] = None,
    axis: Annotated[str, typer.Option("--axis", help="Costs of the stopping rules: macs or ticks.")] = "macs",
    out: Annotated[Path | None, typer.Option("--out", help="Draw a picture: FILE.png or FILE.svg.")] = None,
    plugin: Annotated[list[str] | None, typer.Option("--plugin", help="A .py file or module with the method.")] = None,
    data_root: Annotated[Path | None, typer.Option("--data-root", help="Where the tasks' files lie.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0; for --outside.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")] = False,
) -> None:
    """Read the trace: typical images first? Can a GRU stop it? Does it know images from outside?"""
    from anytime_bench.errors import UserError

    if out is not None and out.suffix not in (".png", ".svg"):
        raise UserError(f"--out '{out}': expected a file that ends in .png or .svg.")
    if plugin:
        from anytime_bench.methods.plugins import load_plugin

        for each in plugin:
            load_plugin(each)
    from anytime_bench.analysis.readings import read_records, seed_means
    from anytime_bench.records.record import finite

    with _progress() as advance:
        readings = read_records(
            records, references=reference or (), outside=outside, data_root=data_root, device=device, axis=axis,
            advance=advance,
        )  # fmt: skip
    means = seed_means(readings)
    if out is not None:
        from anytime_bench.analysis.figure import draw

        draw(readings, axis, out)
    if as_json:
        print(json.dumps(finite({"axis": axis, "records": [each.as_json() for each in readings], "means": means})))
        return
    from anytime_bench.analysis.tables import show

    show(readings, means, axis)
    if out is not None:
        print(f"picture  {out}")


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """A bar with the time left on standard error; nothing where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(24), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    shown = (*columns, TextColumn("{task.description}", markup=False))
    with Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)

        def advance(share: float, what: str) -> None:
            bar.update(task, advance=share, **({"description": what} if what else {}))  # type: ignore[arg-type]

        yield advance
