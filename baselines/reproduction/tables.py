"""The tables beside the claims: where the cascade wins, what it costs, other ways to train it, and sanity.

Differences are in points, rounded to one decimal; costs are multiples of the serial net's full answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anytime_bench.leaderboard.row_parts import OFF_TIES
from anytime_bench.records import store
from anytime_bench.scores.intervals import Interval, mean_interval
from anytime_bench.scores.verdicts import paired_difference
from anytime_bench.trace.axes import AXES
from baselines.reproduction.evidence import Evidence, Row
from baselines.reproduction.findings import Finding

RIVALS = ("serial_ce", "serial_td_multihead", "sdn", "msdnet")
#: The order of rows in tables.
METHODS = (
    "cascaded_td", "cascaded_td_multihead", "cascaded_ce", "serial_td", "serial_td_multihead", "serial_ce",
    "sdn", "sdn_ic_only", "msdnet", "boostnet", "product_of_experts", "most_confident",
)  # fmt: skip
WATCHING = ("watch", "watch_mean")
PLAIN = {"wins": "wins against", "loses": "loses to", "same": "equals", "undecided": "cannot be told from"}
#: Sanity bound of the suite: the final exits of cascaded_td and serial_ce.
SANE = 0.03
NONE = "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A Markdown table; columns in ``right`` are aligned to the right."""
    marks = ["--:" if column in right else ":--" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, marks, *rows])


def counted(findings: Sequence[Finding]) -> str:
    """The verdict of all ``findings``, or how many there are of each."""
    if not findings:
        return "not measured"
    verdicts = ("holds", "fails", "equivalent", "undecided")
    counts = [sum(each.verdict == verdict for each in findings) for verdict in verdicts]
    if len(findings) == max(counts):
        return f"**{findings[0].verdict}**" + (f" ({len(findings)})" if len(findings) > 1 else "")
    return f"mixed ({' / '.join(map(str, counts))})"


def anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    letters = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return letters.replace(" ", "-")


def estimate(value: float, low: float, high: float, unit: str = "points") -> str:
    """``+1.2 [+0.4, +2.0]``; correlations get two decimals. Bounds are cut off where no difference can lie."""
    digits, most = (2, 1.0) if unit == "correlation" else (1, 100.0)
    value, low, high = (number + 1e2 * OFF_TIES for number in (value, max(low, -most), min(high, most)))

    def signed(number: float) -> str:
        # A rounded zero has no sign.
        return f"{number:+.{digits}f}" if round(number, digits) else f"{0:.{digits}f}"

    return f"{signed(value)} [{signed(low)}, {signed(high)}]"


def share(part: Interval) -> str:
    """``66.6 [64.3, 68.8]`` in percent. A Student-t interval over few seeds may leave [0, 1], where no share lies."""
    value, low, high = (number + OFF_TIES for number in (part.value, max(part.low, 0.0), min(part.high, 1.0)))
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def wins(every: Sequence[Evidence]) -> str:
    """Differences in AUC@1 and AUC@2 between the cascade and its rivals, per axis."""
    rows = []
    words: dict[tuple[str, str], list[str]] = {}
    for evidence in every:
        cascade = evidence.row("cascaded_td")
        for rival in RIVALS:
            other = evidence.row(rival)
            if cascade is None or other is None:
                continue
            for axis in evidence.axes:
                cells = [evidence.task, rival, AXES[axis].title]
                for horizon in (1.0, 2.0):
                    a, b = cascade.area(axis, horizon), other.area(axis, horizon)
                    if a is None or b is None:
                        cells += [NONE]
                        continue
                    d = paired_difference(a, b)
                    word = {"better": "wins", "worse": "loses", "equivalent": "same"}.get(d.verdict, "undecided")
                    cells.append(f"{estimate(100 * d.value, 100 * d.low, 100 * d.high)} {word}")
                    if horizon == 1.0:
                        words.setdefault((AXES[axis].title, word), []).append(f"{rival} on {evidence.task}")
                rows.append(cells)
    if not rows:
        return ""
    plain = [f"- On {axis} it {PLAIN[word]} {', '.join(names)}." for (axis, word), names in sorted(words.items())]
    text = (
        "AUC@h is the mean accuracy when the deadline is uniform between 0 and h times the serial net's full answer. "
        "cascaded_td minus the rival, in points. In short, by AUC@1:"
    )
    header = ("Task", "Rival", "Axis", "AUC@1", "AUC@2")
    return "\n".join(
        ["## Where the cascade wins and where it loses", "", text, "", *plain, "", table(header, rows, right=(3, 4))]
    )


def charged(every: Sequence[Evidence]) -> str:
    """What the rows' full answers cost: the extra computation that a tick does not charge."""
    rows = []
    for evidence in every:
        for name in METHODS:
            row = evidence.row(name)
            if row is None:
                continue
            cells = [evidence.task, name, share(mean_interval(row.exit(-1)))]
            record = row.record
            for axis in ("ticks", "macs", "latency"):
                costs = row.costs(axis)
                cells.append(NONE if costs is None else f"{costs[:, -1].mean():.2f}")
            dense = record.macs_by_execution.get("dense")
            full = record.reference.costs["macs"] if record.reference else None
            cells.append(f"{dense[-1] / full:.2f}" if dense and full else NONE)
            rows.append([*cells, str(row.seeds)])
    text = (
        "Cost of the last exit with every answer emitted on the way, in multiples of serial_ce's full answer (means "
        "over seeds; latency at batch size 1 is the median of interleaved rounds). MACs of a cascade leave out what "
        "cannot have changed on a still image; dense MACs repeat every block at every tick. A tick charges for "
        "neither. Final accuracy in %."
    )
    header = ("Task", "Row", "Final", "Ticks", "MACs", "Latency", "Dense MACs", "Seeds")
    return "\n".join(["## What it costs", "", text, "", table(header, rows, right=range(2, 8))])


def lambdas(every: Sequence[Evidence]) -> str:
    rows = []
    sweeps = [
        (each, swept) for evidence in every for each in evidence.with_older for swept in each.lambdas("cascaded_td")
    ]
    for evidence, swept in sweeps:
        for lam, row in swept.items() if len(swept) > 1 else ():
            rate = row.record.training.recipe["training"]["lr"] if row.record.training else NONE
            cells = [evidence.task, f"{rate}", f"{lam:g}"]
            for values in (row.exit(-1), row.exit(1), row.area("ticks", 1.0)):
                if values is None:
                    cells.append(NONE)
                    continue
                cells.append(share(mean_interval(values)))
            rows.append([*cells, str(row.seeds), f"{row.correct.shape[2]:,}"])
    if not rows:
        return ""
    header = ("Task", "Learning rate", "lambda", "Final %", "Second exit %", "AUC@1 ticks %", "Seeds", "n")
    return "\n".join(["## The sweep over lambda, cascaded_td", "", table(header, rows, right=range(1, 8))])


def variations(every: Sequence[Evidence]) -> str:
    """The comparisons of claims 4, 6 and 7 once more, for every other way in which the cascade was trained."""
    rows = []
    for evidence in (each for newest in every for each in newest.with_older):
        usual = evidence.row("cascaded_td")
        pairs = evidence.variations("cascaded_td")
        if usual is None or not pairs:
            continue
        for row, serial in [(usual, evidence.row("serial_ce")), *pairs]:
            changed = ", ".join(f"{key} {value}" for key, value in row.changed(usual).items()) or "as above"
            cells = [evidence.task, changed]
            if serial is None:
                continue
            mode = "transient_1"
            compared = (
                (row.exit(-1), serial.exit(-1)),
                (row.under_noise("persistent", "onset"), serial.under_noise("persistent", "onset")),
                *((row.under_noise(mode, p), serial.under_noise(mode, "pipelined_mean")) for p in WATCHING),
            )
            for a, b in compared:
                if a is None or b is None:
                    cells.append(NONE)
                    continue
                d = paired_difference(a, b)
                cells.append(estimate(100 * d.value, 100 * d.low, 100 * d.high))
            rows.append([*cells, str(row.seeds)])
    if not rows:
        return ""
    text = (
        "cascaded_td minus serial_ce of the same recipe, in points. Persistent: one noisy frame. The last two: a new "
        "noisy frame every tick, both on the same frames until both are done, the serial net pipelined and averaged."
    )
    header = ("Task", "Trained with", "Last exit", "Persistent noise", "watch", "watch_mean", "Seeds")
    lines = ["## Trained otherwise", "", text, "", table(header, rows, right=range(2, 7))]
    return "\n".join(lines)


def sanity(every: Sequence[Evidence]) -> str:
    lines = []
    for evidence in every:
        td, serial, cascade = (evidence.row(name) for name in ("cascaded_td", "serial_ce", "cascaded_ce"))
        if td and serial:
            gap = 100 * float(td.exit(-1).mean() - serial.exit(-1).mean())
            word = "within" if abs(gap) < 100 * SANE else "NOT within"
            lines.append(
                f"- {evidence.task}: the last exits of cascaded_td and serial_ce differ by {gap:+.1f} points, {word} "
                f"{100 * SANE:.0f}."
            )
        if cascade and serial:
            differ, images, seeds = _disagreements(cascade, serial)
            lines.append(
                f"- {evidence.task}: cascaded_ce and serial_ce, the same weights, answer differently at the last "
                f"exit on {differ:,} of {images:,} images ({seeds} seeds)."
            )
    return "\n".join(["## Sanity", "", *lines]) if lines else ""


def _disagreements(a: Row, b: Row) -> tuple[int, int, int]:
    """Images on which the last answers of equal seeds differ, of how many, over how many seeds."""
    others = {entry.seed: entry for entry in b.trained}
    differ = images = seeds = 0
    for entry in a.trained:
        if entry.seed not in others:
            continue
        answers = [
            np.asarray(store.load_arrays(each.path, each.record, ("test_predictions",))["test_predictions"][-1])
            for each in (entry, others[entry.seed])
        ]
        differ += int((answers[0] != answers[1]).sum())
        images += len(answers[0])
        seeds += 1
    return differ, images, seeds
