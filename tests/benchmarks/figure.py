"""What a benchmark says of one thing that must hold, and a table of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``measured`` says ``value`` in words and what disturbed it; ``holds`` whether it meets ``target``."""

    section: str
    what: str
    target: str
    measured: str
    value: float
    holds: bool

    def __str__(self) -> str:
        return f"{self.section:<12} {'PASS' if self.holds else 'FAIL'}  {self.what}: {self.measured} ({self.target})"


def table(figures: Iterable[Figure]) -> str:
    """Everything as Markdown, one line per figure."""
    rows = [["section", "what", "target", "measured", "holds"], ["---"] * 5]
    rows += [[f.section, f.what, f.target, f.measured, "yes" if f.holds else "NO"] for f in figures]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)
