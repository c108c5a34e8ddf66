"""The tables of a board as pandas frames: one line per row, exit, real stop or way of following frames.

A frame has one column per value, and ``<name>_low`` and ``<name>_high`` beside it where the value has an interval; what
is missing is NA. ``Table`` keeps the columns it was made with, so that any format can be written from it, and what
is missing with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from anytime_bench.leaderboard.board import Board, BoardRow
from anytime_bench.leaderboard.column import Column, Missing
from anytime_bench.leaderboard.columns import columns
from anytime_bench.records.record import Estimate


@dataclass(frozen=True)
class Line:
    """One line of a table: the board's row at ``place``, and the part or the exit of it that the line is about."""

    row: BoardRow
    place: int
    part: Any = None
    k: int = 0


@dataclass(frozen=True)
class Kind:
    """A kind of table: what it is called, what a reader must know of it, and its lines."""

    title: str
    about: str
    lines: Callable[[Board], list[Line]]


def _rows(board: Board) -> list[Line]:
    return [Line(row, place) for place, row in enumerate(board.rows)]


def _parts(read: Callable[[BoardRow], Sequence[Any]]) -> Callable[[Board], list[Line]]:
    return lambda board: [Line(row, place, part) for place, row in enumerate(board.rows) for part in read(row)]


def _pairs(board: Board) -> list[Line]:
    places = {row.label: place for place, row in enumerate(board.rows)}
    return [Line(board.rows[places[pair.a]], places[pair.a], pair) for pair in board.pairs]


#: Rivals of which break-even lanes are shown: the first ones of the board. The JSON file holds all pairs.
RIVALS = 5


def _break_even(board: Board) -> list[Line]:
    shown = {row.label for row in board.rows[:RIVALS]}
    return [
        Line(row, place, part)
        for place, row in enumerate(board.rows)
        for part in _rivals(row)
        if part["rival"] in shown
    ]


def _rivals(row: BoardRow) -> list[dict[str, str]]:
    """Per rival the break-even lanes by the cost of an edge."""
    rivals: dict[str, dict[str, str]] = {}
    for each in row.parallel.break_even if row.parallel else []:
        rivals.setdefault(each.rival, {"rival": each.rival})[str(each.edge_us)] = each.lanes
    # Rivals that stay ahead on any number of lanes are in the JSON file.
    return [each for each in rivals.values() if any(lanes != "never" for key, lanes in each.items() if key != "rival")]


#: By name, in the order in which a board is read.
KINDS: dict[str, Kind] = {
    "ranking": Kind("Ranking", "", _rows),
    "added": Kind(
        "What being anytime adds",
        "On the ranking axis, at H: against one fixed exit, the exits worth asking for, and static nets.",
        _rows,
    ),
    "horizons": Kind("Other horizons", "Areas up to other multiples of H.", _rows),
    "reached": Kind("What is reached when", "On the ranking axis, in multiples of H.", _rows),
    "pairs": Kind("Who is better", "Every pair of ranked rows, AUC@1 on the ranking axis.", _pairs),
    "agreement": Kind(
        "Agreement of orders",
        "How alike axes and horizons order the ranked rows by AUC@h.",
        lambda board: [Line(board.rows[0], 0, part) for part in board.agreement],
    ),
    "costs": Kind(
        "Costs",
        "Times are of batch 1 unless a column says otherwise. A promise is kept where MACs saved are time saved: 100 % "
        "means that the clock falls as the count does.",
        _rows,
    ),
    "execution": Kind(
        "Dispatch, compiled, and on more threads",
        "How the last answer's time at batch 1 divides into what is fixed and what arithmetic takes, and what it "
        "becomes compiled and on the best number of threads.",
        lambda board: [line for line in _rows(board) if line.row.execution],
    ),
    "deadlines": Kind(
        "Interrupted for real",
        "Deadlines uniform on [0, H]: what was delivered by then, a blind guess where nothing was, against what the "
        "curve promises. Asked exit by exit, run ahead with the newest answer taken, or with the deadline known "
        "beforehand. Where H is below 20 ms, these figures are the host's as much as the model's.",
        _parts(lambda row: row.interrupted.modes if row.interrupted else []),
    ),
    "streaming": Kind(
        "Frames at a rate",
        "Noisy frames arrive at a fixed rate, and at every instant the newest finished answer is held against the "
        "frame on view. Restart answers one frame after another in full; asked, a model leaves a frame at the first "
        "exit after the next arrived; pipelined, every stage has a lane of its own, which the others do not have; a "
        "model with state watches, a step per frame it sees.",
        _parts(lambda row: row.streaming),
    ),
    "lanes": Kind(
        "Lanes",
        "AUC@1 (%) if P lanes of this machine's operators ran each model at best, against the reference's full time on "
        "one lane. An operator may take several lanes; an edge between lanes costs nothing here.",
        lambda board: [line for line in _rows(board) if line.row.parallel],
    ),
    "lane_checks": Kind(
        "How far lanes can be trusted",
        "What the schedule says beside what was measured on this machine.",
        lambda board: [line for line in _rows(board) if line.row.parallel],
    ),
    "break_even": Kind(
        "Break-even lanes",
        "Where the rival is ahead on one lane: from how many lanes on a row is never behind it again, if an edge "
        f"between lanes costs 0, 5 or 20 us. Of the {RIVALS} first rows of the board as rivals.",
        _break_even,
    ),
    "budgets": Kind(
        "Stopping at a budget",
        "Accuracy when the mean cost per image may be a share of the reference's full cost. Rules are fitted on the "
        "validation split and simulated on stored answers; the oracle knows which answers are right.",
        _parts(lambda row: row.budgets),
    ),
    "stops": Kind(
        "Stopping on the clock",
        "The host looks at each answer and stops at the first confident one; deciding is part of the time.",
        _parts(lambda row: row.stops),
    ),
    "behaviour": Kind("After the first right answer", "What going on does to single images.", _rows),
    "noise": Kind(
        "Persistent noise",
        "Share of the clean accuracy above chance that is left when every frame is the same noisy image (%), paired "
        "over images. mCE: mean over kinds of error over the reference's error.",
        lambda board: [line for line in _rows(board) if line.row.noise],
    ),
    "csv": Kind("All columns", "", _rows),
}
#: Tables that are files only, by the end of the file's name.
FILES = {"csv": "csv", "exits": "exits.csv", "pairs": "pairs.csv"}


@dataclass(frozen=True)
class Table:
    """Values by name, one per line, with the columns that made them; ``places`` are the lines' rows on the board."""

    name: str
    title: str
    about: str
    columns: list[Column]
    values: dict[str, list[Any]]
    places: list[int]
    missing: dict[tuple[int, str], Missing]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The values as a frame; what is missing is NA."""
        return pd.DataFrame({name: _array(values) for name, values in self.values.items()})

    def cell(self, line: int, column: Column) -> Cell:
        """One cell as a reader sees it."""
        value, low, high = (self._number(line, column.name + end) for end in ("", "_low", "_high"))
        if value is None:
            missing = self.missing.get((line, column.name), Missing())
            return Cell(missing.text, None, reason=missing.reason)
        interval = ""
        if low is not None and high is not None and high > low:
            interval = f"[{column.form.text(low)}, {column.form.text(high)}]"
        return Cell(column.form.text(value), value, interval)

    def _number(self, line: int, name: str) -> Any:
        return self.values[name][line] if name in self.values else None


@dataclass(frozen=True)
class Cell:
    """``text`` and ``interval`` are written, ``value`` is what is sorted by, ``reason`` says why there is none."""

    text: str
    value: float | int | str | None
    interval: str = ""
    reason: str = ""


def table(board: Board, name: str) -> Table:
    """One table of a board by its kind (``KINDS``)."""
    kind = KINDS[name]
    return make_table(name, kind.title, kind.about, columns(board, name), kind.lines(board))


def exit_tables(board: Board, place: int) -> list[Table]:
    """What the exits of the row at ``place`` cost and give, and how sure and how quick they are."""
    row = board.rows[place]
    lines = [Line(row, place, k=k) for k in range(len(row.accuracy))]
    titles = {"exits": f"Exits of {row.label}", "quality": f"Confidence and times of {row.label}"}
    return [make_table(name, title, "", columns(board, name), lines) for name, title in titles.items()]


def file_table(board: Board, name: str) -> Table:
    """One table of ``FILES``, every column of its lines: rows, exits of all rows, or pairs."""
    if name != "exits":
        return table(board, name)
    lines = [Line(row, place, k=k) for place, row in enumerate(board.rows) for k in range(len(row.accuracy))]
    chosen = {column.name: column for part in ("exits", "quality") for column in columns(board, part)}
    label = next(column for column in columns(board, "csv") if column.name == "label")
    return make_table(name, "", "", [label, *chosen.values()], lines)


def moving_tables(board: Board) -> list[Table]:
    """What is left under noise that changes from frame to frame: one table per mode, one column per policy."""
    rows = [line for line in _rows(board) if line.row.noise and line.row.noise.moving]
    modes = dict.fromkeys(m for line in rows if line.row.noise for each in line.row.noise.moving for m in each.modes)
    return [
        make_table(
            "moving", _mode_title(mode), "", columns(board, "moving"), [replace(line, part=mode) for line in rows]
        )
        for mode in modes
    ]


def _mode_title(mode: str) -> str:
    kind, *numbers = mode.split("_")
    if kind == "transient":
        return "A new frame each tick" if numbers == ["1"] else f"A new frame every {numbers[0]} ticks"
    return f"Noise from tick {numbers[0]} to {numbers[1]} only" if kind == "burst" else mode.replace("_", " ")


def make_table(name: str, title: str, about: str, chosen: Sequence[Column], lines: Sequence[Line]) -> Table:
    """Read every column of every line once. A column that no line has a value in is left out, but for CSV files."""
    data: dict[str, list[Any]] = {}
    missing: dict[tuple[int, str], Missing] = {}
    shown = []
    for column in chosen:
        values = [column.value(line) for line in lines]
        for place, value in enumerate(values):
            if isinstance(value, Missing):
                missing[place, column.name] = value
        values = [None if isinstance(value, Missing) else value for value in values]
        if name != "csv" and all(value is None for value in values):
            continue
        shown.append(column)
        data[column.name] = [value.value if isinstance(value, Estimate) else value for value in values]
        if any(isinstance(value, Estimate) for value in values):
            for end in ("low", "high"):
                data[f"{column.name}_{end}"] = [getattr(value, end, None) for value in values]
    return Table(name, title, about, shown, data, [line.place for line in lines], missing)


def _array(values: Sequence[Any]) -> Any:
    """A column: whole numbers stay whole beside missing ones."""
    if all(value is None or isinstance(value, int) for value in values):
        return pd.array(values, dtype="Int64")
    return pd.array(values, dtype=object if any(isinstance(value, str) for value in values) else float)


def meanings(shown: Table) -> list[str]:
    """What the columns mean, one sentence per meaning: columns that mean the same share it."""
    titles: dict[str, list[str]] = {}
    for column in shown.columns:
        if column.meaning:
            titles.setdefault(column.meaning, []).append(column.title)
    return [f"{', '.join(dict.fromkeys(names))}: {meaning}." for meaning, names in titles.items()]
