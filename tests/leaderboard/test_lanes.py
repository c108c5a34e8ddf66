"""Lanes on a board: areas never fall with lanes, and break-even is the first number from which a row keeps up."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.figures import board_figure, figure_names
from anytime_bench.leaderboard.lanes import _break_even
from anytime_bench.leaderboard.tables import table
from anytime_bench.scores.intervals import Interval
from tests.support.generated_records import fill


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> Board:
    root: Path = tmp_path_factory.mktemp("lanes")
    fill(root, methods=3, seeds=2)
    (placed,) = boards(root)
    return placed.board


def test_areas_rise_with_lanes_and_fall_with_dearer_edges(board: Board) -> None:
    for row in board.rows:
        assert row.parallel is not None
        areas = {(each.lanes, each.edge_us): each.auc_1 for each in row.parallel.lanes}
        for edge in (0, 5, 20):
            by_lanes = [found.value for (_, cost), found in areas.items() if cost == edge]
            assert all(more >= fewer for fewer, more in pairwise(by_lanes))
        for lanes in dict.fromkeys(lanes for lanes, _ in areas):
            assert areas[lanes, 0].value >= areas[lanes, 5].value >= areas[lanes, 20].value
        assert all(found.low <= found.value <= found.high for found in areas.values())


def test_tables_show_them(board: Board) -> None:
    shown = table(board, "lanes")
    assert [column.title for column in shown.columns][1:3] == ["P = 1", "P = 2"]
    assert len(shown.frame) == 3
    for row in board.rows:
        assert row.parallel is not None
        rivals = {each.rival for each in row.parallel.break_even}
        assert row.label not in rivals


def test_the_figure_of_lanes_is_drawn_where_rows_state_them(board: Board) -> None:
    assert figure_names(board)[-1] == "lanes"
    ((form, drawn),) = board_figure(board, "lanes", forms=["svg"])
    assert form == "svg"
    assert all(label in drawn.decode() for label in ("unlimited", "AUC@1", *(row.label for row in board.rows)))
    bare = board.model_copy(update={"rows": [row.model_copy(update={"parallel": None}) for row in board.rows]})
    assert "lanes" not in figure_names(bare)


@pytest.mark.parametrize(
    ("own", "other", "lanes"),
    [([1, 3, 4], [2, 3, 3], "2"), ([1, 2, 2], [2, 3, 3], "never"), ([1, 4, 2, 5], [2, 3, 3, 3], "4")],
)
def test_break_even_is_the_first_from_which_on_it_holds(own: list[int], other: list[int], lanes: str) -> None:
    tables = [
        {(str(2**place), 0): Interval(value, value, value, 1, 1) for place, value in enumerate(values)}
        for values in (own, other)
    ]
    expected = {"2": "2", "4": "8", "never": "never"}[lanes]
    assert _break_even(*tables, 0) == expected
