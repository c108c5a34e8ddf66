"""Accuracy over ticks under noise, one panel per policy. PNG, no display needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anytime_bench.corruptions.contact_sheet import write_png
from anytime_bench.scores.results import NoiseBlock

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: One colour per mode, told apart by people with any colour vision and in grey; from seaborn's "colorblind" palette.
MODE_COLOURS = {"clean": "#333333", "persistent": "#d55e00", "transient": "#0173b2", "burst": "#029e73"}
MODE_LINES = {"clean": "-", "persistent": "--", "transient": "-", "burst": ":"}


def accuracy_over_ticks(
    noise: NoiseBlock, path: Path, *, title: str = "", policies: Sequence[str] | None = None
) -> Path:
    """One panel per policy: accuracy over ticks, clean and under persistent and transient noise (mean over kinds).

    Answers hold until the next one; chance before the first. Thin lines are
    single kinds. A burst's window is shaded.
    """
    from matplotlib.figure import Figure

    chosen = [policy for policy in (policies or noise.clean) if policy in noise.clean]
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = Figure(figsize=(1 + 3.4 * columns, 0.9 + 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for panel, policy in zip(axes.flat, chosen, strict=False):
        _panel(panel, noise, policy)
    for empty in list(axes.flat)[len(chosen) :]:
        empty.set_visible(False)
    for row in axes:
        row[0].set_ylabel("accuracy")
    for panel in axes[-1]:
        panel.set_xlabel("ticks")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(title or f"Accuracy over ticks, n = {noise.images} images; thin lines: single kinds")
    return write_png(figure, path)


def _panel(panel: Axes, noise: NoiseBlock, policy: str) -> None:
    from matplotlib.ticker import MaxNLocator

    clean = noise.clean[policy]
    rows = [row for row in noise.rows if row.policy == policy]
    # A little beyond the last answer, which would otherwise have no width.
    end = 1.06 * max(row.cost["ticks"][-1] for row in [clean, *rows])
    modes = list(dict.fromkeys(row.mode for row in rows))
    periods = [mode for mode in modes if mode.startswith("transient_")]
    panel.axhline(noise.chance, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
    for mode in modes:
        group = mode.split("_")[0]
        # Slower changes are drawn paler: persistent noise is the limit of a long period.
        strength = 1.0 if mode not in periods else 1 - 0.6 * periods.index(mode) / max(1, len(periods))
        members = [row for row in rows if row.mode == mode]
        if mode in ("persistent", "transient_1"):
            for row in members:
                _step(panel, row.cost["ticks"], row.accuracy, end, noise, MODE_COLOURS[group], 0.6, 0.3)
        ticks, mean = members[0].cost["ticks"], np.mean([row.accuracy for row in members], axis=0)
        _step(panel, ticks, mean, end, noise, MODE_COLOURS[group], 1.8, strength, MODE_LINES[group], _mode_label(mode))
        if group == "burst":
            start, stop = (int(part) for part in mode.split("_")[1:])
            panel.axvspan(start, stop, color=MODE_COLOURS[group], alpha=0.08, linewidth=0)
    _step(panel, clean.cost["ticks"], clean.accuracy, end, noise, MODE_COLOURS["clean"], 1.8, 1.0, "-", "clean")
    panel.set_title(policy, fontsize=10)
    panel.set_xlim(0, end)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(0, 1.02)
    panel.grid(axis="y", linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _mode_label(mode: str) -> str:
    group, *numbers = mode.split("_")
    if group == "transient":
        return "transient" if numbers == ["1"] else f"transient, period {numbers[0]}"
    return f"burst, ticks {numbers[0]}-{numbers[1]}" if group == "burst" else group


def _step(
    panel: Axes,
    ticks: Sequence[float],
    accuracy: Sequence[float] | NDArray[np.floating],
    end: float,
    noise: NoiseBlock,
    colour: str,
    width: float,
    strength: float,
    style: str = "-",
    label: str | None = None,
) -> None:
    places = [0.0, *ticks, end]
    values = [noise.chance, *accuracy, accuracy[-1]]
    panel.step(
        places, values, where="post", color=colour, linewidth=width, alpha=strength, linestyle=style, label=label
    )
