"""Static figures: PNG for screens, SVG and PDF for print. Equal data and libraries give equal bytes.

Every curve is drawn as what it is, a step function: between two exits the latest answer stands. It rises from chance at
its first exit; before that every method guesses, which is one line for all. Costs are multiples of the reference
model's full answer on the same axis. Colours are told apart with any colour vision, and line style and marker change
with the method too, so that no figure needs its colours. No date, host or program name goes into a file; its stamp
names the data and the libraries whose versions decide the bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from anytime_bench.files import write_atomically
from anytime_bench.records.axes import exit_costs
from anytime_bench.records.record import Record
from anytime_bench.records.stamp import stamp
from anytime_bench.trace.answers import Trace
from anytime_bench.trace.axes import AXES

FORMS = ("svg", "png", "pdf")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX*<>"
#: For any colour vision: the palette "colorblind" of seaborn without its yellow, which is too faint on paper.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#56b4e9")
#: Text stays text in an SVG; the salt fixes its element ids.
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anytime_bench",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "0.15",
    "axes.labelcolor": "0.15",
    "text.color": "0.15",
    "xtick.color": "0.15",
    "ytick.color": "0.15",
    "lines.solid_capstyle": "round",
}
#: Full costs that differ by this factor, the reference's among them, are drawn on a logarithmic axis.
DECADE = 10.0


@dataclass(frozen=True)
class Line:
    """One curve: costs and accuracies per exit ``(E,)``, the interval of each accuracy, and the guess before exit 0."""

    label: str
    cost: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chance: float


@dataclass(frozen=True)
class Extent:
    """A cost axis that fits the curves on it."""

    start: float
    end: float
    log: bool


def extent_of(costs: Sequence[Sequence[float]]) -> Extent:
    """From the guesses to a little beyond the last answers, and at least to the reference's full cost.

    >>> extent_of([[0.5, 2.0]]).log, extent_of([[0.5, 2.0], [1.0, 62.0]]).log
    (False, True)
    """
    ends = [max(cost) for cost in costs]
    first = min(min(cost) for cost in costs)
    log = max([1.0, *ends]) / min([1.0, *ends]) >= DECADE and first > 0
    return Extent(min(0.5, first) / 1.5 if log else 0.0, max(1.05, 1.03 * max(ends)), log)


def speed_accuracy(record: Record, arrays: Mapping[str, NDArray[np.generic]] | None, path: str | Path) -> Path:
    """Draw the anytime curve of one record on every axis it was measured on; returns ``path``.

    With ``arrays`` (the record's ``.npz``) a dotted line shows hindsight: the share of images for which some exit
    so far was right, which no stopping rule can beat. The suffix of ``path`` decides the format (png, svg or pdf).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, speed_accuracy_bytes(record, arrays, path.suffix.lstrip(".") or "png"))
    return path


def speed_accuracy_bytes(record: Record, arrays: Mapping[str, NDArray[np.generic]] | None, form: str) -> bytes:
    """``speed_accuracy`` in memory; ``form`` is one of ``FORMS``."""
    hindsight: NDArray[np.float64] | None = None
    if arrays and "test_predictions" in arrays:
        correct = Trace.from_arrays(arrays, "test").correct
        hindsight = np.logical_or.accumulate(correct, axis=0).mean(axis=1)
    panels = [(axis, list(costs.relative)) for axis in AXES if (costs := exit_costs(record, axis)) is not None]
    # An unfinished record: its curve over exits is all there is.
    drawn = panels or [("exit", [float(entry.k) for entry in record.exits])]
    with figure_style():
        figure = new_figure(4.0 * len(drawn), 3.4)
        axes = np.atleast_1d(figure.subplots(1, len(drawn), sharey=True))
        for panel, (axis, cost) in zip(axes, drawn, strict=True):
            line = Line(
                record.method.name,
                cost,
                [entry.accuracy.value for entry in record.exits],
                [entry.accuracy.low for entry in record.exits],
                [entry.accuracy.high for entry in record.exits],
                1 / record.task.classes,
            )
            extent = extent_of([cost]) if panels else Extent(0.0, cost[-1] + 1.0, False)
            draw_curve(panel, line, 0, extent)
            if hindsight is not None:
                places, values = [*cost, extent.end], [*hindsight, hindsight[-1]]
                panel.step(places, values, where="post", ls=":", lw=1, color="0.35", label="hindsight: any exit right")
            dress(panel, axis, extent, line.chance)
        axes[0].set_ylabel("test accuracy")
        axes[0].legend(loc="lower right", frameon=False)
        seed = f", seed {record.training.seed}" if record.training else ""
        figure.suptitle(f"{record.method.name} on {record.task.title}{seed} ({record.device})", fontsize=11)
        return figure_bytes(figure, form, [record.record_id, record.method.name, drawn])


def mark_of(index: int) -> dict[str, Any]:
    """Colour, line style and marker of the ``index``-th method of a figure; all three change, so each is unique."""
    # After each full turn of the palette the line style moves on, so colour and style together stay unique.
    return {
        "color": COLOURS[index % len(COLOURS)],
        "ls": DASHES[(index // len(COLOURS) + index % len(COLOURS)) % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def hues(count: int) -> list[Any]:
    """``count`` colours around the circle, for parts that only need to differ from their neighbours."""
    return [mpl.colormaps["hsv"](0.85 * place / max(1, count - 1)) for place in range(count)]


def draw_curve(panel: Axes, line: Line, index: int, extent: Extent) -> None:
    """A step curve with its interval band, from the rise at the first exit to the end of the axis."""
    mark = mark_of(index)
    end = max(extent.end, line.cost[-1])
    cost = [line.cost[0], *line.cost, end]
    low, high = ([line.chance, *values, values[-1]] for values in (line.low, line.high))
    panel.fill_between(cost, low, high, step="post", color=mark["color"], alpha=0.15, lw=0)
    size = mpl.rcParams["font.size"] / 9
    # Markers stand at exits only, not at the guess before the first one or at the end of the axis.
    panel.step(cost, [line.chance, *line.accuracy, line.accuracy[-1]], where="post", lw=1.4 * size, ms=4 * size,
               markevery=slice(1, len(cost) - 1), label=line.label, **mark)  # fmt: skip


def dress(panel: Axes, axis: str, extent: Extent, chance: float | None = None) -> None:
    """Axes, horizons at 1 and 2, and the line on which every method starts."""
    if axis in AXES:
        panel.set_xlabel(f"{AXES[axis].title} (multiples of the reference's full answer)")
        for horizon in (1, 2):
            panel.axvline(horizon, color="0.8", lw=0.8, zorder=0)
    else:
        panel.set_xlabel(axis)
    if extent.log:
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    if chance is not None:
        panel.axhline(chance, color="0.6", lw=0.8, ls=(0, (1, 2)), zorder=0)
    panel.set_xlim(extent.start, extent.end)
    panel.set_ylim(0, 1.02)
    panel.grid(axis="y", color="0.92", lw=0.8)


def figure_style(**settings: Any) -> AbstractContextManager[None]:
    """The settings under which a figure is made and saved."""
    style: Any = {**STYLE, **settings}
    return mpl.rc_context(style)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. The object interface, not pyplot: no global state, so a thread may draw."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, form: str, data: Any) -> bytes:
    """The file of a figure in one of ``FORMS``, with the stamp of the drawn ``data``."""
    if engine := figure.get_layout_engine():
        # Laid out once for all formats: matplotlib would do it for each, and draw each twice for it.
        engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.BytesIO()
    made_by = stamp(data, "matplotlib", "numpy")
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Software": None, "Source": made_by},
        "svg": {"Date": None, "Creator": made_by},
        "pdf": {"CreationDate": None, "Creator": made_by, "Producer": None},
    }
    figure.savefig(buffer, format=form, metadata=metadata[form])
    written = buffer.getvalue()
    # Matplotlib ends some SVG lines with a space, which editors and git hooks like to strip.
    return b"\n".join(line.rstrip() for line in written.split(b"\n")) if form == "svg" else written
