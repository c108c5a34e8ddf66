"""Figures of noise: contact sheets of what the kinds look like, and accuracy over ticks under noise. PNG, no display.

Images are normalised, ``(N, D, H, W)``; mean and standard deviation per channel bring them back to pixels. Functions
return the path they wrote. Draws are those of the evaluation: same seed, image numbers and frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.corruptions import KINDS, corrupt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from anytime_bench.tasks.card import TaskCard

#: One colour per mode, told apart by people with any colour vision and in grey; from seaborn's "colorblind" palette.
MODE_COLOURS = {"clean": "#333333", "persistent": "#d55e00", "transient": "#0173b2", "burst": "#029e73"}
MODE_LINES = {"clean": "-", "persistent": "--", "transient": "-", "burst": ":"}


def contact_sheet(
    images: Tensor, task: TaskCard, path: Path, *, kinds: Iterable[str] | None = None, seed: int = 0
) -> Path:
    """Kinds down, the clean image and severities 1 to 5 across; a kind without severities shows five draws."""
    chosen = list(KINDS if kinds is None else kinds)
    columns = ["clean", "1", "2", "3", "4", "5"]
    rows = []
    for number, kind in enumerate(chosen):
        which = number % len(images)
        image, index = images[which : which + 1], [which]
        cells = [image]
        for column in range(1, 6):
            level = {"severity": column} if KINDS[kind].levels else {"frame": column - 1}
            cells.append(corrupt(image, kind, seed=seed, indices=index, mean=task.mean, std=task.std, **level))
        rows.append([_picture(cell[0], task) for cell in cells])
    paper = sum(not KINDS[kind].levels for kind in chosen)
    note = "severity 1 to 5" + (" (kinds without severities: five draws)" if paper else "")
    return _sheet(rows, chosen, columns, f"{task.title}: {note}", path)


def sheets_of_task(task: str, data_root: Path | None, path: Path) -> list[Path]:
    """Both sheets on test images of ``task``: kinds and severities at ``path``, transient frames beside it."""
    from anytime_bench.data import DeviceSplit
    from anytime_bench.tasks import load_task

    loaded = load_task(task, data_root)
    images = DeviceSplit.place(loaded.splits["test"], loaded.card, "cpu").sample(8).normalised()
    frames = path.with_name(f"{path.stem}-frames{path.suffix}")
    return [contact_sheet(images, loaded.card, path), frame_sheet(images, loaded.card, frames)]


def frame_sheet(
    images: Tensor,
    task: TaskCard,
    path: Path,
    *,
    kinds: Iterable[str] | None = None,
    frames: int = 9,
    severity: int = 3,
    seed: int = 0,
) -> Path:
    """Kinds down, the clean image and the first ``frames`` transient frames of one image across."""
    chosen = list(KINDS.family("paper") if kinds is None else kinds)
    rows = []
    for number, kind in enumerate(chosen):
        which = number % len(images)
        image = images[which : which + 1]
        level = severity if KINDS[kind].levels else None
        cells = [image] + [
            corrupt(image, kind, severity=level, seed=seed, indices=[which], frame=frame, mean=task.mean, std=task.std)
            for frame in range(frames)
        ]
        rows.append([_picture(cell[0], task) for cell in cells])
    columns = ["clean", *(f"tick {frame + 1}" for frame in range(frames))]
    return _sheet(rows, chosen, columns, f"{task.title}: transient noise, a new draw every tick", path)


def accuracy_over_ticks(
    summary: Mapping[str, Any], path: Path, *, title: str = "", policies: Sequence[str] | None = None
) -> Path:
    """One panel per policy: accuracy over ticks, clean and under persistent and transient noise (mean over kinds).

    ``summary`` is ``NoiseResult.summary()``. Answers hold until the next one; chance before the first. Thin lines are
    single kinds. A burst's window is shaded.
    """
    from matplotlib.figure import Figure

    chosen = [policy for policy in (policies or summary["clean"]) if policy in summary["clean"]]
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = Figure(figsize=(1 + 3.4 * columns, 0.9 + 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for panel, policy in zip(axes.flat, chosen, strict=False):
        _panel(panel, summary, policy)
    for empty in list(axes.flat)[len(chosen) :]:
        empty.set_visible(False)
    for row in axes:
        row[0].set_ylabel("accuracy")
    for panel in axes[-1]:
        panel.set_xlabel("ticks")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(title or f"Accuracy over ticks, n = {summary['images']} images; thin lines: single kinds")
    return _saved(figure, path)


def _panel(panel: Axes, summary: Mapping[str, Any], policy: str) -> None:
    from matplotlib.ticker import MaxNLocator

    clean = summary["clean"][policy]
    rows = [row for row in summary["rows"] if row["policy"] == policy]
    # A little beyond the last answer, which would otherwise have no width.
    end = 1.06 * max(row["cost"]["ticks"][-1] for row in [clean, *rows])
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    periods = [mode for mode in modes if mode.startswith("transient_")]
    panel.axhline(summary["chance"], color="#999999", linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
    for mode in modes:
        group = mode.split("_")[0]
        # Slower changes are drawn paler: persistent noise is the limit of a long period.
        strength = 1.0 if mode not in periods else 1 - 0.6 * periods.index(mode) / max(1, len(periods))
        members = [row for row in rows if row["mode"] == mode]
        if mode in ("persistent", "transient_1"):
            for row in members:
                _step(panel, row["cost"]["ticks"], row["accuracy"], end, summary, MODE_COLOURS[group], 0.6, 0.3)
        ticks, mean = members[0]["cost"]["ticks"], np.mean([row["accuracy"] for row in members], axis=0)
        _step(
            panel, ticks, mean, end, summary, MODE_COLOURS[group], 1.8, strength, MODE_LINES[group], _mode_label(mode)
        )
        if group == "burst":
            start, stop = (int(part) for part in mode.split("_")[1:])
            panel.axvspan(start, stop, color=MODE_COLOURS[group], alpha=0.08, linewidth=0)
    _step(panel, clean["cost"]["ticks"], clean["accuracy"], end, summary, MODE_COLOURS["clean"], 1.8, 1.0, "-", "clean")
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
    summary: Mapping[str, Any],
    colour: str,
    width: float,
    strength: float,
    style: str = "-",
    label: str | None = None,
) -> None:
    places = [0.0, *ticks, end]
    values = [summary["chance"], *accuracy, accuracy[-1]]
    panel.step(
        places, values, where="post", color=colour, linewidth=width, alpha=strength, linestyle=style, label=label
    )


def _picture(image: Tensor, task: TaskCard) -> NDArray[np.uint8]:
    """``(D, H, W)`` normalised to ``(H, W)`` or ``(H, W, 3)`` 8-bit."""
    pixels = image.cpu().numpy().astype(np.float64) * np.reshape(task.std, (-1, 1, 1)) + np.reshape(
        task.mean, (-1, 1, 1)
    )
    bytes_ = np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8)
    return bytes_[0] if len(bytes_) == 1 else bytes_.transpose(1, 2, 0)


def _sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]], names: Sequence[str], columns: Sequence[str], title: str, path: Path
) -> Path:
    from matplotlib.figure import Figure

    cell = 0.95
    # Room for the names on the left and for title and columns on top, in inches.
    left, top, gap = 1.45, 0.62, 0.05
    width, height = left + cell * len(columns) + gap, top + cell * len(rows) + gap
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, gap / height, 1 - gap / width, 1 - top / height, wspace=0.05, hspace=0.05)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            panel = axes[i, j]
            panel.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            for spine in panel.spines.values():
                spine.set_visible(False)
            if i == 0:
                panel.set_title(columns[j], fontsize=9)
        axes[i, 0].set_ylabel(names[i].replace("_", " "), rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / height, va="top")
    return _saved(figure, path)


def _saved(figure: Figure, path: Path) -> Path:
    """Written beside and moved into place, so that an interrupted run leaves no half-written picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=150)
    part.replace(path)
    return path
