"""The figures of noise show what they say: right size, one row per kind, drawn from the evaluation's own frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from anytime_bench.corruptions import contact_sheet, corrupt
from anytime_bench.records import noise_figures
from anytime_bench.scores.results import Estimate, NoiseBlock, NoiseRow, NoiseScores
from anytime_bench.tasks.task import TaskCard

TASK = TaskCard("toy", "Toy", ("a", "b"), (1, 8, 8), {}, (0.5,), (0.25,))
IMAGES = (torch.randint(0, 256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float() / 255 - 0.5) / 0.25


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_sheets_are_written_whole(tmp_path: Path) -> None:
    sheet = contact_sheet.contact_sheet(IMAGES, TASK, tmp_path / "a" / "sheet.png", kinds=["focus", "fog"])
    frames = contact_sheet.frame_sheet(IMAGES, TASK, tmp_path / "frames.png", kinds=["perlin"], frames=3)
    assert is_png(sheet)
    assert is_png(frames)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["frames.png", "sheet.png"], "no partial file is left"


def test_pictures_are_the_pixels_behind_the_normalised_image() -> None:
    noisy = corrupt(IMAGES[:1], "fog", severity=2, seed=0, indices=[0], mean=TASK.mean, std=TASK.std)
    expected = np.round((noisy[0, 0].numpy() * 0.25 + 0.5) * 255).astype(np.uint8)
    np.testing.assert_array_equal(contact_sheet._picture(noisy[0], TASK), expected)


def test_accuracy_is_drawn_as_steps_from_chance(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    entry = {
        "final_accuracy": Estimate(value=0.75, low=0.5, high=0.9),
        "accuracy": [0.5, 0.75],
        "cost": {"ticks": [1.0, 2.0]},
    }
    rows = [
        NoiseRow(policy="onset", kind="fog", mode=mode, **entry) for mode in ("persistent", "transient_1", "burst_1_2")
    ]
    summary = NoiseBlock(images=4, chance=0.25, clean={"onset": NoiseScores(**entry)}, rows=rows)
    assert is_png(noise_figures.accuracy_over_ticks(summary, tmp_path / "ticks.png"))
    panel = Figure().subplots()
    noise_figures._panel(panel, summary, "onset")
    clean = next(line for line in panel.lines if line.get_label() == "clean")
    assert clean.get_drawstyle() == "steps-post"
    assert list(clean.get_xdata()) == [0, 1, 2, 2.12]
    assert list(clean.get_ydata()) == [0.25, 0.5, 0.75, 0.75]
