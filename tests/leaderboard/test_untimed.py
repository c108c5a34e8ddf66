"""Rows whose times may not be compared: shown, said to be so, and in no rank."""

from __future__ import annotations

from pathlib import Path

from support import generated_records as generated

from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.text import to_markdown


def test_untimed_rows_are_shown_with_the_reason_and_not_ranked(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    generated.save(tmp_path, "fast_but_disturbed", speed=9.0, skill=0.9, timed=False)
    (placed,) = boards(tmp_path)
    board = placed.board
    (row,) = (row for row in board.rows if row.label == "fast_but_disturbed")
    assert row.place is None
    assert board.rows[-1] is row or row.axes["macs"].auc_1.value > board.rows[-1].axes["macs"].auc_1.value
    assert "another process" in row.unranked
    text = to_markdown(board, "generated-cpu", [])
    assert "fast_but_disturbed: another process used the device" in text
    assert "no rank rests on it: latency and span of fast_but_disturbed. Each record says why." in text
    assert "no rank rests on it: latency and span of fast_but_disturbed. Each record says why." in board_page(board)


def test_without_any_comparable_time_macs_rank(tmp_path: Path) -> None:
    for seed in range(5):
        generated.save(tmp_path, "plain", seed=seed, timed=False)
        generated.save(tmp_path, "quick", seed=seed, skill=0.95, timed=False)
    (placed,) = boards(tmp_path)
    board = placed.board
    assert board.ranking.axis == "macs"
    assert [(row.label, str(row.place)) for row in board.rows] == [("quick", "1"), ("plain", "2")]
    assert "because no row has comparable times" in board.ranking.sorted_by
    assert "no rank rests on it: span and latency of all rows." in to_markdown(board, "generated-cpu", [])
