"""What a person sees of a sweep: the plan, jobs as they go, the summary. All of it on standard error.

On a terminal the running jobs are a live table; elsewhere each start and end is a line.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anytime_bench.runs.display import Display

if TYPE_CHECKING:
    from anytime_bench.runs.sweep.local import Outcome
    from anytime_bench.runs.sweep.planning import SweepPlan
    from anytime_bench.training.loop import TrainingStep

STATE_COLOURS = {"new": "green", "cached": "dim", "skip": "yellow", "refused": "red"}
OUTCOME_COLOURS = {"ok": "green", "cached": "dim", "skipped": "yellow", "failed": "red"}


class JobDisplay(Display):
    """The display inside a job: a log on standard output, and each training step reported to the sweep."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(Console(width=100, highlight=False))
        self.report = report

    @contextlib.contextmanager
    def training(self, name: str, epochs: int) -> Iterator[Callable[[TrainingStep], None]]:
        from anytime_bench.runs.sweep.jobs import training_event

        with super().training(name, epochs) as shown:

            def on_step(step: TrainingStep) -> None:
                shown(step)
                self.report(training_event(step))

            yield on_step


def plan_table(plan: SweepPlan) -> Table:
    """One row per run: new, cached, skipped and why, the training time to expect."""
    table = Table(title="Plan", box=None, pad_edge=False)
    for name in ("method", "task", "seed", "state", "training", "note"):
        table.add_column(name, overflow="fold")
    for cell in plan.cells:
        time_expected = duration(cell.seconds) if cell.state == "new" and cell.seconds is not None else "-"
        note = cell.why or cell.record.rpartition("/")[2][:12]
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
    shared = sum(job.until == "trained" for job in plan.jobs.values())
    if shared:
        lines.append(f"{shared} trainings are shared by several runs and done once")
    return lines


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Summary", box=None, pad_edge=False)
    for name in ("method", "task", "seed", "result", "seconds", "reason or record"):
        table.add_column(name, overflow="fold")
    for each in outcomes:
        note = each.reason or each.record.rpartition("/")[2][:12]
        colour = OUTCOME_COLOURS[each.status]
        seconds = f"{each.seconds:.0f}" if each.seconds else "-"
        table.add_row(each.method, each.task, str(each.seed), f"[{colour}]{each.status}[/]", seconds, note)
    return table


class Overview:
    """The live table of running jobs with a count and the time left; or lines, where there is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0
        self.began = time.monotonic()
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

    def update(self, running: Sequence[Mapping[str, Any]]) -> None:
        """``running``: name, place, state and share in [0, 1] or None, seconds so far, of each job."""
        if self._live is None:
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        for job in running:
            percent = "" if job["share"] is None else f"{100 * job['share']:3.0f} %"
            table.add_row(job["name"], job["place"], job["state"], percent, duration(job["seconds"]))
        began = sum(job["share"] or 0.0 for job in running)
        share = (self.done + began) / max(self.total, 1)
        passed = time.monotonic() - self.began
        left = f", about {duration(passed * (1 - share) / share)} left" if share > 0.02 else ""
        self._live.update(Group(Text(f"{self.done} of {self.total} jobs done, {duration(passed)}{left}"), table))


def duration(seconds: float) -> str:
    """``75`` -> ``1m15s``.

    >>> duration(4.2), duration(75), duration(7300)
    ('4s', '1m15s', '2h01m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
