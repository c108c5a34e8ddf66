"""The picture of schedules: one panel per number of lanes, a row per lane, operators coloured by the block they are in.

All panels share the time axis, so that what lanes save can be seen. Equal data and libraries give equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from anytime_bench.files import write_atomically
from anytime_bench.harness.operator_graph import OperatorGraph
from anytime_bench.harness.schedule import Schedule
from anytime_bench.records.figures import figure_bytes, figure_style, hues, new_figure

NO_BLOCK = "0.75"
#: Letters that a line of the legend holds.
LEGEND_WIDTH = 110


def draw_schedules(graph: OperatorGraph, schedules: Mapping[str, Schedule], title: str, path: Path) -> Path:
    """Draw ``schedules`` by their titles; the suffix of ``path`` decides the form. Returns ``path``."""
    blocks = blocks_of(graph)
    names = sorted({blocks[index] for index in graph.needed} - {""}, key=_natural)
    colours = dict(zip(names, hues(len(names)), strict=True))
    rows = [run.lanes_used for run in schedules.values()]
    with figure_style(**{"axes.spines.left": False}):
        figure = new_figure(8.4, 1.6 + 0.23 * sum(rows) + 0.35 * len(rows))
        panels = figure.subplots(len(rows), 1, squeeze=False, sharex=True, height_ratios=[count + 1 for count in rows])
        for panel, (name, run) in zip(panels[:, 0], schedules.items(), strict=True):
            _panel(panel, graph, run, name, [colours.get(block, NO_BLOCK) for block in blocks])
            panel.spines["bottom"].set_visible(panel is panels[-1, 0])
            panel.grid(axis="x", color="0.92", lw=0.8)
        panels[-1, 0].set_xlabel("milliseconds")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        handles = [Patch(color=colours[name], label=name) for name in names]
        columns = max(1, LEGEND_WIDTH // (max(map(len, names), default=0) + 6))
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, handlelength=1)
        data = [title, *(run.answers.tolist() for run in schedules.values())]
        written = figure_bytes(figure, path.suffix.lstrip("."), data)
    write_atomically(path, written)
    return path


def blocks_of(graph: OperatorGraph) -> list[str]:
    """The block of each operator ``(N,)``: its module's path up to the first number, else its first two parts.

    An operator without parameters belongs to what it waits for last; "" where that is nothing.
    """
    blocks: list[str] = []
    for operator in graph.operators:
        own = _block(operator.module)
        blocks.append(own or (blocks[operator.after[-1]] if operator.after else ""))
    return blocks


def _block(module: str) -> str:
    """``blocks.3.conv1`` -> ``blocks.3``, ``backbone.stem.conv`` -> ``backbone.stem``, ``stem_conv`` -> ``stem``."""
    parts = module.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1][:2]) or module.partition("_")[0]


def _natural(name: str) -> list[tuple[str, int]]:
    """Sorts ``blocks.2`` before ``blocks.10``."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name)]


def _panel(panel: Axes, graph: OperatorGraph, run: Schedule, title: str, colours: Sequence[Any]) -> None:
    for index in graph.needed:
        begin, length = 1e3 * run.start[index], 1e3 * (run.finish[index] - run.start[index])
        for lane in run.lanes[index]:
            panel.broken_barh([(begin, length)], (lane - 0.42, 0.84), facecolors=colours[index], linewidth=0)
    for k, seconds in enumerate(run.answers):
        panel.axvline(1e3 * seconds, color="0.2", lw=0.7, ymax=(run.lanes_used + 0.5) / (run.lanes_used + 1))
        panel.annotate(f"{k}", (1e3 * seconds, -0.62), ha="right", va="bottom", fontsize=7, color="0.2")
    panel.set_ylim(run.lanes_used - 0.5, -1.5)
    panel.set_xlim(left=0)
    panel.set_yticks(range(run.lanes_used), [str(lane + 1) for lane in range(run.lanes_used)])
    panel.set_ylabel("lane")
    panel.set_title(f"{title}: last answer after {1e3 * run.answers[-1]:.2f} ms", loc="left")
