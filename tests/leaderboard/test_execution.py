"""What records say of dispatch, of the compiled engine and of threads stands on their board, and on no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import generated_records as generated

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.tables import file_table, table
from anytime_bench.leaderboard.text import to_csv, to_json, to_markdown
from anytime_bench.records import store

COLUMNS = [
    "label", "plain_seconds", "fixed_seconds", "seconds_per_mac", "fixed_share", "compiled_seconds", "compiled_ratio",
    "best_threads", "best_threads_seconds", "best_threads_ratio",
]  # fmt: skip
TITLE = "Dispatch, compiled, and on more threads"


def board_of(results: Path) -> Board:
    (placed,) = boards(results)
    return placed.board


def without(record, arrays, folder: Path) -> None:
    """The record as one of protocol 1: nothing of how it is run, but on one thread as the other."""
    meta = record.timing.meta.model_copy(update={"threads": 1})
    timing = record.timing.model_copy(update={"dispatch": None, "meta": meta})
    store.save(folder, record.model_copy(update={"timing": timing}), arrays)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    generated.save(tmp_path, "plain", beside=True)
    without(*generated.make_record("older"), tmp_path)
    return board_of(tmp_path)


def test_the_line_through_the_batch_sizes_and_other_executions_are_stated(board: Board) -> None:
    row = next(row for row in board.rows if row.label == "plain")
    stated = row.execution
    assert stated is not None
    # 4 ms at batch 1, 4 * 64**0.8 ms at 64: the line through both.
    slope = 0.004 * (64**0.8 - 1) / 63
    assert stated.plain_seconds == pytest.approx(0.004, rel=0.02)
    assert stated.fixed_seconds == pytest.approx(0.004 - slope, rel=0.05)
    assert stated.seconds_per_mac == pytest.approx(slope / 5_640_000, rel=0.02)
    assert stated.fixed_share == pytest.approx(1 - slope / 0.004, rel=0.05)
    assert stated.compiled_seconds == pytest.approx(0.002, rel=0.02)
    assert stated.compiled_ratio == pytest.approx(0.5 / 0.8, rel=0.02)
    assert stated.best_threads == [2]
    assert stated.best_threads_seconds == pytest.approx(0.0024, rel=0.02)
    assert stated.best_threads_ratio == pytest.approx(0.6, rel=0.02)


def test_markdown_csv_and_page_show_it_of_the_rows_that_have_it(board: Board) -> None:
    shown = table(board, "execution")
    assert [column.name for column in shown.columns] == COLUMNS
    assert [board.rows[place].label for place in shown.places] == ["plain"]
    assert TITLE in to_markdown(board, "cpu", [])
    assert TITLE in board_page(board)
    frame = file_table(board, "csv").frame.set_index("label")
    assert frame.loc["plain", "best_threads"] == "2"
    assert frame.loc["older", COLUMNS[1:]].isna().all()


def test_boards_of_records_without_it_are_silent(tmp_path: Path) -> None:
    without(*generated.make_record("older"), tmp_path)
    board = board_of(tmp_path)
    assert TITLE not in to_markdown(board, "cpu", [])
    assert TITLE not in board_page(board)
    assert "execution" not in to_json(board)
    assert not set(COLUMNS[1:]) & set(to_csv(board).splitlines()[0].split(","))
