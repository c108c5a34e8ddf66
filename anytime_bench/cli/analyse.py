"""The verb ``analyse`` of the command line: what records' traces tell beyond their scores.

Nothing heavy is imported until the verb runs. Exit status as in ``cli.main``: 0 done, 2 for bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from anytime_bench.cli.options import DataRoot, Json, Plugin, Records, load_plugins
from anytime_bench.runs.progress import progress


def analyse(
    records: Records,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference", help="Records that define typicality. Default: their reference, in the same store."
        ),
    ] = None,
    ood: Annotated[
        str | None, typer.Option("--ood", help="A task whose test images, out of distribution, the models are shown.")
    ] = None,
    axis: Annotated[str, typer.Option("--axis", help="Costs of the stopping rules: macs or ticks.")] = "macs",
    out: Annotated[Path | None, typer.Option("--out", help="Draw a picture: FILE.png or FILE.svg.")] = None,
    plugin: Plugin = None,
    data_root: DataRoot = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:0; for --ood.")] = "auto",
    as_json: Json = False,
) -> None:
    """Read the trace: typical images first? Can a GRU stop it? Does it know images out of distribution?"""
    from anytime_bench.errors import UserError

    if out is not None and out.suffix not in (".png", ".svg"):
        raise UserError(f"--out '{out}': expected a file that ends in .png or .svg.")
    load_plugins(plugin)
    from anytime_bench.analysis.readings import read_records, seed_means
    from anytime_bench.records.record import finite

    with progress("reading") as bar:
        readings = read_records(
            records, references=reference or (), ood=ood, data_root=data_root, device=device, axis=axis,
            advance=lambda share, what: bar(share, what or None),
        )  # fmt: skip
    means = seed_means(readings)
    if out is not None:
        from anytime_bench.analysis.figure import draw

        draw(readings, axis, out)
    if as_json:
        print(json.dumps(finite({"axis": axis, "records": [each.as_json() for each in readings],
                                 "means": [each.as_json() for each in means]})))  # fmt: skip
        return
    from anytime_bench.analysis.tables import show

    show(readings, means, axis)
    if out is not None:
        print(f"picture  {out}")
