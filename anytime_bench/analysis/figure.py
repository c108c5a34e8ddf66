"""The picture of ``read``: response time over typicality, and accuracy over cost of the two stopping rules.

One row of panels per record. Equal data and libraries give equal bytes, as for all figures of the suite.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anytime_bench.analysis.readings import Reading
from anytime_bench.files import write_atomically
from anytime_bench.records.figures import STYLE
from anytime_bench.records.stamp import stamp
from anytime_bench.trace.axes import AXES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUPS = 10


def draw(readings: Sequence[Reading], axis: str, path: Path) -> Path:
    """Write the picture; the suffix of ``path`` (.png or .svg) decides the format. Returns ``path``."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**sns.axes_style("ticks"), **sns.plotting_context("paper"), **STYLE}
    with mpl.rc_context(style):
        figure = Figure(figsize=(8.4, 3.1 * len(readings)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(readings), 2, squeeze=False)
        for (left, right), reading in zip(panels, readings, strict=True):
            record = reading.answers.record
            left.set_title(f"{record.method.name} on {record.task.title}, seed {reading.answers.seed}", loc="left")
            _typicality(left, reading, axis)
            _stopping(right, reading, axis)
            for panel in (left, right):
                panel.grid(axis="y", color="0.92", lw=0.8)
                panel.set_axisbelow(True)
                sns.despine(ax=panel)
        told = stamp([axis, [each.as_json() for each in readings]], "matplotlib", "seaborn", "numpy")
        form = path.suffix.lstrip(".")
        buffer = io.BytesIO()
        metadata = {"Software": None, "Source": told} if form == "png" else {"Date": None, "Creator": told}
        figure.savefig(buffer, format=form, metadata=metadata)
    write_atomically(path, buffer.getvalue())
    return path


def _typicality(panel: Axes, reading: Reading, axis: str) -> None:
    panel.set_xlabel("images by typicality, from least to most (%)")
    panel.set_ylabel(f"response time ({AXES[axis].title} / reference)")
    if not isinstance(reading.typicality, dict):
        panel.text(0.5, 0.5, "no serial nets of other seeds", transform=panel.transAxes, ha="center", color="0.35")
        return
    typical, time = reading.values["typicality"], reading.values["response_time"]
    # Ranks, as in the correlation: most images are so typical that their probabilities would lie on one another.
    groups = np.array_split(np.argsort(typical, kind="stable"), min(GROUPS, len(typical)))
    x = (np.arange(len(groups)) + 0.5) * 100 / len(groups)
    low, high = (np.array([np.quantile(time[group], share) for group in groups]) for share in (0.1, 0.9))
    rho = reading.typicality["spearman"]
    panel.vlines(x, low, high, color="0.75", lw=3, label=f"middle 80 % of a {100 // len(groups)} % group")
    told = f"mean; Spearman {rho['value']:+.2f} [{rho['low']:+.2f}, {rho['high']:+.2f}]"
    panel.plot(x, [float(time[group].mean()) for group in groups], "o-", color="C0", ms=4, lw=1.5, label=told)
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 1.05 * float(time.max()))
    panel.legend(loc="lower left", frameon=False)


def _stopping(panel: Axes, reading: Reading, axis: str) -> None:
    panel.set_xlabel(f"mean {AXES[axis].title} per image (multiples of the reference)")
    panel.set_ylabel("test accuracy")
    answers = reading.answers
    panel.plot(answers.cost, answers.test.accuracy, "s:", color="0.5", ms=3, lw=1, label="same exit for all images")
    if isinstance(reading.stopping, dict):
        styles = (("confidence", "C1", "--", "confidence threshold"), ("gru", "C0", "-", "GRU on the trace"))
        for name, color, dash, label in styles:
            cost, accuracy = reading.values["curves"][name]
            panel.plot(cost, accuracy, dash, color=color, lw=1.5, label=label)
    panel.set_xlim(0, None)
    panel.legend(loc="best", frameon=False)
