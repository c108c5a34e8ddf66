"""What a person sees of a sweep: the plan, jobs as they go, the summary. All of it on standard error.

On a terminal the running jobs are a live table; elsewhere each end is a line, and each long wait for the machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anytime_bench.errors import UserError
from anytime_bench.runs.progress import duration
from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.jobs import Outcome, SweepPlan
from anytime_bench.runs.sweep.workers import Slot, Worker

STATE_COLOURS = {"new": "green", "cached": "dim", "skip": "yellow", "refused": "red"}
#: Without a live table, a job that waits so long for the machine is worth a line.
LONG_WAIT = 10.0
OUTCOME_COLOURS = {"ok": "green", "cached": "dim", "skipped": "yellow", "failed": "red"}


def show_plan(plan: SweepPlan, console: Console, slots: int, how: str) -> None:
    """Print the plan; raise ``UserError`` where runs exist and must not."""
    for warning in plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True, markup=False)
    console.print(plan_table(plan))
    for line in plan_lines(plan, slots, how):
        console.print(line, soft_wrap=True, markup=False)
    refused = [cell for cell in plan.cells if cell.state == "refused"]
    if refused:
        raise UserError(
            f"{len(refused)} of these runs exist, first {refused[0].name} in '{refused[0].record}'. "
            "Leave them out, or use --existing skip or rerun."
        )


def plan_table(plan: SweepPlan) -> Table:
    """One row per run: new, cached, skipped and why, the training time to expect."""
    table = Table(title="Plan", box=None, pad_edge=False)
    for name in ("method", "task", "seed", "state", "training", "note"):
        table.add_column(name, overflow="fold")
    for cell in plan.cells:
        time_expected = duration(cell.seconds) if cell.state == "new" and cell.seconds is not None else "-"
        note = Text(cell.why or cell.record.rpartition("/")[2][:12])
        colour = STATE_COLOURS[cell.state]
        table.add_row(cell.method, cell.task, str(cell.seed), f"[{colour}]{cell.state}[/]", time_expected, note)
    return table


def plan_lines(plan: SweepPlan, slots: int, how: str) -> list[str]:
    """How many runs of each state, how they are spread, and how long that will take as far as it is known."""
    counts = {state: sum(cell.state == state for cell in plan.cells) for state in STATE_COLOURS}
    lines = [", ".join(f"{count} {state}" for state, count in counts.items() if count) + f"; {how}"]
    new = [cell for cell in plan.cells if cell.state == "new"]
    known = [cell.seconds for cell in new if cell.seconds is not None]
    if known:
        unknown = len(new) - len(known)
        rest = f", {unknown} runs not counted: no earlier record to go by" if unknown else ""
        lines.append(f"training takes about {duration(sum(known) / max(slots, 1))} by earlier records{rest}")
    needed = {need for job in plan.jobs.values() for need in job.needs}
    shared = sum(job.until == "trained" and name in needed for name, job in plan.jobs.items())
    if shared:
        lines.append(f"{shared} trainings are shared by several runs and done once")
    return lines


def spread(slots: Sequence[Slot]) -> str:
    """How many jobs run at a time, and on what."""
    labels = list(dict.fromkeys(slot.label for slot in slots))
    return f"{len(slots)} at a time ({', '.join(labels)}{' each' if len(slots) > 1 else ''}), timings one by one"


def show_summary(outcomes: Sequence[Outcome], grid: Grid, console: Console) -> None:
    """The table of results, the logs of what failed, and the command that repeats just that."""
    console.print(summary_table(outcomes))
    for each in outcomes:
        if each.status == "failed" and each.log:
            console.print(f"log of {each.name}: {each.log}", soft_wrap=True, markup=False)
    again = grid.repeat_command(outcomes)
    if again:
        console.print(f"repeat what failed with\n  {again}", soft_wrap=True, markup=False)


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Summary", box=None, pad_edge=False)
    for name in ("method", "task", "seed", "result", "seconds", "reason or record"):
        table.add_column(name, overflow="fold")
    for each in outcomes:
        note = Text(each.reason or each.record.rpartition("/")[2][:12])
        colour = OUTCOME_COLOURS[each.status]
        seconds = f"{each.seconds:.0f}" if each.seconds else "-"
        table.add_row(each.method, each.task, str(each.seed), f"[{colour}]{each.status}[/]", seconds, note)
    return table


class Overview:
    """The live table of running jobs with a count and the time left; or lines, where there is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0
        self.began = time.monotonic()
        self._said_to_wait: set[str] = set()
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Overview:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def finished(self, text: str) -> None:
        self.done += 1
        self.say(f"[{self.done}/{self.total}] {text}")

    def update(self, running: Sequence[Worker]) -> None:
        """Show the jobs that run now."""
        if self._live is None:
            self._say_who_waits(running)
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        for worker in running:
            percent = "" if worker.share is None else f"{100 * worker.share:3.0f} %"
            table.add_row(worker.job.name, worker.slot.label, worker.state, percent, duration(worker.seconds))
        begun = sum(worker.share or 0.0 for worker in running)
        share = (self.done + begun) / max(self.total, 1)
        passed = time.monotonic() - self.began
        left = f", about {duration(passed * (1 - share) / share)} left" if share > 0.02 else ""
        self._live.update(Group(Text(f"{self.done} of {self.total} jobs done, {duration(passed)}{left}"), table))

    def _say_who_waits(self, running: Sequence[Worker]) -> None:
        for worker in running:
            if worker.waits and worker.seconds > LONG_WAIT and worker.job.name not in self._said_to_wait:
                self._said_to_wait.add(worker.job.name)
                self.say(f"{worker.job.name} waits until nothing else is trained or timed on this machine")
