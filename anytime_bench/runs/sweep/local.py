"""Sweeps: many runs, one process each, nothing lost. Trainings side by side, timings one at a time, at the end.

``sweep`` plans, runs what is missing and returns what became of every run. Whatever ends a job, its record is either
whole in the store or not there, and its checkpoint is that of the last finished epoch: the same command again does
what is left. Two sweeps on one folder share the work through lock files. torch is only imported by the processes.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from anytime_bench.errors import UserError
from anytime_bench.runs.sweep.display import Overview, plan_lines, plan_table, summary_table
from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.jobs import Job, finished_record
from anytime_bench.runs.sweep.planning import SweepPlan, plan_apart
from anytime_bench.runs.sweep.workers import Place, Worker, places

#: Seconds after which a job that another sweep had in hand is looked at again.
ASK_AGAIN = 1.0


@dataclass
class Outcome:
    """What became of one run. ``seconds`` is the time its jobs took; ``log`` the last job's log file."""

    method: str
    task: str
    seed: int
    status: Literal["ok", "cached", "skipped", "failed"]
    reason: str = ""
    record: str = ""
    seconds: float = 0.0
    log: str = ""


@dataclass
class JobEnd:
    """How one job ended, as far as the runs that need it are concerned."""

    status: str
    reason: str = ""
    record: str = ""
    seconds: float = 0.0
    log: str = ""


def sweep(grid: Grid, console: Console | None = None, *, dry_run: bool = False) -> list[Outcome]:
    """Do what ``grid`` asks for on this machine and return one outcome per run, in order.

    Raises ``UserError`` for bad input, before any run, and with ``existing="error"`` where a run exists.
    """
    console = console or Console(stderr=True, highlight=False)
    plan = plan_apart(grid)
    slots = places(grid.jobs, grid.gpus)
    show_plan(plan, console, len(slots), spread(slots))
    if not dry_run:
        with Overview(console, len(plan.jobs)) as overview:
            ends = Runner(plan, grid, slots, overview).run()
        outcomes = gather(plan, ends)
        show_summary(outcomes, grid, console)
        return outcomes
    return gather(plan, {})


def show_plan(plan: SweepPlan, console: Console, slots: int, how: str) -> None:
    """Print the plan; refuse it where runs exist and must not."""
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


def spread(slots: Sequence[Place]) -> str:
    labels = list(dict.fromkeys(place.label for place in slots))
    return f"{len(slots)} at a time ({', '.join(labels)}{' each' if len(slots) > 1 else ''}), timings one by one"


class Runner:
    """Starts jobs whose needs are met, as many as there are places, and keeps how each ended."""

    def __init__(self, plan: SweepPlan, grid: Grid, slots: Sequence[Place], overview: Overview) -> None:
        self.plan, self.grid, self.slots, self.overview = plan, grid, list(slots), overview
        self.waiting: deque[tuple[float, Job]] = deque((0.0, job) for job in plan.jobs.values())
        self.running: list[Worker] = []
        self.free = deque(self.slots)
        self.ends: dict[str, JobEnd] = {}

    def run(self) -> dict[str, JobEnd]:
        """All jobs to their end. Interrupted, it stops every process it started."""
        try:
            while self.waiting or self.running:
                self._start_ready()
                for worker in list(self.running):
                    if worker.poll(self.grid.time_limit):
                        self._end(worker)
                self.overview.update([worker.progress() for worker in self.running])
                time.sleep(0.05)
        except BaseException:
            for worker in self.running:
                worker.stop("interrupted")
                worker.close()
            raise
        return self.ends

    def _start_ready(self) -> None:
        now = time.monotonic()
        for _ in range(len(self.waiting)):
            not_before, job = self.waiting.popleft()
            missing = next((need for need in job.needs if self._failed(need)), None)
            if missing is not None:
                self._settle(job, JobEnd("failed", f"{missing} failed: {self.ends[missing].reason}"))
            elif now < not_before or not self._may_start(job):
                self.waiting.append((not_before, job))
            elif (done := self._done_elsewhere(job)) is not None:
                self._settle(job, done)
            else:
                self._start(job)

    def _failed(self, name: str) -> bool:
        return name in self.ends and self.ends[name].status == "failed"

    def _may_start(self, job: Job) -> bool:
        """Needs met and a place free. What wants the machine alone starts when no other kind of job is left."""
        if any(need not in self.ends for need in job.needs):
            return False
        if job.alone:
            return not self.running and all(each.alone for _, each in self.waiting)
        return bool(self.free) and not any(worker.job.alone for worker in self.running)

    def _done_elsewhere(self, job: Job) -> JobEnd | None:
        """The end of a job whose work is done already, by another sweep on this folder or an earlier one."""
        if job.outcome and Path(job.outcome).exists():
            return JobEnd("ok")
        record = finished_record(job)
        return JobEnd("ok", record=record) if record else None

    def _start(self, job: Job) -> None:
        place = dataclasses.replace(self.slots[0], threads=0) if job.alone else self.free.popleft()
        log = log_path(self.grid.out, job)
        try:
            self.running.append(Worker.start(job, place, log))
        except OSError as error:
            if not job.alone:
                self.free.append(place)
            self._settle(job, JobEnd("failed", f"cannot start with log '{log}': {error.strerror or error}"))

    def _end(self, worker: Worker) -> None:
        self.running.remove(worker)
        if not worker.job.alone:
            self.free.append(worker.place)
        verdict = worker.verdict()
        if verdict["status"] == "busy":
            self.waiting.append((time.monotonic() + ASK_AGAIN, worker.job))
            return
        self._settle(worker.job, JobEnd(**verdict, seconds=worker.seconds, log=str(worker.log)))

    def _settle(self, job: Job, end: JobEnd) -> None:
        self.ends[job.name] = end
        seconds = f" after {end.seconds:.1f} s" if end.seconds else ""
        self.overview.finished(f"{job.name}: {end.status}{seconds}{': ' + end.reason if end.reason else ''}")


def log_path(out: str, job: Job) -> Path:
    """``<out>/logs/<task>/<method>-seed<seed>.log``; the jobs of one run share it, in order."""
    task, method = (part.replace("/", "-").replace(":", "-") for part in (job.task, job.method))
    return Path(out) / "logs" / task / f"{method}-seed{job.seed}.log"


def gather(plan: SweepPlan, ends: dict[str, JobEnd]) -> list[Outcome]:
    """What became of each run, from the ends of its jobs; runs without any end are left out."""
    outcomes = []
    for cell in plan.cells:
        outcome = Outcome(cell.method, cell.task, cell.seed, "ok", cell.why, cell.record)
        if cell.state == "cached":
            outcome.status = "cached"
        elif cell.state == "skip":
            outcome.status = "skipped"
        else:
            done = [ends[name] for name in cell.jobs if name in ends]
            if not done:
                continue
            # The first failure is the cause; those after it only repeat it.
            last = next((end for end in done if end.status == "failed"), done[-1])
            outcome.status = "failed" if last.status == "failed" else "skipped" if last.status == "skipped" else "ok"
            outcome.reason, outcome.record = last.reason, last.record
            outcome.seconds, outcome.log = sum(end.seconds for end in done), last.log
        outcomes.append(outcome)
    return outcomes


def repeat_command(grid: Grid, outcomes: Sequence[Outcome]) -> str:
    """The command that does just the failed runs again; empty where none failed."""
    failed = [each for each in outcomes if each.status == "failed"]
    if not failed:
        return ""
    names = {key: ",".join(dict.fromkeys(getattr(each, key) for each in failed)) for key in ("method", "task")}
    seeds = ",".join(str(seed) for seed in dict.fromkeys(each.seed for each in failed))
    parts = ["anytime-bench", "sweep", "--methods", names["method"], "--tasks", names["task"], "--seeds", seeds]
    product = len(dict.fromkeys(e.method for e in failed)) * len(dict.fromkeys(e.task for e in failed))
    if product * len(dict.fromkeys(e.seed for e in failed)) > len(failed):
        parts += [piece for e in failed for piece in ("--only", f"{e.method}@{e.task}@{e.seed}")]
    given = {
        "--out": grid.out if grid.out != "runs" else "",
        "--device": grid.device if grid.device != "auto" else "",
        "--data-root": grid.data_root or "",
        "--recipe": grid.recipe or "",
        "--jobs": str(grid.jobs or ""),
        "--gpus": ",".join(grid.gpus),
        "--time-limit": f"{grid.time_limit:g}" if grid.time_limit else "",
        "--memory-limit": f"{grid.memory_limit:g}" if grid.memory_limit else "",
    }
    parts += [piece for option, value in given.items() if value for piece in (option, value)]
    parts += [piece for plugin in grid.plugins for piece in ("--plugin", plugin)]
    return shlex.join([*parts, *grid.overrides])


def show_summary(outcomes: Sequence[Outcome], grid: Grid, console: Console) -> None:
    """The table of results, the logs of what failed, and the command that repeats just that."""
    console.print(summary_table(outcomes))
    for each in outcomes:
        if each.status == "failed" and each.log:
            console.print(f"log of {each.method}@{each.task}@{each.seed}: {each.log}", soft_wrap=True, markup=False)
    again = repeat_command(grid, outcomes)
    if again:
        console.print(f"repeat what failed with\n  {again}", soft_wrap=True, markup=False)
