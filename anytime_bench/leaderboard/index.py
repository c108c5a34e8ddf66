"""The page over all boards: each with its headline figure and best rows, what is new, and where everything lies.

It needs no network and no script; its links are relative, so the folder may be copied or served as it is. Records are
linked where they lie beside the boards' folder, as in this repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anytime_bench.files import safe_name
from anytime_bench.leaderboard.board import Board, BoardRow
from anytime_bench.leaderboard.figures import figure_names
from anytime_bench.leaderboard.page import environment, source
from anytime_bench.leaderboard.tables import Cell, table
from anytime_bench.trace.axes import AXES

#: Rows that a board shows here, and rows that count as new.
BEST, NEWEST = 5, 12


@dataclass(frozen=True)
class Best:
    """One of a board's best rows."""

    rank: str
    label: str
    anchor: str
    area: Cell


@dataclass(frozen=True)
class Card:
    """A board in short; ``stem`` is the path of its files without suffix."""

    stem: str
    title: str
    facts: str
    axis: str
    figure: str
    #: None of a board that a later one replaced, which has no more than ``figure``.
    figures: list[str]
    rows: int
    best: list[Best]


@dataclass(frozen=True)
class News:
    """A row by the date of its newest record."""

    created: str
    label: str
    anchor: str
    stem: str
    board: str
    seeds: str
    records: list[tuple[str, str]]


def index_page(boards: Sequence[tuple[Path, Board]], pages: Sequence[str], records: str | None) -> str:
    """The page of ``boards``, each with the path of its files; ``records`` is the relative path of their store.

    Current groups come first, those of earlier protocols after them.
    """
    news = [_news(stem, board, row, records) for stem, board in boards for row in board.rows]
    news.sort(key=lambda item: (item.created, item.stem, item.label), reverse=True)
    return environment().get_template("index.html.j2").render(
        cards=[_card(stem, board) for stem, board in sorted(boards, key=lambda each: bool(difference(*each)))],
        news=news[:NEWEST],
        pages=list(pages),
        css=source("page.css"),
    )  # fmt: skip


def _card(stem: Path, board: Board) -> Card:
    axis = board.ranking.axis
    shown = table(board, "ranking")
    column = {column.name: column for column in shown.columns}
    best = [
        Best(shown.cell(line, column["rank"]).text if "rank" in column else "", row.label, row.anchor,
             shown.cell(line, column[f"auc_1_{axis}"]))
        for line, row in enumerate(board.rows[:BEST])
        if f"auc_1_{axis}" in column
    ]  # fmt: skip
    facts = f"Protocol {board.protocol_version}, {board.task.sizes.get('test', '?')} test images, chance "
    return Card(
        stem=stem.as_posix(),
        title=_title(stem, board),
        facts=f"{facts}{100 * board.chance:.1f} %, reference {board.reference.method or 'unknown'}",
        axis=AXES[axis].title,
        figure=axis,
        figures=[] if difference(stem, board) else figure_names(board),
        rows=len(board.rows),
        best=best,
    )


def _news(stem: Path, board: Board, row: BoardRow, records: str | None) -> News:
    newest = max(record.created for record in row.records)[:10]
    parts = [safe_name(part) for part in (board.task.name, board.device, row.method)]
    links = [
        (record.record[:8], "/".join([records, *parts, f"{record.record}.json"]) if records else "")
        for record in row.records
    ]
    seeds = ", ".join(str(seed) for seed in row.seeds)
    return News(newest, row.label, row.anchor, stem.as_posix(), _title(stem, board), seeds, links)


def _title(stem: Path, board: Board) -> str:
    """Task and device, and what tells an earlier group from the current one."""
    what = difference(stem, board)
    return f"{board.task.title} on {board.device}" + (f" ({what})" if what else "")


def difference(stem: Path, board: Board) -> str:
    """What tells an earlier group from the current one: it stands in its file's name. Empty for the current one."""
    return stem.name.removeprefix(safe_name(board.device)).lstrip(".")
