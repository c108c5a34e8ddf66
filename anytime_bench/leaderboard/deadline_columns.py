"""The columns about interruptions: delivered AUC beside the ranking, and what every way of serving gave."""

from __future__ import annotations

from typing import Any

from anytime_bench.leaderboard.column import COUNT, MILLISECONDS, PERCENT, TEXT, Column, Form, Missing, Value
from anytime_bench.leaderboard.row_parts import Served

#: The way of serving whose figures stand for a row: the next exit is begun only if it may be done in time.
SHOWN = "ask"
TABLE = ("deadlines",)


def _delivered(line: Any) -> Value:
    if line.row.interrupted is None:
        return Missing("not interrupted: see `anytime-bench deadlines`")
    return served(line.row.interrupted.modes).delivered


def served(modes: list[Served], mode: str = SHOWN) -> Served:
    return next(each for each in modes if each.mode == mode)


def _part(name: str, title: str, form: Form, better: Any = "low", meaning: str = "") -> Column:
    return Column(name, title, lambda line: getattr(line.part, name), form, TABLE, better, meaning)


DEADLINE_COLUMNS: tuple[Column, ...] = (
    Column("delivered_auc", "Delivered AUC, ms", _delivered, PERCENT, ("ranking", "csv"), "high",
           "mean accuracy when the model is interrupted for real at deadlines uniform on [0, H], asked exit by exit"),
    Column("serving", "Served by", lambda line: line.part.mode.replace("_", " "), TEXT, TABLE),
    Column("horizon", "H, ms", lambda line: line.row.interrupted.horizon, MILLISECONDS, TABLE),
    Column("draws", "Deadlines", lambda line: line.row.interrupted.draws, COUNT, TABLE),
    _part("delivered", "Delivered AUC %", PERCENT, "high"),
    _part("promised", "Promised %", PERCENT, "high", "the curve's answers at the same deadlines and images"),
    _part("verdict", "The promise is", TEXT, "", "kept where at most 2 points are missing, at 95 %, paired"),
    _part("misses", "Missed %", PERCENT, "low", "no answer by the deadline"),
    _part("late_p50", "Late p50, ms", MILLISECONDS),
    _part("late_p99", "Late p99, ms", MILLISECONDS),
    _part("late_max", "Late max, ms", MILLISECONDS, "low", "how long the caller waited beyond the deadline"),
    _part("free_p99", "Free p99, ms", MILLISECONDS, "low", "from the deadline until the model is free again"),
    Column("idle", "Idle machine", lambda line: "no" if line.row.interrupted.disturbed else "yes", TEXT, TABLE, "",
           "whether nothing was noticed that speaks against comparing"),
)  # fmt: skip
