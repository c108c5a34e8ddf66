"""Pages to read in a browser: one self-contained HTML file per board, and per set of records.

``page.html.j2`` lays out the tables of ``tables`` and the record of every row; it escapes whatever comes from a record.
The chart is a Vega-Lite specification made with altair and drawn by scripts inside the file; a content security policy
in the page forbids it any network. Tables and records are there without the scripts too. Pure functions of a board;
equal inputs and libraries give equal bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from anytime_bench.errors import UserError
from anytime_bench.files import write_atomically
from anytime_bench.leaderboard.assembly import assemble
from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.chart import curve_chart, script_bundle
from anytime_bench.leaderboard.figures import board_figure, figure_names
from anytime_bench.leaderboard.pairs import verdicts
from anytime_bench.leaderboard.row_parts import AxisScores
from anytime_bench.leaderboard.tables import FILES, KINDS, exit_tables, meanings, moving_tables, table
from anytime_bench.leaderboard.text import legend, reference_sentence, untimed
from anytime_bench.records.entries import Entry, groups
from anytime_bench.records.stamp import stamp
from anytime_bench.records.store import load
from anytime_bench.trace.axes import AXES

#: The curves that are drawn when the page opens; the others are one click away.
SHOWN_FIRST = 10
#: Libraries whose versions decide a page's bytes.
LIBRARIES = ("altair", "vl-convert-python", "Jinja2", "matplotlib")


def board_page(board: Board) -> str:
    """The page of one leaderboard."""
    task = board.task
    heading = f"{task.title} on {board.device}"
    lead = (
        f"Anytime prediction, protocol {board.protocol_version}, {task.sizes.get('test', '?')} test images, "
        f"{task.classes} classes. {reference_sentence(board)}"
    )
    return _page(board, f"{heading}: leaderboard", heading, lead)


def record_page(paths: Sequence[Path]) -> str:
    """The page of some records of one group: the board that they alone would make.

    Raises ``UserError`` where the records cannot be compared or none of them has results.
    """
    entries = [Entry(path, load(path)) for path in paths]
    members = groups(entries)
    if not members:
        raise UserError("none of the records has results to show: " + "; ".join(e.record.reason for e in entries))
    if len(members) > 1:
        names = "; ".join(f"{group.task} on {group.device}, {group.key}" for group in members)
        raise UserError(
            f"the records belong to {len(members)} groups that are never compared: {names}. Report each alone."
        )
    board = assemble(members[0])
    methods = ", ".join(sorted({entry.record.method.name for entry in entries}))
    heading = f"{methods} on {board.task.title}"
    lead = f"{board.device}, protocol {board.protocol_version}. {reference_sentence(board)}"
    return _page(board, f"{heading}: report", heading, lead)


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Write the page of ``paths`` to the file ``out``."""
    write_atomically(out, record_page(paths).encode())
    return out


def flat(values: Mapping[str, Any]) -> list[str]:
    """``key = value`` per setting; nested mappings are spelt with dots, empty values left out.

    >>> flat({"training": {"lr": 0.1, "schedule": "cosine"}, "note": ""})
    ['training.lr = 0.1', 'training.schedule = cosine']
    """
    lines = []
    for key in sorted(values):
        value = values[key]
        if isinstance(value, Mapping) and value:
            lines += [f"{key}.{line}" for line in flat(value)]
        elif value not in (None, "", {}):
            lines.append(f"{key} = {value if isinstance(value, str) else json.dumps(value)}")
    return lines


@cache
def environment() -> Environment:
    """The templates of this room, which escape whatever they are given."""
    templates = Environment(
        loader=PackageLoader("anytime_bench.leaderboard", ""), autoescape=True, undefined=StrictUndefined
    )
    templates.globals.update(flat=flat, meanings=meanings)
    return templates


def _page(board: Board, title: str, heading: str, lead: str) -> str:
    rules = list(dict.fromkeys(rule for row in board.rows for rule in row.stopping if rule != "oracle"))
    return environment().get_template("page.html.j2").render(
        board=board,
        title=title,
        heading=heading,
        lead=lead,
        legend=[*legend(board), *untimed(board)],
        rules=rules,
        axes=[(axis, AXES[axis].title) for axis in board.axes],
        seeds=sorted({seed for row in board.rows for seed in row.seeds}),
        shown_first=SHOWN_FIRST,
        tables={name: table(board, name) for name in KINDS if name not in FILES},
        exits=lambda place: exit_tables(board, place),
        moving=moving_tables(board),
        verdicts=verdicts(board),
        promise=_picture(board, "promise"),
        delivered=_picture(board, "deadlines"),
        followed=_picture(board, "streaming"),
        unranked=[row for row in board.rows if row.place is None],
        stamp=stamp([title, lead, board.to_json()], *LIBRARIES),
        css=source("page.css"),
        script=source("page.js"),
        bundle=script_bundle(),
        spec=_embedded(curve_chart()),
        data=_embedded(_page_data(board)),
    )  # fmt: skip


def _page_data(board: Board) -> dict[str, object]:
    """What the script draws from: the curves, nothing that the page's tables already say."""
    rows = [
        {
            "anchor": row.anchor,
            **row.model_dump(mode="json", include={"label", "seeds", "n", "accuracy", "accuracy_by_seed", "stopping"}),
            "axes": {axis: _axis_data(scores) for axis, scores in row.axes.items()},
        }
        for row in board.rows
    ]
    axes = {
        axis: {
            "title": AXES[axis].title,
            "unit": AXES[axis].shown_unit,
            "full": board.reference.costs[axis] / AXES[axis].shown_scale if axis in board.reference.costs else None,
        }
        for axis in board.axes
    }
    return {"chance": board.chance, "horizons": board.horizons, "axis": board.ranking.axis, "axes": axes, "rows": rows}


def _axis_data(scores: AxisScores) -> dict[str, object]:
    """Costs by seed only where seeds differ: counted costs never do."""
    differ = any(seed != scores.cost for seed in scores.cost_by_seed)
    return scores.model_dump(include={"cost", "curve", *(["cost_by_seed"] if differ else [])})


def _picture(board: Board, name: str) -> str:
    """A figure of the board as a ``data:`` address; empty where the board has no data for it."""
    if name not in figure_names(board):
        return ""
    ((_, drawn),) = board_figure(board, name, forms=["svg"])
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}"


def source(name: str) -> str:
    """A file of this room as text."""
    return files("anytime_bench.leaderboard").joinpath(name).read_text(encoding="utf-8")


def _embedded(value: Any) -> str:
    """JSON that may stand inside a script element: no sequence of characters can end it early."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
