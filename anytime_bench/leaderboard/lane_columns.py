"""The columns of the tables of lanes: AUC@1 by number of lanes, and what says how far that can be trusted."""

from __future__ import annotations

from typing import Any

from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.column import PERCENT, TEXT, TIMES, Column, Each, Form, Missing, Value


def _counts(board: Board) -> list[str]:
    """Numbers of lanes that some row states."""
    return list(dict.fromkeys(each.lanes for row in board.rows if row.parallel for each in row.parallel.lanes))


def _on_lanes(board: Board, lanes: str) -> Column:
    def read(line: Any) -> Value:
        stated = line.row.parallel.lanes if line.row.parallel else []
        scores = [each.auc_1 for each in stated if each.lanes == lanes and not each.edge_us]
        return scores[0] if scores else Missing("not measured")

    return Column(f"lanes_{lanes}", f"P = {lanes}", read, PERCENT, ("lanes", "csv"), "high")


def _number(name: str, title: str, form: Form, meaning: str) -> Column:
    def read(line: Any) -> Value:
        value = getattr(line.row.parallel, name) if line.row.parallel else None
        return Missing("not measured") if value is None else value

    return Column(name, title, read, form, ("lane_checks", "csv"), "", meaning)


def _idle(line: Any) -> Value:
    if line.row.parallel is None:
        return Missing("not measured")
    return "no" if line.row.parallel.disturbed else "yes"


def _edge(edge: int) -> Column:
    def read(line: Any) -> Value:
        lanes: str = line.part.get(str(edge), "ahead")
        return lanes

    return Column(f"edge_{edge}", f"Edge {edge} us", read, TEXT, ("break_even",))


LANE_COLUMNS: tuple[Column | Each, ...] = (
    Each(_counts, _on_lanes),
    _number("parallelism", "T_1 / T_inf", TIMES, "work over span of the last exit, an operator on one lane"),
    _number("two_lanes", "2 real lanes", TIMES, "how many times as fast the operators run on two threads as on one"),
    _number("two_lanes_modelled", "T_1 / T_2", TIMES, "the same by the schedule"),
    _number("model_error", "T_1 off %", PERCENT, "work over the measured run-through, less 1"),
    _number("dispatch", "Dispatch %", PERCENT, "share of work that goes into issuing operators from Python"),
    Column("lanes_idle", "Idle machine", _idle, TEXT, ("lane_checks", "csv")),
    Column("rival", "Rival", lambda line: line.part["rival"], TEXT, ("break_even",)),
    *(_edge(edge) for edge in (0, 5, 20)),
)
