"""The table of ``profile --load`` on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anytime_bench.runs.load import LoadReport


def print_load(report: LoadReport) -> None:
    """One method under a load: a line per policy, and what it rests on."""
    console = Console(highlight=False)
    title = f"{report.label} on {report.task}: {report.requests} requests, {report.rate:g} per full answer"
    table = Table(title=escape(title), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("policy")
    for name in ("in time", "goodput", "right/s", "mean exit", "wait p50", "p99"):
        table.add_column(name, justify="right")
    for row in report.policies:
        goodput = "-" if row.goodput is None else f"{100 * row.goodput.value:.1f} %"
        rate = "-" if row.right_per_second is None else f"{row.right_per_second:.1f}"
        mean_exit = "-" if row.mean_exit is None else f"{row.mean_exit:.1f}"
        waits = (f"{1e3 * seconds:.2f} ms" for seconds in (row.waited_p50, row.waited_p99))
        table.add_row(row.policy, f"{100 * row.in_time.value:.1f} %", goodput, rate, mean_exit, *waits)
    console.print(table)
    known = f"right or wrong from record {report.record[:12]}" if report.record else "no record says what is right"
    console.print(
        f"A full answer takes {1e3 * report.full:.2f} ms; deadlines are {report.deadline:g} of them after arrival. "
        f"Times here, with random weights; {known}.",
        markup=False,
    )
