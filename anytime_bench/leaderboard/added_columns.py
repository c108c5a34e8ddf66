"""Columns that are not known beforehand: scores that plugins add, and stopping rules at each budget."""

from __future__ import annotations

from typing import Any

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.column import DIGITS_3, PERCENT, TEXT, Better, Column, Each, Missing, Value
from anytime_bench.records.record import Added
from anytime_bench.scores.stopping_rules import BUDGETS
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


def _at_budget(budget: int) -> Column:
    def read(line: Any) -> Value:
        return line.part.accuracy[str(budget)] or Missing("the rule cannot spend so little")

    return Column(f"at_{budget}", f"{budget} %", read, PERCENT, ("budgets",), "high",
                  "accuracy (%) at that share of the reference's full cost")  # fmt: skip


ADDED_COLUMNS: tuple[Column | Each, ...] = (
    Each(added_scores, added_score),
    Each(added_scores, added_exit_score),

    Column("rule_at_budget", "Rule", lambda line: line.part.title, TEXT, ("budgets",)),
    Column("budget_axis", "Budget in", lambda line: AXES[line.part.axis].title, TEXT, ("budgets",)),
    *(_at_budget(budget) for budget in BUDGETS),
    Column("deciding_at_budget", "Deciding %", lambda line: line.part.deciding or Missing("not measured"), PERCENT,
           ("budgets",), "low", "share of the time of a real stop, one image at a time, that goes into deciding"),
)  # fmt: skip
