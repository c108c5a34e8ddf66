"""Tuning: every rate gets the same budget, the best on validation wins, and the recipe carries the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from anytime_bench.errors import UserError
from anytime_bench.runs.tune import Candidate, Tuning, tune, write_recipe
from anytime_bench.training.recipes import recipe_for

FAST = ["width=4", "training.epochs=3", "training.batch_size=16", "training.warmup=0"]


def test_the_best_mean_over_exits_wins_and_a_divergence_cannot() -> None:
    one, two = Candidate(0.03, (0.2, 0.9)), Candidate(0.1, (0.6, 0.7))
    tuning = Tuning("m", "t", 4, 0, 50, (one, two, Candidate(0.3, diverged="NaN")))
    assert tuning.best is two
    assert tuning.why().endswith("0.03: 55.0 %, 0.1: 65.0 %, 0.3: NaN")
    assert Tuning("m", "t", 4, 0, 50, (one, Candidate(0.1, (0.9, 0.2)))).best is one, "the smaller rate of two equals"


@pytest.fixture(scope="module")
def tuned(tiny_task, tmp_path_factory) -> Tuning:
    out = tmp_path_factory.mktemp("tune")
    return tune("serial_ce", tiny_task, overrides=FAST, factors=(0.1, 1), epoch_share=0.4, out=out)


def test_each_rate_trains_the_same_share_of_the_epochs(tuned: Tuning) -> None:
    assert tuned.epochs == 2
    assert [candidate.lr for candidate in tuned.candidates] == pytest.approx([0.01, 0.1])
    assert all(len(candidate.accuracy) == 9 for candidate in tuned.candidates)
    assert tuned.images == 48


def test_the_recipe_takes_the_rate_and_says_why(tuned: Tuning, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    write_recipe(tuned, path, "default", "cpu")
    written = recipe_for("tiny", str(path))
    exception = written["methods"]["serial_ce"]
    assert exception["training"]["lr"] == tuned.best.lr
    assert "validation images after 2 epochs, seed 0" in exception["why"]
    write_recipe(tuned, path, None, "cpu")
    assert recipe_for("tiny", str(path)) == written, "tuning again replaces the figures and repeats none"


def test_a_row_without_training_of_its_own_cannot_be_tuned(tiny_task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes over the weights of serial_ce"):
        tune("cascaded_ce", tiny_task, overrides=["width=4"], out=tmp_path)


def test_bad_factors_are_one_line(capsys, monkeypatch) -> None:
    from anytime_bench.cli.main import main

    monkeypatch.setattr("sys.argv", ["anytime-bench", "tune", "-m", "serial_ce", "--factors", "1,-2"])
    with pytest.raises(SystemExit) as leave:
        main()
    assert leave.value.code == 2
    assert "expected positive numbers" in capsys.readouterr().err
