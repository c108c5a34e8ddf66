"""Frames at a rate on a board: a table and a figure where there are any, and no byte where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.figures import board_figure, figure_names
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.tables import table
from anytime_bench.leaderboard.text import to_json, to_markdown
from anytime_bench.records.verify import verify_record
from tests.support.generated_records import fill, save


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("frames")
    for seed in range(2):
        save(root, "plain", seed=seed, streaming=True)
    save(root, "silent", skill=0.4)
    return root


@pytest.fixture(scope="module")
def board(root: Path) -> Board:
    (placed,) = boards(root)
    return placed.board


def test_the_table_has_a_line_per_way_and_rate_over_seeds(board: Board) -> None:
    shown = table(board, "streaming")
    assert shown.values["way"] == ["restart", "ask", "pipelined", "watch"] * 3
    assert shown.values["rate"] == [rate for rate in (0.5, 1, 2) for _ in range(4)]
    assert shown.values["ahead"][::4] == [0, 0, 0], "restart is ahead of itself by nothing"
    row = next(row for row in board.rows if row.method == "plain")
    for each in row.streaming:
        start = next(other for other in row.streaming if (other.way, other.rate) == ("restart", each.rate))
        assert each.ahead.value == pytest.approx(each.accuracy.value - start.accuracy.value, abs=2e-5)


def test_files_page_and_figure_show_frames_only_where_they_are(board: Board, tmp_path: Path) -> None:
    assert figure_names(board)[-1] == "streaming"
    ((_, drawn),) = board_figure(board, "streaming", forms=["svg"])
    assert "plain: watch" in drawn.decode()
    assert "## Frames at a rate" in to_markdown(board, "x", [])
    assert "Streaming accuracy over the time between frames" in board_page(board)
    rows = json.loads(to_json(board))["rows"]
    assert [bool(row["streaming"]) for row in rows] == [row["method"] == "plain" for row in rows]
    assert Board.model_validate_json(to_json(board)) == board
    fill(tmp_path, methods=2, seeds=1)
    (bare,) = boards(tmp_path)
    assert "streaming" not in figure_names(bare.board)
    assert [row.streaming for row in bare.board.rows] == [[], []]
    assert "Frames at a rate" not in board_page(bare.board)


def test_a_record_states_what_its_clips_give_and_a_lie_is_named(root: Path, tmp_path: Path) -> None:
    path = save(tmp_path, "plain", streaming=True)
    assert verify_record(path)[1] == []
    lie = save(tmp_path / "lie", "plain", streaming=True, change={"streaming": None})
    assert any("holds clips, but" in fault for fault in verify_record(lie)[1])
