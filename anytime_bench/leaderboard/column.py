"""What a column of a table is: a name, a title, how its value is read off a line, and how it is written.

A value is a number, an ``Estimate``, a text, or ``Missing`` with the reason. ``tables`` names the tables that show the
column, ``csv`` being the file of all columns of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from anytime_bench.leaderboard.board import Board
from anytime_bench.records.record import Estimate
from anytime_bench.scores.ranks import Rank

NONE = "–"
Better = Literal["high", "low", ""]


@dataclass(frozen=True)
class Missing:
    """No value, and why; ``text`` is what stands in the cell."""

    reason: str = ""
    text: str = NONE


Value = float | int | str | Estimate | Missing | None


@dataclass(frozen=True)
class Form:
    """How a number is written: times ``scale`` with ``digits`` decimals, or significant digits where ``rounded``."""

    scale: float = 1.0
    digits: int = 0
    rounded: bool = False

    def text(self, value: float | int | str) -> str:
        if isinstance(value, str):
            return value
        if math.isinf(value):
            return "never"
        number = self.scale * value
        # A number that rounds to zero has no sign.
        return f"{number:.{self.digits}g}" if self.rounded else f"{round(number, self.digits) + 0.0:,.{self.digits}f}"


class RankForm(Form):
    """A rank as an interval, in one number that sorts as it is read: the first place times 1,000, plus the last."""

    @staticmethod
    def number(place: Rank) -> int:
        return 1000 * place.first + place.last

    def text(self, value: float | int | str) -> str:
        first, last = divmod(int(value), 1000)
        return str(Rank(first, last))


PERCENT, PERCENT_2 = Form(100, 1), Form(100, 2)
COUNT, TEXT, TIMES, DIGITS_3 = Form(), Form(), Form(digits=2), Form(digits=3, rounded=True)
MILLISECONDS = Form(1000, 3, rounded=True)
RANK = RankForm()


@dataclass(frozen=True)
class Column:
    """``name`` in files, ``title`` for readers, ``value`` of a line, and in which direction the column is better."""

    name: str
    title: str
    value: Callable[[Any], Value]
    form: Form
    tables: tuple[str, ...]
    better: Better = ""
    meaning: str = ""

    @property
    def is_text(self) -> bool:
        return self.form is TEXT


@dataclass(frozen=True)
class Each:
    """A column per item that a board has: per axis, kind of noise, batch size."""

    over: Callable[[Board], Iterable[Any]]
    column: Callable[[Board, Any], Column]
