"""The lines of ``doctor --gpu``: what was looked at, what came out, what had been predicted; one table, one JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["holds", "FAILS", "measured", "skipped"]


@dataclass(frozen=True)
class Line:
    """One finding. ``correctness`` lines that fail make the whole examination fail; ``values`` are for the JSON."""

    section: str
    what: str
    measured: str
    expected: str = ""
    predicted: str = ""
    verdict: Verdict = "measured"
    correctness: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)


def judged(section: str, what: str, measured: str, expected: str, good: bool, **rest: Any) -> Line:
    """A line about something that must hold."""
    return Line(section, what, measured, expected, verdict="holds" if good else "FAILS", **rest)


def failed(lines: Sequence[Line]) -> bool:
    return any(line.correctness and line.verdict == "FAILS" for line in lines)


def table(title: str, lines: Sequence[Line], seconds: float) -> str:
    """Everything as Markdown."""
    rows = ["section", "what", "measured", "expected", "predicted", "verdict"], ["---"] * 6
    body = [[line.section, line.what, line.measured, line.expected, line.predicted, line.verdict] for line in lines]
    text = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (*rows, *body)]
    counts = {verdict: sum(line.verdict == verdict for line in lines) for verdict in ("holds", "FAILS", "skipped")}
    end = f"{counts['holds']} hold, {counts['FAILS']} fail, {counts['skipped']} skipped; {seconds:.0f} s in all."
    return (
        "\n".join([f"# {title}", "", *text, "", f"{end} Times are medians; intervals are 95 %, block bootstrap."])
        + "\n"
    )


def as_json(machine: Mapping[str, Any], lines: Sequence[Line], seconds: float) -> dict[str, object]:
    """The same for machines."""
    return {
        "machine": dict(machine),
        "seconds": seconds,
        "failed": failed(lines),
        "lines": [asdict(line) for line in lines],
    }


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
