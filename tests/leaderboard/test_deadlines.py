"""Deadlines on a board: a column beside the ranking, a table per way of serving, points over the promised curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.figures import board_figure, figure_names
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.tables import table
from anytime_bench.leaderboard.text import to_csv, to_markdown
from tests.support.generated_records import fill, save


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root: Path = tmp_path_factory.mktemp("deadlines")
    fill(root, methods=3, seeds=2, deadlines=True)
    save(root, "silent", skill=0.4)
    (placed,) = boards(root)
    return placed.board


def test_every_interrupted_row_has_its_delivered_auc_and_the_others_say_how_to_get_one(board: Board) -> None:
    shown = table(board, "ranking")
    column = next(each for each in shown.columns if each.name == "delivered_auc")
    for line, row in enumerate(board.rows):
        cell = shown.cell(line, column)
        if row.method == "silent":
            assert row.interrupted is None
            assert "anytime-bench deadlines" in cell.reason
        else:
            assert row.interrupted is not None
            asked = row.interrupted.modes[0]
            assert cell.value == asked.delivered.value
            assert asked.delivered.value == pytest.approx(row.axes["latency"].auc_1.value, abs=0.1)
            assert asked.verdict.startswith(("kept", "undecided")), "it was delivered as promised"


def test_the_table_has_a_line_per_way_of_serving(board: Board) -> None:
    shown = table(board, "deadlines")
    assert shown.values["serving"] == ["ask", "run ahead", "known"] * 3
    assert set(shown.values["idle"]) == {"yes"}
    assert all(0 < late < 0.003 for late in shown.values["late_max"])


def test_files_page_and_figure_show_them_only_where_they_are(board: Board, tmp_path: Path) -> None:
    assert figure_names(board)[-1] == "deadlines"
    ((_, drawn),) = board_figure(board, "deadlines", forms=["svg"])
    assert all(row.label in drawn.decode() for row in board.rows if row.interrupted)
    assert "silent" not in drawn.decode()
    assert "## Interrupted for real" in to_markdown(board, "x", [])
    assert "delivered_auc" in to_csv(board).splitlines()[0]
    page = board_page(board)
    assert page.count("Interrupted for real") >= 1
    assert "Accuracy delivered at deadlines" in page
    fill(tmp_path, methods=2, seeds=1)
    (bare,) = boards(tmp_path)
    assert "deadlines" not in figure_names(bare.board)
    assert "Interrupted for real" not in to_markdown(bare.board, "x", [])
    assert "Accuracy delivered at deadlines" not in board_page(bare.board)
