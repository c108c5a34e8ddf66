"""Sweeps: many runs, one process each, nothing lost. Trainings side by side, timings one at a time, at the end.

``sweep`` plans, runs what is missing and returns what became of every run. Whatever ends a job, its record is either
whole in the store or not there, and its checkpoint is that of the last finished epoch: the same command again does
what is left. Two sweeps on one folder share the work through lock files. torch is only imported by the processes.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from anytime_bench.errors import UserError
from anytime_bench.files import safe_name
from anytime_bench.runs.disk import check_writable
from anytime_bench.runs.sweep.display import Overview, show_plan, show_summary, spread
from anytime_bench.runs.sweep.existing import finished_record
from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.jobs import Job, JobEnd, Outcome, SweepPlan
from anytime_bench.runs.sweep.workers import Slot, Worker, slots_for

#: Seconds after which a job whose work another sweep does is looked at again.
ASK_AGAIN = 1.0


def sweep(grid: Grid, console: Console | None = None, *, dry_run: bool = False) -> list[Outcome]:
    """Do what ``grid`` asks for on this machine and return one outcome per run, in order.

    Raises ``UserError`` for bad input or a disk that takes nothing, before any run, and with ``existing="error"`` where
    a run exists.
    """
    console = console or Console(stderr=True, highlight=False)
    plan = plan_in_subprocess(grid)
    slots = slots_for(grid.jobs, grid.gpus)
    show_plan(plan, console, len(slots), spread(slots))
    if dry_run:
        return plan.outcomes({})
    if plan.jobs:
        check_writable(Path(grid.out))
    with Overview(console, len(plan.jobs)) as overview:
        ends = Runner(plan, grid, slots, overview).run()
    outcomes = plan.outcomes(ends)
    show_summary(outcomes, grid, console)
    return outcomes


def plan_in_subprocess(grid: Grid, launcher: Iterable[str] = ()) -> SweepPlan:
    """The plan of ``grid``, made by another process, so that neither a plugin nor a GPU context stays in this one.

    ``launcher`` goes before the command, to plan on another machine.
    """
    planner = subprocess.run(
        [*launcher, sys.executable, "-m", "anytime_bench.runs.sweep.planning"],
        input=grid.to_json(), capture_output=True, text=True,
    )  # fmt: skip
    sys.stderr.write(planner.stderr)
    if planner.returncode == 2:
        raise UserError(planner.stdout.strip())
    if planner.returncode != 0 or not planner.stdout.strip():
        raise UserError(
            f"planning ended with status {planner.returncode} and no plan: a plugin ends the process when it is "
            "imported."
        )
    return SweepPlan.from_json(planner.stdout.splitlines()[-1])


class Runner:
    """Starts jobs whose needs are met, as many as there are slots, and keeps how each ended."""

    def __init__(self, plan: SweepPlan, grid: Grid, slots: Sequence[Slot], overview: Overview) -> None:
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
                self.overview.update(self.running)
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
            elif (end := self._done_elsewhere(job)) is not None:
                self._settle(job, end)
            else:
                self._start(job)

    def _failed(self, name: str) -> bool:
        return name in self.ends and self.ends[name].status == "failed"

    def _may_start(self, job: Job) -> bool:
        """Needs met and a slot free. What wants the machine to itself starts when no other kind of job is left."""
        if any(need not in self.ends for need in job.needs):
            return False
        if job.exclusive:
            return not self.running and all(each.exclusive for _, each in self.waiting)
        return bool(self.free) and not any(worker.job.exclusive for worker in self.running)

    def _done_elsewhere(self, job: Job) -> JobEnd | None:
        """The end of a job whose work is done already, by another sweep on this folder or an earlier one."""
        if job.done_file and Path(job.done_file).exists():
            return JobEnd("ok")
        record = finished_record(job)
        return JobEnd("ok", record=record) if record else None

    def _start(self, job: Job) -> None:
        slot = dataclasses.replace(self.slots[0], threads=0) if job.exclusive else self.free.popleft()
        log = log_path(self.grid.out, job)
        try:
            self.running.append(Worker.start(job, slot, log))
        except OSError as error:
            if not job.exclusive:
                self.free.append(slot)
            self._settle(job, JobEnd("failed", f"cannot start with log '{log}': {error.strerror or error}"))

    def _end(self, worker: Worker) -> None:
        self.running.remove(worker)
        if not worker.job.exclusive:
            self.free.append(worker.slot)
        end = worker.ended()
        if end.status == "busy":
            self.waiting.append((time.monotonic() + ASK_AGAIN, worker.job))
        else:
            self._settle(worker.job, end)

    def _settle(self, job: Job, end: JobEnd) -> None:
        self.ends[job.name] = end
        seconds = f" after {end.seconds:.1f} s" if end.seconds else ""
        self.overview.finished(f"{job.name}: {end.status}{seconds}{': ' + end.reason if end.reason else ''}")


def log_path(out: str, job: Job) -> Path:
    """``<out>/logs/<task>/<method>-seed<seed>.log``; the jobs of one run share it, in order."""
    return Path(out) / "logs" / safe_name(job.task) / f"{safe_name(job.method)}-seed{job.seed}.log"
