"""Tables that verbs print on standard output."""

from __future__ import annotations

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from anytime_bench.leaderboard.tables import Table as Shown
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
            gap = entry.difference
            names = (name.replace("_", " ") for name in (entry.policy, entry.moment, entry.kind))
            noise.add_row(*names, f"{gap.value:+.4f}", f"[{gap.low:+.4f}, {gap.high:+.4f}]", gap.verdict)
        console.print(noise)
    for note in result.notes:
        console.print(note, markup=False)


def print_table(shown: Shown) -> None:
    """One table of the board's kind, values without their intervals."""
    table = Table(title=shown.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in shown.columns:
        room = max(map(len, column.title.split()))  # no word of a title is torn
        justify: JustifyMethod = "left" if column.is_text else "right"
        table.add_column(escape(column.title), justify=justify, overflow="fold", min_width=room)
    for line in range(len(shown.places)):
        table.add_row(*(escape(shown.cell(line, column).text) for column in shown.columns))
    Console(highlight=False).print(table)
