"""The picture of ``analyse``: response time over typicality, and accuracy over cost of the two stopping rules.

Equal data and libraries give equal bytes, as for all figures of the suite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from anytime_bench.analysis.readings import Reading
from anytime_bench.analysis.results import LearnedStopping, Typicality
from anytime_bench.files import write_atomically
from anytime_bench.records.figures import figure_bytes, figure_style, new_figure
from anytime_bench.trace.axes import AXES

GROUPS = 10


def draw(readings: Sequence[Reading], axis: str, path: Path) -> Path:
    """Write the picture; the suffix of ``path`` (png, svg or pdf) decides the format. Returns ``path``.

    Two panels per record, or the one that there is data for.
    """
    drawn: list[tuple[Reading, Callable[[Axes, Reading, str], None]]] = []
    for reading in readings:
        drawn += [(reading, _typicality)] if isinstance(reading.typicality, Typicality) else []
        drawn.append((reading, _stopping))
    columns = min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    with figure_style():
        figure = new_figure(4.2 * columns, 3.1 * lines)
        for place, (reading, panel_of) in enumerate(drawn):
            panel = figure.add_subplot(lines, columns, place + 1)
            record = reading.answers.record
            panel.set_title(f"{record.method.name} on {record.task.title}, seed {reading.answers.seed}", loc="left")
            panel_of(panel, reading, axis)
            panel.grid(axis="y", color="0.92", lw=0.8)
        data = [axis, [each.as_json() for each in readings]]
        written = figure_bytes(figure, path.suffix.lstrip("."), data)
    write_atomically(path, written)
    return path


def _typicality(panel: Axes, reading: Reading, axis: str) -> None:
    panel.set_xlabel("images by typicality, from least to most (%)")
    panel.set_ylabel(f"response time ({AXES[axis].title} / reference)")
    assert isinstance(reading.typicality, Typicality)
    typical, time = reading.typicality.typical, reading.typicality.times
    # Ranks, as in the correlation: most images are so typical that their probabilities would lie on one another.
    groups = np.array_split(np.argsort(typical, kind="stable"), min(GROUPS, len(typical)))
    x = (np.arange(len(groups)) + 0.5) * 100 / len(groups)
    low, high = (np.array([np.quantile(time[group], share) for group in groups]) for share in (0.1, 0.9))
    rho = reading.typicality.spearman
    panel.vlines(x, low, high, color="0.75", lw=3, label=f"middle 80 % of a {100 // len(groups)} % group")
    label = f"mean; Spearman {rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]"
    panel.plot(x, [float(time[group].mean()) for group in groups], "o-", color="C0", ms=4, lw=1.5, label=label)
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 1.05 * float(time.max()))
    panel.legend(loc="lower left", frameon=False)


def _stopping(panel: Axes, reading: Reading, axis: str) -> None:
    panel.set_xlabel(f"mean {AXES[axis].title} per image (multiples of the reference)")
    panel.set_ylabel("test accuracy")
    answers = reading.answers
    panel.plot(answers.cost, answers.test.accuracy, "s:", color="0.5", ms=3, lw=1, label="same exit for all images")
    if isinstance(reading.stopping, LearnedStopping):
        styles = (("confidence", "C1", "--", "confidence threshold"), ("gru", "C0", "-", "GRU on the trace"))
        for name, color, dash, label in styles:
            cost, accuracy = reading.stopping.curves[name]
            panel.plot(cost, accuracy, dash, color=color, lw=1.5, label=label)
    panel.set_xlim(0, None)
    panel.legend(loc="best", frameon=False)
