"""Pages to read in a browser: one self-contained HTML file per board, and per set of records.

The chart is a Vega-Lite specification made with altair and drawn by scripts inside the file; a content security policy
in the page forbids it any network. The tables are plain HTML, there without the script too. Pure functions of a board
(``board.assembly``) and of records; equal inputs and libraries give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from anytime_bench.errors import UserError
from anytime_bench.files import write_atomically
from anytime_bench.leaderboard import sections
from anytime_bench.leaderboard.board import assemble
from anytime_bench.leaderboard.chart import curve_chart, script_bundle
from anytime_bench.leaderboard.text import reference_sentence
from anytime_bench.records.entries import Entry, groups
from anytime_bench.records.stamp import stamp
from anytime_bench.records.store import load
from anytime_bench.trace.axes import AXES

#: The curves that are drawn when the page opens; the others are one click away.
SHOWN_FIRST = 10


def board_page(board: dict[str, Any]) -> str:
    """The page of one leaderboard."""
    task = board["task"]
    heading = f"{task['title']} on {board['device']}"
    lead = (
        f"Anytime prediction, protocol {board['protocol_version']}, {task['sizes'].get('test', '?')} test images, "
        f"{task['classes']} classes. {reference_sentence(board)}"
    )
    body = [
        sections.chart(board, SHOWN_FIRST),
        sections.ranking(board),
        sections.noise(board),
        sections.methods(board),
        sections.absent(board),
    ]
    return _page(board, f"{heading}: leaderboard", heading, lead, body)


def record_page(paths: Sequence[Path]) -> str:
    """The page of some records of one group: what the board would show of them, and each record in full.

    Raises ``UserError`` where the records cannot be compared or none of them has results.
    """
    entries = [Entry(path, load(path)) for path in paths]
    found = groups(entries)
    if not found:
        raise UserError("none of the records has results to show: " + "; ".join(e.record.reason for e in entries))
    if len(found) > 1:
        told = "; ".join(f"{group.task} on {group.device}, {group.key}" for group in found)
        raise UserError(
            f"the records belong to {len(found)} groups that are never compared: {told}. Report each alone."
        )
    board = assemble(found[0])
    names = sorted({entry.record.method.name for entry in entries})
    heading = f"{', '.join(names)} on {board['task']['title']}"
    lead = f"{board['device']}, protocol {board['protocol_version']}. {reference_sentence(board)}"
    body = [
        sections.chart(board, SHOWN_FIRST),
        sections.ranking(board),
        sections.noise(board),
        sections.records(found[0]),
        sections.methods(board),
        sections.absent(board),
    ]
    return _page(board, f"{heading}: report", heading, lead, body)


def write_report(paths: Sequence[Path], out: Path) -> Path:
    """Write the page of ``paths`` to the file ``out``."""
    write_atomically(out, record_page(paths).encode())
    return out


def _page(board: dict[str, Any], title: str, heading: str, lead: str, body: Sequence[str]) -> str:
    data = _page_data(board)
    templates = files("anytime_bench.leaderboard")
    text = {name: templates.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    return Template(text["html"]).substitute(
        title=escape(title),
        heading=escape(heading),
        lead=escape(lead),
        body="\n".join(part for part in body if part),
        footer="Made by anytime-bench from stored records. This page loads nothing from anywhere.",
        stamp=stamp([title, lead, list(body)], "altair", "vl-convert-python"),
        css=text["css"],
        data=_embedded(data),
        spec=_embedded(curve_chart()),
        bundle=script_bundle(),
        script=text["js"],
    )


def _page_data(board: dict[str, Any]) -> dict[str, Any]:
    """What the script draws from: the curves, nothing that the page's tables already say."""
    kept = ("label", "seeds", "n", "accuracy", "accuracy_by_seed", "stopping")
    rows = []
    for row in board["rows"]:
        axes = {axis: {key: part[key] for key in ("cost", "cost_by_seed")} for axis, part in row["axes"].items()}
        rows.append({**{key: row[key] for key in kept}, "axes": axes})
    return {"chance": board["chance"], "reference": board["reference"], "axes": axes_shown(), "rows": rows}


def axes_shown() -> dict[str, dict[str, Any]]:
    """Title and unit per axis, as the script names them."""
    return {
        name: {"title": axis.title, "unit": axis.shown_unit, "scale": axis.shown_scale, "measured": axis.measured}
        for name, axis in AXES.items()
    }


def _embedded(value: Any) -> str:
    """JSON that may stand inside a script element: no sequence of characters can end it early."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
