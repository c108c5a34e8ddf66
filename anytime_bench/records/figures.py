"""Static figures for papers, by seaborn: PNG for screens, SVG for print. Equal data and libraries give equal bytes.

Every curve is drawn as what it is, a step function: between two exits one owns the last answer. Costs are multiples
of the reference model's full answer on the same axis. Colours are seaborn's colour-blind palette, and line style
and marker change with the method too, so that no figure needs its colours. No date, host or program name goes into
a file; its stamp names the data and the libraries whose versions decide the bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.files import write_atomically
from anytime_bench.records.axes import exit_costs
from anytime_bench.records.record import Record
from anytime_bench.records.stamp import stamp
from anytime_bench.trace.answers import Trace
from anytime_bench.trace.axes import AXES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX*<>"
#: Text stays text in an SVG, so its bytes do not depend on the installed fonts; the salt fixes its element ids.
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anytime_bench",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class Line:
    """One curve: costs and accuracies per exit ``(E,)``, the interval of each accuracy, and the guess before exit 0."""

    label: str
    cost: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    chance: float


def speed_accuracy(record: Record, arrays: Mapping[str, NDArray[np.generic]] | None, path: str | Path) -> Path:
    """Draw the anytime curve of one record on every axis it was measured on; returns ``path``.

    With ``arrays`` (the record's ``.npz``) a dotted line shows hindsight: the share of images for which some exit
    so far was right, which no stopping rule can beat. The suffix of ``path`` decides the format (.png or .svg).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, speed_accuracy_bytes(record, arrays, path.suffix.lstrip(".") or "png"))
    return path


def speed_accuracy_bytes(record: Record, arrays: Mapping[str, NDArray[np.generic]] | None, form: str) -> bytes:
    """``speed_accuracy`` in memory; ``form`` is png or svg."""
    hindsight: NDArray[np.float64] | None = None
    if arrays and "test_predictions" in arrays:
        correct = Trace.from_arrays(arrays, "test").correct
        hindsight = np.logical_or.accumulate(correct, axis=0).mean(axis=1)
    panels = [(axis, costs) for axis in AXES if (costs := exit_costs(record, axis)) is not None]
    chance = 1 / record.task.classes
    if not panels:  # An unfinished record: its curve over exits is all there is.
        numbers = [float(entry.k) for entry in record.exits]
        drawn = [("exit", numbers)]
    else:
        drawn = [(axis, list(costs.relative)) for axis, costs in panels]
    with _style():
        figure, axes = _panels(len(drawn))
        for panel, (axis, cost) in zip(axes, drawn, strict=True):
            line = Line(
                record.method.name,
                cost,
                [entry.accuracy.value for entry in record.exits],
                [entry.accuracy.low for entry in record.exits],
                [entry.accuracy.high for entry in record.exits],
                chance,
            )
            end = max(2.0, 1.05 * cost[-1]) if axis != "exit" else cost[-1] + 1.0
            _draw(panel, line, 0, end)
            if hindsight is not None:
                panel.step([*cost, end], [*hindsight, hindsight[-1]], where="post", ls=":", lw=1, color="0.35",
                           label="hindsight: any exit so far right")  # fmt: skip
            _dress(panel, axis, end)
        axes[0].set_ylabel("test accuracy")
        axes[0].legend(loc="lower right", frameon=False)
        seed = f", seed {record.training.seed}" if record.training else ""
        figure.suptitle(f"{record.method.name} on {record.task.title}{seed} ({record.device})", fontsize=11)
        return _bytes(figure, form, [record.record_id, record.method.name, drawn])


def board_figure(title: str, axis: str, lines: Sequence[Line], *, note: str = "") -> dict[str, bytes]:
    """All rows of a board on one axis, as ``{"svg": ..., "png": ...}``; ``note`` goes under the plot."""
    with _style():
        figure, axes = _panels(1, width=7.2, height=4.6)
        end = 2.0
        for index, line in enumerate(lines):
            _draw(axes[0], line, index, end)
        _dress(axes[0], axis, end)
        axes[0].set_ylabel("test accuracy")
        axes[0].set_title(title, loc="left")
        if lines:
            axes[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, ncols=1 + len(lines) // 21)
        if note:
            axes[0].text(0, -0.17, note, transform=axes[0].transAxes, fontsize=7, color="0.35", va="top")
        data = [title, axis, note, *map(asdict, lines)]
        return {form: _bytes(figure, form, data) for form in ("svg", "png")}


def _draw(panel: Axes, line: Line, index: int, end: float) -> None:
    import seaborn as sns

    palette = sns.color_palette("colorblind")
    del palette[8]  # Yellow: too faint on paper.
    color = palette[index % len(palette)]
    # After each full turn of the palette the line style moves on, so colour and style together stay unique.
    dash: Any = DASHES[(index // len(palette) + index) % len(DASHES)]
    cost = [0.0, *line.cost, max(end, line.cost[-1])]
    value = [line.chance, *line.accuracy, line.accuracy[-1]]
    low = [line.chance, *line.low, line.low[-1]]
    high = [line.chance, *line.high, line.high[-1]]
    panel.fill_between(cost, low, high, step="post", color=color, alpha=0.18, lw=0)
    style: Any = {"color": color, "ls": dash, "lw": 1.5, "marker": MARKERS[index % len(MARKERS)], "ms": 4}
    # Markers stand at exits only, not at the guess before the first one or at the end of the axis.
    panel.step(cost, value, where="post", markevery=slice(1, len(cost) - 1), label=line.label, **style)


def _dress(panel: Axes, axis: str, end: float) -> None:
    import seaborn as sns

    if axis == "exit":
        panel.set_xlabel("exit")
    else:
        panel.set_xlabel(f"{AXES[axis].title} (multiples of the reference's full answer)")
        for horizon in (1, 2):
            panel.axvline(horizon, color="0.8", lw=0.8, zorder=0)
    panel.set_xlim(0, end)
    panel.set_ylim(0, 1.02)
    panel.grid(axis="y", color="0.92", lw=0.8)
    panel.set_axisbelow(True)
    sns.despine(ax=panel)


def _style() -> Any:
    import matplotlib as mpl
    import seaborn as sns

    settings: Any = {**sns.axes_style("ticks"), **sns.plotting_context("paper"), **STYLE}
    return mpl.rc_context(settings)


def _panels(count: int, width: float = 4.0, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    # The object interface, not pyplot: no global state, so a runner in a thread or without a display may draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A single panel's legend stands outside, for which the tight bounding box of ``_bytes`` makes room.
    figure = Figure(figsize=(width * count, height), layout="constrained" if count > 1 else None)
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, count, sharey=True)))


def _bytes(figure: Figure, form: str, data: Any) -> bytes:
    buffer = io.BytesIO()
    told = stamp(data, "matplotlib", "seaborn", "numpy")
    metadata = {"Software": None, "Source": told} if form == "png" else {"Date": None, "Creator": told}
    tight = None if figure.get_layout_engine() else "tight"
    figure.savefig(buffer, format=form, metadata=metadata, bbox_inches=tight)
    data = buffer.getvalue()
    # Matplotlib ends some SVG lines with a space, which editors and git hooks like to strip.
    return b"\n".join(line.rstrip() for line in data.split(b"\n")) if form == "svg" else data
