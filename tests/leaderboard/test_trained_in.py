"""The precision of training: a recipe's "auto" differs from machine to machine, and the board says what it came to."""

from __future__ import annotations

from pathlib import Path

from support import generated_records as generated

from anytime_bench.leaderboard.build import boards
from anytime_bench.records import store


def save(root: Path, method: str, seed: int, precision: str | None) -> None:
    path = generated.save(root / "made", method, seed=seed)
    record = store.load(path)
    assert record.training is not None
    training = record.training.model_copy(update={"precision": precision})
    changed = record.model_copy(update={"training": training, "record_id": ""})
    store.save(root / "results", changed, store.load_arrays(path, record))


def notes(root: Path) -> list[str]:
    (placed,) = boards(root / "results")
    return [note for note in placed.board.notes if "rained in" in note]


def test_a_board_says_in_which_precision_its_networks_were_trained(tmp_path: Path) -> None:
    save(tmp_path, "plain", 0, None)
    assert notes(tmp_path) == []
    for seed in (1, 2):
        save(tmp_path, "plain", seed, "fp32")
    assert notes(tmp_path) == ["All networks were trained in fp32."]
    save(tmp_path, "plain", 3, "bf16")
    save(tmp_path, "quick", 1, "bf16")
    assert notes(tmp_path) == [
        "Trained in bf16: plain (3), quick (1). Seeds in brackets.",
        "Trained in fp32: plain (1, 2). Seeds in brackets.",
    ]
