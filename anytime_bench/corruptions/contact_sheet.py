"""Contact sheets: what the kinds of noise look like on a task's own images. PNG, no display needed.

Images are normalised, ``(N, D, H, W)``; mean and standard deviation per channel bring them back to pixels. Functions
return the path they wrote. Draws are those of the evaluation: same seed, image numbers and frames.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.corruptions import KINDS, corrupt
from anytime_bench.files import write_atomically
from anytime_bench.tasks.task import TaskCard


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
    return write_png(figure, path)


def write_png(figure: Figure, path: Path) -> Path:
    """The figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_atomically(path, picture.getvalue())
    return path
