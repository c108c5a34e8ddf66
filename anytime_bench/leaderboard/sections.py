"""The parts of a page as HTML: chart with its controls, tables, details. Pure functions of a board or its records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from anytime_bench.leaderboard.text import NONE, legend, shown_axes, time_to_95
from anytime_bench.records.axes import clock as clock_of
from anytime_bench.records.entries import Group
from anytime_bench.records.record import Record
from anytime_bench.trace.axes import AXES, timed

RECORD_FACTS = {"record": "Record", "created": "Made (UTC)", "command": "Command", "weights": "Weights, SHA-256"}
KEY = (
    '<svg class="key" data-index="{}" width="36" height="14" aria-hidden="true">'
    '<line x1="1" y1="7" x2="35" y2="7" stroke-width="2"/><path/></svg>'
)


def chart(board: Mapping[str, Any], shown_first: int) -> str:
    """Controls, chart, and the list of methods, which is the legend too."""
    rows = board["rows"]
    rules = list(dict.fromkeys(rule for row in rows for rule in row["stopping"] if rule != "oracle"))
    curves = [("anytime", "interrupted at any moment"), *((rule, f"stopping: {rule}") for rule in rules)]
    axis = board["ranking"]["axis"]
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    options = [("mean", "mean over seeds"), ("each", "every seed"), *((str(seed), f"seed {seed}") for seed in seeds)]
    answers = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in curves)
    picks = "".join(f'<option value="{value}">{text}</option>' for value, text in options)
    items = "".join(
        f'<li><label><input type="checkbox" name="row" value="{i}"{" checked" if i < shown_first else ""}>'
        f"{KEY.format(i)}<span>{_breakable(row['label'])}</span></label></li>"
        for i, row in enumerate(rows)
    )
    return f"""<section aria-labelledby="curves"><h2 id="curves">Curves</h2>
<form class="controls" id="controls" onsubmit="return false">
<fieldset><legend>Answer</legend><select id="curve" aria-label="Answer">{answers}</select></fieldset>
{_choices("axis", "Cost axis", [(name, AXES[name].title) for name in board["axes"]], axis)}
{_choices("scale", "Scale", [("linear", "linear"), ("log", "logarithmic")], "linear")}
<fieldset><legend>Seeds</legend><select id="seed" aria-label="Seeds">{picks}</select></fieldset>
<fieldset><legend>Intervals</legend><label><input type="checkbox" id="bands" checked> 95 % bands</label></fieldset>
</form>
<div class="stage"><figure>
<div id="chart" tabindex="0" role="application" aria-roledescription="chart" aria-describedby="readout"
 aria-label="Accuracy over cost. Arrow keys walk through exits and methods."></div>
<p id="readout" role="status" aria-live="polite"></p>
<figcaption>Between two exits one owns the last answer; before the first one guesses. Dotted lines: the reference's
full cost and twice that, the horizons of AUC@1 and AUC@2. Stopping curves are simulated from stored answers, with
thresholds fitted on the validation split; their cost is in MACs.</figcaption></figure>
<div class="series"><label for="find" class="soft">Methods</label>
<input type="search" id="find" placeholder="filter by name">
<div class="buttons"><button type="button" id="all">All</button><button type="button" id="none">None</button></div>
<ul id="rows">{items}</ul></div></div></section>"""


def ranking(board: dict[str, Any]) -> str:
    """The main table, sortable, with the sentences that say what its columns mean."""
    ranked_on = board["ranking"]["axis"]
    header: list[tuple[str, str]] = [("Rank", "up"), ("Method", "name"), ("Final %", "")]
    axes = shown_axes(board)
    for axis in axes:
        header += [(f"AUC@1 {AXES[axis].title}", ""), (f"AUC@2 {AXES[axis].title}", "")]
    header += [
        (f"Time to 95 %, {AXES[ranked_on].title}", "up"),
        (f"Regret, {AXES[ranked_on].title}", "up"),
        ("Noise retention", ""),
    ]
    header += [("Seeds", ""), ("n", ""), ("Reported %", "")]
    lines = []
    for row in board["rows"]:
        cells = [_cell(row["rank"], str(row["rank"] or NONE)), _name(row["label"], row), _estimate(row["final"])]
        for axis in axes:
            scores = row["axes"].get(axis)
            cells += [_estimate(scores["auc_1"]), _estimate(scores["auc_2"])] if scores else [_cell(None), _cell(None)]
        scores = row["axes"].get(ranked_on)
        reached = scores["time_to"]["95"] if scores else None
        regret = scores["regret"] if scores else None
        cells += [
            _cell(reached, time_to_95(board, row)),
            _cell(regret, f"{100 * regret:.2f}" if regret is not None else NONE),
            _percent(row["noise"].get("retention")),
            _cell(len(row["seeds"])),
            _cell(row["n"]),
            _percent(row["reported"], 2),
        ]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    told = "".join(f"<p>{escape(text)}</p>" for text in legend(board) if text)
    untimed = [row for row in board["rows"] if not row["timed"]]
    reasons = "".join(
        f"<li>{escape(row['label'])}: {escape(row['untimed_reason'] or 'no reason given')}</li>" for row in untimed
    )
    told += f"<p>Not ranked on time:</p><ul>{reasons}</ul>" if untimed else ""
    told += "".join(f"<p>{escape(note)}</p>" for note in board["notes"])
    return (
        f'<section aria-labelledby="table"><h2 id="table" tabindex="-1">Ranking</h2>{_table(header, lines, "Ranking")}'
        f'<div class="soft">{told}</div></section>'
    )


def noise(board: Mapping[str, Any]) -> str:
    """Share of the clean accuracy kept per kind of noise; nothing where no row was examined under noise."""
    rows = [row for row in board["rows"] if row["noise"]]
    if not rows:
        return ""
    modes = list(dict.fromkeys(mode for row in rows for mode in row["noise"]["modes"]))
    out = ['<section aria-labelledby="noise"><h2 id="noise">Noise</h2>']
    out.append(f"<p>{escape(rows[0]['noise']['explained'])}</p>")
    for mode in modes:
        kinds = list(
            dict.fromkeys(
                kind for row in rows for part in row["noise"]["modes"].get(mode, {}).values() for kind in part
            )
        )
        header = [("Method", "name"), ("Policy", "text"), *((kind, "") for kind in kinds)]
        lines = []
        for row in rows:
            for policy, part in row["noise"]["modes"].get(mode, {}).items():
                cells = [_name(row["label"], row), _text(policy.replace("_", " "))]
                cells += [_percent(part.get(kind)) for kind in kinds]
                lines.append("<tr>" + "".join(cells) + "</tr>")
        title = mode.replace("_", " ")
        out.append(f"<h3>{escape(title)}</h3>{_table(header, lines, f'Noise, {title}')}")
    return "".join(out) + "</section>"


def methods(board: Mapping[str, Any]) -> str:
    """One fold per row: the method, its exits, where its records come from, and on what it ran."""
    out = ['<section aria-labelledby="methods"><h2 id="methods">Methods, provenance and environment</h2>']
    for row in board["rows"]:
        paper = escape(row["paper"]) + (f" ({row['year']})" if row["year"] else "")
        link = f' <a href="{escape(row["url"])}">{escape(row["url"])}</a>' if row["url"].startswith("https://") else ""
        facts = [
            ("Method", escape(f"{row['title']} ({row['method']})")),
            ("Paper", paper + link),
            ("One tick", escape(row["tick"])),
            ("Deviations", "<br>".join(escape(text) for text in row["deviations"]) or "none stated"),
            ("Options", _settings(row["options"])),
            ("Recipe", _settings({"epochs": row["epochs"], **row["recipe"]})),
            ("Weights from", escape(row["weights_from"] or "")),
            ("Code", _settings(row["origin"])),
            ("Parameters", f"{row['parameters']:,}" if row["parameters"] is not None else ""),
            ("Environment", _settings(row["environment"])),
        ]
        records = "".join(
            "<tr>" + _cell(r["seed"]) + "".join(_text(r[key] or "") for key in RECORD_FACTS) + "</tr>"
            for r in row["records"]
        )
        header = [("Seed", ""), *((title, "text") for title in RECORD_FACTS.values())]
        out.append(
            f'<details class="row"><summary>{escape(row["label"])}</summary>{_facts(facts)}'
            f"<h3>Exits</h3>{_exits(board, row)}"
            f"<h3>Records</h3>{_table(header, [records], 'Records', sortable=False)}</details>"
        )
    return "".join(out) + "</section>"


def records(group: Group) -> str:
    """Each record in full: quality per exit, times, training."""
    out = ['<section aria-labelledby="records"><h2 id="records">Records</h2>']
    for entries in group.rows.values():
        for entry in entries:
            out.append(_record(entry.record))
    return "".join(out) + "</section>"


def absent(board: Mapping[str, Any]) -> str:
    if not board["absent"]:
        return ""
    items = "".join(
        f"<li>{escape(entry['method'])}: {entry['status']}, {escape(entry['reason'])} "
        f"(<code>{escape(entry['command'])}</code>)</li>"
        for entry in board["absent"]
    )
    return f'<section aria-labelledby="absent"><h2 id="absent">Not on the board</h2><ul>{items}</ul></section>'


def _record(record: Record) -> str:
    header = [
        ("Exit", ""),
        ("Ticks", ""),
        ("MACs", ""),
        ("Accuracy %", ""),
        ("Top-5 %", ""),
        ("NLL", ""),
        ("Brier", ""),
        ("ECE", ""),
        ("AUROC", ""),
    ]
    times = {clock: _times(record, clock) for clock in timed()}
    header += [(f"{AXES[clock].title}, ms (p50, p90, p99)", "") for clock, found in times.items() if found]
    lines = []
    for entry in record.exits:
        cells = [
            _cell(entry.k),
            _cell(entry.ticks),
            _cell(entry.macs, f"{entry.macs:,}"),
            _estimate(entry.accuracy.model_dump()),
        ]
        cells += [
            _percent(entry.top5),
            *(
                _cell(v, f"{v:.3f}" if v is not None else NONE)
                for v in (entry.nll, entry.brier, entry.ece, entry.auroc)
            ),
        ]
        for found in times.values():
            if found:
                row = found[entry.k]
                cells.append(_cell(row["p50"], ", ".join(f"{1000 * row[p]:.3g}" for p in ("p50", "p90", "p99"))))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    training = record.training
    facts = [
        ("Record", f"<code>{record.record_id}</code>"),
        ("Made (UTC)", escape(record.created)),
        ("Command", f"<code>{escape(record.command)}</code>"),
    ]
    if training:
        loss = "" if training.final_loss is None else f", final loss {training.final_loss:.4g}"
        facts.append(("Training", f"seed {training.seed}, {training.epochs} epochs, {training.seconds:.0f} s{loss}"))
    if record.timing:
        fair = (
            "comparable"
            if record.timing.get("comparable")
            else "not comparable: " + "; ".join(map(str, record.timing.get("reasons", ())))
        )
        notes = [str(note) for note in record.timing.get("notes", ())]
        facts.append(("Timing", escape(". ".join([fair, *notes]))))
    seed = f", seed {training.seed}" if training else ""
    title = escape(f"{record.method.name}{seed}")
    return f"<h3>{title}</h3>{_facts(facts)}{_table(header, lines, f'Exits of {title}', sortable=False)}"


def _times(record: Record, clock: str) -> list[dict[str, float]]:
    found: Any = clock_of(record, clock).get("run_through")
    return found if isinstance(found, list) and len(found) == len(record.exits) and "p50" in found[0] else []


def _exits(board: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    axes = [axis for axis in board["axes"] if axis in row["axes"]]
    header = [("Exit", ""), ("Accuracy %", ""), *((f"{AXES[axis].title} (x reference)", "") for axis in axes)]
    lines = [
        "<tr>" + _cell(k) + _estimate(accuracy)
        + "".join(_cell(row["axes"][axis]["cost"][k], f"{row['axes'][axis]['cost'][k]:.4g}") for axis in axes) + "</tr>"
        for k, accuracy in enumerate(row["accuracy"])
    ]  # fmt: skip
    return _table(header, lines, f"Exits of {row['label']}", sortable=False)


def _table(header: Sequence[tuple[str, str]], lines: Iterable[str], label: str, sortable: bool = True) -> str:
    heads = []
    for title, kind in header:
        css = kind if kind in ("name", "text") else "wrap"
        first = ' data-first="up"' if kind in ("up", "name", "text") else ""
        inner = f'<button type="button">{escape(title)}</button>' if sortable else escape(title)
        heads.append(f'<th scope="col" class="{css}"{first}>{inner}</th>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="{"sortable" if sortable else "plain"}">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _choices(name: str, title: str, choices: Sequence[tuple[str, str]], checked: str) -> str:
    inner = "".join(
        f'<label><input type="radio" name="{name}" value="{escape(value)}"{" checked" if value == checked else ""}> '
        f"{escape(text)}</label>"
        for value, text in choices
    )
    return f'<fieldset><legend>{title}</legend><div class="choices">{inner}</div></fieldset>'


def _cell(value: Any, text: str | None = None) -> str:
    shown = NONE if value is None and text is None else escape(str(value) if text is None else text)
    held = "" if value is None else f' data-value="{escape(str(value))}"'
    return f"<td{held}>{shown}</td>"


def _breakable(label: str) -> str:
    """A label that may break after an underscore."""
    return escape(label).replace("_", "_<wbr>")


def _name(label: str, row: Mapping[str, Any]) -> str:
    head = f'<th scope="row" class="name" data-value="{escape(label)}" title="{escape(row["title"])}">'
    return f"{head}{_breakable(label)}</th>"


def _text(text: str) -> str:
    return f'<td class="text" data-value="{escape(text)}">{escape(text)}</td>'


def _percent(value: float | None, digits: int = 1) -> str:
    return _cell(value, NONE if value is None else f"{100 * value:.{digits}f}")


def _estimate(estimate: Mapping[str, float]) -> str:
    low, high = f"{100 * estimate['low']:.1f}", f"{100 * estimate['high']:.1f}"
    shown = f'{100 * estimate["value"]:.1f} <span class="interval">[{low}, {high}]</span>'
    return f'<td data-value="{estimate["value"]}">{shown}</td>'


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts if value) + "</dl>"


def _settings(values: Mapping[str, Any]) -> str:
    """A flat list of ``key = value``; nested mappings are spelt with dots."""
    flat: list[tuple[str, Any]] = []

    def walk(prefix: str, part: Any) -> None:
        if isinstance(part, Mapping) and part:
            for key in sorted(part):
                walk(f"{prefix}.{key}" if prefix else str(key), part[key])
        elif part not in (None, "", {}):
            flat.append((prefix, part))

    walk("", values)
    told = [
        f"<code>{escape(key)} = {escape(value if isinstance(value, str) else json.dumps(value))}</code>"
        for key, value in flat
    ]
    return ", ".join(told)
