"""One entry of ``COLUMNS`` is all that a new column needs; what is missing says why."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.leaderboard import columns
from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.column import PERCENT, Column, Missing
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.tables import KINDS, file_table, table
from anytime_bench.leaderboard.text import to_csv, to_markdown


def board_of(results: Path) -> Board:
    (placed,) = boards(results)
    return placed.board


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root = tmp_path_factory.mktemp("columns")
    generated.fill(root, methods=3, seeds=2, images=100)
    return board_of(root)


def test_a_new_column_is_one_entry_and_appears_in_every_format(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Column(
        "errors", "Errors %", lambda line: 1 - line.row.final.value, PERCENT, ("ranking", "csv"), "low", "final errors"
    )
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, entry))
    expected = 1 - board.rows[0].final.value
    assert float(next(csv.DictReader(io.StringIO(to_csv(board))))["errors"]) == pytest.approx(expected, abs=1e-9)
    for text in (to_markdown(board, "x", []), board_page(board)):
        assert "Errors %" in text
        assert f"{100 * expected:.1f}" in text


def test_every_column_of_a_row_is_in_the_file_and_every_number_with_its_interval(board: Board) -> None:
    shown = {column.name for name in ("ranking", "horizons", "reached", "added", "costs", "behaviour", "noise")
             for column in columns.columns(board, name)}  # fmt: skip
    stored = file_table(board, "csv").frame
    # The mean over kinds of noise stands in the file once, under its name in the ranking.
    assert shown - set(stored.columns) - {"noise_left_mean"} == set()
    estimates = {name for name in stored.columns if f"{name}_low" in stored.columns}
    assert {"final", "auc_1_latency", "auc_2_macs", "regret_latency", "wasted", "flips"} <= estimates
    for name in estimates:
        values = stored[[f"{name}_low", name, f"{name}_high"]].dropna().to_numpy(dtype=float)
        assert (np.diff(values, axis=1) >= 0).all(), name


def test_every_line_about_a_row_names_it(board: Board) -> None:
    for name in set(KINDS) - {"pairs", "agreement"}:
        assert "label" in {column.name for column in columns.columns(board, name)}, name


def test_names_of_columns_are_unique_in_every_table(board: Board) -> None:
    for name in ("ranking", "horizons", "reached", "added", "costs", "behaviour", "noise", "stops", "csv", "exits"):
        names = [column.name for column in columns.columns(board, name)]
        assert len(names) == len(set(names)), name


def test_one_line_per_exit_in_the_file_of_exits(board: Board) -> None:
    frame = file_table(board, "exits").frame
    assert len(frame) == sum(len(row.accuracy) for row in board.rows)
    first = frame[frame["label"] == board.rows[0].label]
    assert first["cost_macs"].tolist() == board.rows[0].axes["macs"].cost
    assert first["nll"].tolist() == [quality.nll for quality in board.rows[0].quality]


def test_a_row_whose_first_answer_lies_beyond_h_says_so_and_has_no_rank(tmp_path: Path) -> None:
    for seed in range(5):
        generated.save(tmp_path, "plain", seed=seed)
        generated.save(tmp_path, "dear", seed=seed, speed=1 / 60)
    board = board_of(tmp_path)
    last = board.rows[-1]
    assert (last.label, last.place) == ("dear", None)
    assert "no answer within H: the first one costs 12" in last.unranked
    shown = table(board, "ranking")
    area = next(column for column in shown.columns if column.name == "auc_1_latency")
    cell = shown.cell(1, area)
    assert (cell.text, cell.value) == ("no answer within H", None)
    assert cell.reason == "its first answer costs 12 x H"
    assert "no answer within H" in to_markdown(board, "x", [])
    # The area is stored as the chance that it is, in JSON alone.
    assert last.axes["latency"].auc_1.value == pytest.approx(0.1)


def test_a_value_that_no_line_has_takes_no_column_but_stays_in_the_file(board: Board) -> None:
    assert "reported" not in {column.name for column in table(board, "ranking").columns}
    assert "reported" in file_table(board, "csv").frame


def test_what_is_missing_sorts_as_nothing_and_keeps_its_words() -> None:
    assert Missing("not timed").text == "–"
