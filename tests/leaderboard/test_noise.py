"""What noise leaves: chance-corrected, paired over images; a row near chance has nothing to lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import generated_records as generated

from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.noise import NoiseTables, board_noise
from anytime_bench.trace.noise import NoiseRun, pack

COST = {"ticks": np.array([1.0]), "macs": np.array([1e6])}


def arrays(parts: dict[tuple[str, str, str], np.ndarray]) -> dict[str, np.ndarray]:
    """Stored noise from correctness ``(N,)`` per (mode, policy, kind)."""
    return pack(
        [NoiseRun(kind, 0, mode, policy, right[None], COST) for (mode, policy, kind), right in parts.items()], 10
    )


def flags(right: int, of: int = 100) -> np.ndarray:
    return np.arange(of) < right


def test_left_is_the_share_above_chance_and_the_mean_is_over_kinds() -> None:
    tables = NoiseTables.of([arrays({
        ("clean", "onset", "clean"): flags(90), ("persistent", "onset", "focus"): flags(50),
        ("persistent", "onset", "perlin"): flags(30), ("transient_1", "onset", "focus"): flags(70),
    })])  # fmt: skip
    (noise,) = board_noise([tables], None, 0.1)
    assert noise is not None
    assert {kind: cell.left.value for kind, cell in noise.persistent.items()} == {"focus": 0.5, "perlin": 0.25}
    assert noise.mean is not None
    assert noise.mean.value == 0.375
    assert noise.persistent["focus"].accuracy.value == 0.5
    (moving,) = noise.moving
    assert (moving.policy, moving.modes["transient_1"].value) == ("onset", 0.75)


@settings(deadline=None, max_examples=30)
@given(st.integers(30, 90), st.integers(0, 2**31))
def test_what_noise_does_not_touch_is_left_whole_and_certain(right: int, seed: int) -> None:
    clean = np.random.default_rng(seed).permutation(flags(right))
    tables = NoiseTables.of([arrays({("clean", "onset", "clean"): clean, ("persistent", "onset", "focus"): clean})])
    (noise,) = board_noise([tables], None, 0.1)
    assert noise is not None
    left = noise.persistent["focus"].left
    assert (left.value, left.low, left.high) == (1.0, 1.0, 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 experiments of 300 images: clean right with 0.8, and noise spoils a right answer with 0.4."""
    rng, covered = np.random.default_rng(5), 0
    truth = (0.8 * 0.6 + 0.2 * 0.05 - 0.1) / (0.8 - 0.1)
    for _ in range(200):
        clean = rng.random(300) < 0.8
        noisy = np.where(clean, rng.random(300) < 0.6, rng.random(300) < 0.05)
        tables = NoiseTables.of([arrays({("clean", "onset", "clean"): clean, ("persistent", "onset", "f"): noisy})])
        (noise,) = board_noise([tables], None, 0.1)
        assert noise is not None
        left = noise.persistent["f"].left
        covered += left.low <= truth <= left.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_row_near_chance_gets_a_reason_instead_of_a_share(tmp_path: Path) -> None:
    """A net of 12 % accuracy once led the column with 100 % of it left."""
    parts = {("clean", "onset", "clean"): flags(12), ("persistent", "onset", "focus"): flags(12)}
    generated.save(tmp_path, "broken", images=100, extra=arrays(parts))
    (placed,) = boards(tmp_path)
    noise = placed.board.rows[0].noise
    assert noise is not None
    assert noise.mean is None
    assert noise.persistent["focus"].left is None
    assert noise.near_chance == "near chance: 12.0 % without noise, 10.0 % by guessing"


def test_mce_is_relative_to_the_reference_kind_by_kind() -> None:
    ours, theirs = (
        NoiseTables.of([arrays({
            ("clean", "onset", "clean"): flags(90), ("persistent", "onset", "focus"): flags(focus),
            ("persistent", "onset", "perlin"): flags(perlin),
        })])
        for focus, perlin in ((60, 20), (80, 60))
    )  # fmt: skip
    own, reference = board_noise([ours, theirs], theirs, 0.1)
    assert own is not None
    assert own.mce is not None
    assert own.mce.value == 2.0  # 40/20 and 80/40
    assert reference is not None
    assert reference.mce is not None
    assert (reference.mce.value, reference.mce.low, reference.mce.high) == (1.0, 1.0, 1.0)
    assert board_noise([ours], None, 0.1)[0].mce is None


def test_seeds_without_noise_do_not_count_and_severities_are_averaged() -> None:
    runs = [NoiseRun("fog", severity, "persistent", "onset", flags(right)[None], COST)
            for severity, right in ((1, 80), (5, 40))]  # fmt: skip
    stored = pack([NoiseRun("clean", 0, "clean", "onset", flags(90)[None], COST), *runs], 10)
    tables = NoiseTables.of([{}, stored])
    assert tables is not None
    assert tables.noisy["persistent", "onset", "fog"].mean() == pytest.approx(0.6)
    assert NoiseTables.of([{}, {}]) is None
