"""A profile of this device as files: CSV, Markdown, JSON, one self-contained page and a figure.

Each says what was measured here and what was not: times here, accuracies from records elsewhere. Pure functions of a
``Profile``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from anytime_bench.files import safe_name, write_all
from anytime_bench.leaderboard.column import DIGITS_3, MILLISECONDS, PERCENT, TEXT, Column, Form, Missing, Value
from anytime_bench.leaderboard.figures import name_ends
from anytime_bench.leaderboard.page import environment, source
from anytime_bench.leaderboard.tables import Line as TableLine
from anytime_bench.leaderboard.tables import Table, make_table, meanings
from anytime_bench.leaderboard.text import markdown_table, quoted
from anytime_bench.records.figures import Line, draw_curve, dress, extent_of, figure_bytes, figure_style, new_figure
from anytime_bench.runs.profile import CONFIDENCE, Profile, ProfileRow

MILLIJOULES = Form(1000, 3, rounded=True)
#: More curves than this cannot be told apart.
MOST = 12
NO_RECORD = Missing("it has no record, so nothing is known of its answers")


def _of(read: Callable[[ProfileRow], Value]) -> Callable[[Any], Value]:
    return lambda line: read(line.row)


def columns(profile: Profile) -> list[Column]:
    """What the table shows; energy only where it was read."""
    here, there = ("profile",), f"from the records in {profile.source}" if profile.source else "no records"
    shown = [
        Column("label", "Method", _of(lambda row: row.label), TEXT, here),
        Column("auc_1", "AUC@1 %", _of(lambda row: row.auc_1 or NO_RECORD), PERCENT, here, "high",
               f"mean accuracy at deadlines uniform on [0, H]: times here, accuracies {there}"),
        Column("final", "Final %", _of(lambda row: row.accuracy[-1] if row.accuracy else NO_RECORD), PERCENT, here,
               "high", f"accuracy of the last exit, {there}"),
        Column("first", "First answer, ms", _of(lambda row: row.seconds[0]), MILLISECONDS, here, "low"),
        Column("full", "Last answer, ms", _of(lambda row: row.seconds[-1]), MILLISECONDS, here, "low"),
        Column("ratio", "Ratio", _of(lambda row: row.ratio[-1]), DIGITS_3, here, "low",
               "last answer in multiples of the reference's full answer"),
        Column("stop", "Stops, ms", _of(lambda row: row.stop_seconds or NO_RECORD), MILLISECONDS, here, "low",
               f"mean time here if each image of the records leaves at the first confidence of {CONFIDENCE:g}"),
        Column("stop_accuracy", "Stops, %", _of(lambda row: row.stop_accuracy or NO_RECORD), PERCENT, here, "high"),
    ]  # fmt: skip
    if any(row.joules for row in profile.rows):
        shown += [
            Column("joules", "Last answer, mJ", _of(lambda row: row.joules[-1] if row.joules else None), MILLIJOULES,
                   here, "low", "energy of the whole package or board while it is computed"),
            Column("auc_joules", "AUC@1 energy %", _of(lambda row: row.auc_joules), PERCENT, here, "high",
                   "the same over energy, H being that of the reference's full answer"),
        ]  # fmt: skip
    shown += [
        Column("seeds", "Seeds", _of(lambda row: len(row.seeds) or None), Form(), here),
        Column(
            "disturbed",
            "Idle",
            _of(lambda row: "no" if row.disturbed else "yes"),
            TEXT,
            here,
            "",
            "whether nothing was noticed that speaks against comparing",
        ),
    ]
    return shown


def profile_table(profile: Profile) -> Table:
    lines = [TableLine(row, place) for place, row in enumerate(profile.rows)]  # type: ignore[arg-type]
    return make_table("profile", f"{profile.title} on this device", "", columns(profile), lines)


def about(profile: Profile) -> list[str]:
    """What a reader must know, one sentence each."""
    known = sum(bool(row.records) for row in profile.rows)
    records = [
        f"Accuracies are not from here: they are those of the records in {profile.source}, of {known} of "
        f"{len(profile.rows)} rows." if known else "No row has a record, so nothing is known of accuracies."
    ]  # fmt: skip
    return [
        f"Times were measured here, on {profile.device_name or profile.device} with {profile.threads} threads at batch "
        f"1, {profile.created}, with random weights: what an exit takes does not depend on them, only where a network "
        "stops does, and that is read from stored answers.",
        *records,
        f"H is the full answer of {profile.reference}: {1e3 * profile.horizon:.3g} ms.",
        f"Energy: {profile.energy}.",
        *(f"Not comparable: {row.label}: {'; '.join(row.disturbed)}." for row in profile.rows if row.disturbed),
        *(f"Not timed: {each.label}: {each.reason}" for each in profile.untimed),
    ]


def markdown(profile: Profile, stem: str) -> str:
    shown = profile_table(profile)
    lines = [
        f"# {quoted(profile.title)} on {quoted(profile.device)}: a profile, not a leaderboard",
        "",
        *(f"{quoted(line)}\n" for line in about(profile)),
        *([f"![Accuracy over time]({stem}.svg)", ""] if any(row.accuracy for row in profile.rows) else []),
        *markdown_table(shown),
        "",
        *meanings(shown),
    ]
    return "\n".join(lines) + "\n"


def page(profile: Profile) -> str:
    """One self-contained page."""
    shown = profile_table(profile)
    drawn = next((data for form, data in figure(profile, ("svg",)) if form == "svg"), None)
    picture = f"data:image/svg+xml;base64,{base64.b64encode(drawn).decode()}" if drawn else ""
    template = environment().get_template("profile.html.j2")
    return template.render(profile=profile, shown=shown, about=about(profile), picture=picture, css=source("page.css"))


def figure(profile: Profile, forms: tuple[str, ...] = ("svg", "png")) -> Iterator[tuple[str, bytes]]:
    """Accuracy over time in multiples of H, as (format, file); nothing where no row has a record."""
    rows = [row for row in profile.rows if row.accuracy][:MOST]
    if not rows:
        return
    lines = []
    for row in rows:
        value, low, high = ([getattr(each, end) for each in row.accuracy] for end in ("value", "low", "high"))
        lines.append(Line(row.label, [each.value for each in row.ratio], value, low, high, profile.chance))
    with figure_style():
        picture = new_figure(7.6, 4.4)
        panel = picture.subplots()
        extent = extent_of([line.cost for line in lines])
        for index, line in enumerate(lines):
            draw_curve(panel, line, index, extent)
        dress(panel, "latency", extent, profile.chance)
        panel.set_ylabel("accuracy, from records")
        panel.set_title(f"{profile.title}: times on this {profile.device}, accuracies from records", loc="left")
        name_ends(panel, [(extent.end, line.accuracy[-1], line.label) for line in lines], 4.4)
        for form in forms:
            yield form, figure_bytes(picture, form, profile.model_dump(mode="json"))


def write_profile(profile: Profile, out: Path) -> list[Path]:
    """Write all files below ``out``, as ``<task>/<device>.<ending>``; returns their paths."""
    stem = out / safe_name(profile.task) / safe_name(profile.device)
    table: str = profile_table(profile).frame.to_csv(index=False, lineterminator="\n")
    contents = {
        "md": markdown(profile, stem.name).encode(),
        "csv": table.encode(),
        "json": (profile.model_dump_json(indent=1) + "\n").encode(),
        "html": page(profile).encode(),
        **dict(figure(profile)),
    }
    written = {stem.with_name(f"{stem.name}.{ending}"): data for ending, data in contents.items()}
    write_all(written)
    return list(written)
