"""Columns that are not known beforehand: scores that plugins add, and stopping rules at each budget."""

from __future__ import annotations

from typing import Any

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.column import DIGITS_3, PERCENT, Better, Column, Missing, Value
from anytime_bench.records.record import Added
from anytime_bench.trace.axes import AXES

ABSENT = Missing("not in every record of the row, or undefined")
DIRECTIONS: dict[str, Better] = {"higher": "high", "lower": "low"}


def added_scores(board: Board) -> list[tuple[str, Added]]:
    """Names and descriptions of the scores that plugins added."""
    return [(name.removeprefix("score "), each) for name, each in board.added.items() if name.startswith("score ")]


def added_score(board: Board, item: tuple[str, Added]) -> Column:
    """The column of a plugin's score, one value per row."""
    name, score = item
    of = ", of the last exit" if any(name in entry for row in board.rows for entry in row.extra_exits) else ""

    def read(line: Any) -> Value:
        value = line.row.extra.get(name)
        return ABSENT if value is None else value

    return Column(f"score_{name}", score.title, read, DIGITS_3, ("behaviour", "csv"), DIRECTIONS.get(score.better, ""),
                  f"a score of {score.origin}{of}")  # fmt: skip


def added_exit_score(board: Board, item: tuple[str, Added]) -> Column:
    """The same per exit, for scores of exits."""
    name, score = item

    def read(line: Any) -> Value:
        value = line.row.extra_exits[line.k].get(name)
        return ABSENT if value is None else value

    return Column(f"score_{name}", score.title, read, DIGITS_3, ("exits",), DIRECTIONS.get(score.better, ""),
                  f"a score of {score.origin}")  # fmt: skip


def at_budget(board: Board, item: tuple[str, int]) -> Column:
    """A stopping rule's accuracy at one budget of one axis."""
    axis, budget = item

    def read(line: Any) -> Value:
        points = line.part.accuracy.get(axis)
        if points is None:
            return Missing("not in every record of the row")
        return points[str(budget)] or Missing("the rule cannot spend so little")

    title = f"{budget} % of {AXES[axis].title}"
    return Column(f"at_{budget}_{axis}", title, read, PERCENT, ("budgets",), "high",
                  "accuracy (%) at that share of the reference's full cost")  # fmt: skip
