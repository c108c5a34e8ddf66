"""Tables that verbs print on standard output."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anytime_bench.records.compare import Comparison


def print_comparison(result: Comparison) -> None:
    """A minus B: one table of scores, one of transient noise where both have it, then the notes."""
    console = Console(highlight=False)
    table = Table(title=f"A = {result.a}   B = {result.b}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("score")
    for name in ("A", "B", "A - B", "95 % interval"):
        table.add_column(name, justify="right")
    table.add_column("A is")
    for row in result.rows:
        gap = row.difference
        interval = f"[{gap.low:+.4f}, {gap.high:+.4f}]"
        table.add_row(escape(row.score), f"{row.a:.4f}", f"{row.b:.4f}", f"{gap.value:+.4f}", interval, gap.verdict)
    console.print(table)
    if result.noise:
        title = "Transient noise, a fresh frame per tick: A stateful minus B pipelined with a running mean"
        noise = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("policy of A", "moment", "kind", "A - B", "95 % interval", "A is"):
            noise.add_column(name, justify="right" if name in ("A - B", "95 % interval") else "left", no_wrap=True)
        for entry in result.noise:
            interval = f"[{entry['low']:+.4f}, {entry['high']:+.4f}]"
            names = (entry[key].replace("_", " ") for key in ("policy", "moment"))
            noise.add_row(*names, entry["kind"], f"{entry['value']:+.4f}", interval, entry["verdict"])
        console.print(noise)
    for note in result.notes:
        console.print(note, markup=False)
