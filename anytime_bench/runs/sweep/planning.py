"""From a grid to jobs: what exists, what is skipped and why, what has to be trained once for several runs.

The plan is a small graph. Nodes are jobs, edges say whose weights a job needs. Equal weights (one method, options,
recipe, data and seed) are trained by one job, however many runs evaluate them. A run whose times are asked for ends in
a job of its own that has the machine to itself; without timing one job does it all.

Planning imports plugins and torch, so a sweep runs this module in a process of its own. Raises ``UserError``.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import JsonValue

from anytime_bench.errors import UserError, message
from anytime_bench.files import short_hash
from anytime_bench.harness.environment import capture
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records.entries import Entry
from anytime_bench.records.record import PROTOCOL_VERSION, finite
from anytime_bench.runs.guard import guarded
from anytime_bench.runs.plan import (
    ResolvedMethod,
    of_reference,
    pick_device,
    reason_to_skip,
    resolve,
    resolve_reference,
)
from anytime_bench.runs.sweep.existing import identity_of, stored_records
from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.jobs import Cell, Job, RunIdentity, SweepPlan, Until
from anytime_bench.tasks.loading import load_task
from anytime_bench.tasks.task import Task
from anytime_bench.training.config import parsed_overrides
from anytime_bench.training.recipes import recipe_for


def plan_sweep(grid: Grid) -> SweepPlan:
    """Resolve every run of ``grid``, look for its record, and lay out the jobs for the rest."""
    for plugin in grid.plugins:
        with guarded():
            load_plugin(plugin)
    planner = _Planner(grid, pick_device(grid.device))
    cells = []
    for cell in grid.cells():
        with guarded():
            cells.append(planner.cell(*cell))
    return SweepPlan(cells, planner.jobs, planner.warnings)


class _Planner:
    """Collects jobs while the runs are gone through; a training asked for twice is the same job."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self.grid, self.device = grid, device
        self.device_name = str(capture(device)["device_class"])
        self.rerun = grid.existing == "rerun"
        self.jobs: dict[str, Job] = {}
        self.warnings: list[str] = []
        self._tasks: dict[str, Task] = {}
        self._stored: dict[tuple[str, str], list[Entry]] = {}
        #: The job that makes each folder of weights.
        self._trainer: dict[Path, str] = {}

    def cell(self, method: str, task_name: str, seed: int) -> Cell:
        """One run of the sweep; the jobs that make it are added where it does not exist."""
        task = self._task(task_name)
        recipe = recipe_for(task.card.name, self.grid.recipe, self.device.type, task.card.shape)
        values = parsed_overrides(self.grid.overrides)
        reference = resolve_reference(recipe, values)
        resolved = resolve(method, recipe, {key: value for key, value in values.items() if not of_reference(key)})
        cell = Cell(method, task_name, seed, "new", command=self._command(method, task_name, seed))
        reason = reason_to_skip(resolved, task)
        if reason:
            cell.state, cell.why = "skip", reason
            return cell
        cell.identity = identity(resolved, reference, task, seed, self.device_name)
        entries = self._records(task.card.name, method)
        existing = next((entry for entry in entries if identity_of(entry.record) == cell.identity), None)
        cell.seconds = expected_seconds(resolved, entries)
        if existing is not None and not self.rerun:
            cell.state = "refused" if self.grid.existing == "error" else "cached"
            cell.record = str(existing.path)
            return cell
        if existing is not None:
            cell.why = "exists, runs again"
        if self.grid.train_only:
            cell.jobs = list(self._trainings(resolved, cell, task))
            cell.state, cell.why = ("new", cell.why) if cell.jobs else ("cached", "trained already")
        else:
            self._lay_out(cell, resolved, task)
        return cell

    def _task(self, name: str) -> Task:
        if name not in self._tasks:
            self._tasks[name] = load_task(name, self.grid.data_root)
        return self._tasks[name]

    def _records(self, task: str, method: str) -> list[Entry]:
        if (task, method) not in self._stored:
            self._stored[task, method] = stored_records(
                Path(self.grid.out), task, self.device_name, method, self.warnings.append
            )
        return self._stored[task, method]

    def _lay_out(self, cell: Cell, resolved: ResolvedMethod, task: Task) -> None:
        """Add the jobs of a new run: the trainings it takes weights from, its own work, its timing."""
        timed = resolved.config.evaluation.timing_rounds > 0
        overrides = parsed_overrides(self.grid.overrides)
        needs: tuple[str, ...] = ()
        if resolved.weights_source is not None:
            needs = self._trainings(resolved.weights_source, cell, task)
        own = self._folder(resolved, task, cell.seed)
        trains = resolved.trained_by is resolved
        if trains and own in self._trainer:
            # A run that takes over these weights has asked for this training: this job goes on from its weights.
            needs, trains = (self._trainer[own],), False
        work = self._add(
            cell, resolved.name, "prepared" if timed else "record", overrides, needs=needs,
            locks=(f"run-{short_hash([cell.name, cell.identity])}", *[_training_lock(own)] * trains),
            resume=not trains or not self.rerun,
        )  # fmt: skip
        if trains:
            self._trainer[own] = work.name
        cell.jobs = [work.name]
        if timed:
            timing = self._add(
                cell, resolved.name, "record", overrides, needs=(work.name,), locks=work.locks[:1], exclusive=True
            )
            cell.jobs.append(timing.name)

    def _trainings(self, source: ResolvedMethod, cell: Cell, task: Task) -> tuple[str, ...]:
        """The job that makes ``source``'s weights, new or known; nothing where they lie there finished."""
        folder = self._folder(source, task, cell.seed)
        if folder in self._trainer:
            return (self._trainer[folder],)
        before: tuple[str, ...] = ()
        if source.weights_source is not None:
            before = self._trainings(source.weights_source, cell, task)
            if source.method.weights_from:
                return before
        weights = folder / "weights.safetensors"
        if weights.exists() and not self.rerun:
            return before
        job = self._add(
            cell, source.name, "trained", {**source.overrides, **self._of_reference()}, needs=before,
            locks=(_training_lock(folder),),
            done_file="" if self.rerun else str(weights), resume=not self.rerun,
        )  # fmt: skip
        self._trainer[folder] = job.name
        return (job.name,)

    def _of_reference(self) -> dict[str, JsonValue]:
        """The overrides that choose the reference: a source's own do not hold them."""
        values = parsed_overrides(self.grid.overrides)
        return {key: value for key, value in values.items() if of_reference(key)}

    def _folder(self, resolved: ResolvedMethod, task: Task, seed: int) -> Path:
        return resolved.folder(Path(self.grid.out), self.device_name, task, seed)

    def _add(
        self, cell: Cell, method: str, until: Until, overrides: dict[str, JsonValue], *, needs: tuple[str, ...],
        locks: tuple[str, ...], exclusive: bool = False, resume: bool = True, done_file: str = "",
    ) -> Job:  # fmt: skip
        """Add one job for ``cell``."""
        grid = self.grid
        verb = {"trained": "train", "prepared": "train", "record": "time" if exclusive else "run"}[until]
        job = Job(
            name=f"{verb} {method}@{cell.task}@{cell.seed}",
            until=until,
            method=method,
            task=cell.task,
            seed=cell.seed,
            overrides=overrides,
            plugins=tuple(grid.plugins),
            out=grid.out,
            device=grid.device,
            data_root=grid.data_root,
            recipe=grid.recipe,
            resume=resume,
            exclusive=exclusive,
            needs=needs,
            locks=locks,
            done_file=done_file,
            identity=cell.identity if until != "trained" and not self.rerun else None,
            stored_task=self._task(cell.task).card.name,
            command=cell.command,
            memory_limit=grid.memory_limit,
        )
        if job.name in self.jobs:
            job = dataclasses.replace(job, name=f"{job.name} for {cell.method}")
        self.jobs[job.name] = job
        return job

    def _command(self, method: str, task: str, seed: int) -> str:
        """The single run that makes the same record."""
        parts = ["anytime-bench", "run", "--method", method, "--task", task, "--seed", str(seed)]
        return shlex.join([*parts, *self.grid.shared_options(), *self.grid.overrides])


def identity(resolved: ResolvedMethod, reference: ResolvedMethod, task: Task, seed: int, device: str) -> RunIdentity:
    """What a record must show to count as this run."""
    evaluation: dict[str, JsonValue] = finite(dataclasses.asdict(resolved.config.evaluation))
    return RunIdentity(
        method=resolved.name,
        origin=resolved.origin.identity,
        options=resolved.options,
        recipe_sha256=resolved.trained_by.config.recipe_sha256(),
        evaluation=evaluation,
        task=task.card.sha256,
        seed=seed,
        device=device,
        protocol=PROTOCOL_VERSION,
        reference=reference.name,
        reference_options=reference.options,
    )


def expected_seconds(resolved: ResolvedMethod, entries: list[Entry]) -> float | None:
    """Training time to expect from earlier records of this method, task and device, by epochs; None without any.

    A method that trains nothing of its own takes none.
    """
    if resolved.method.weights_from:
        return 0.0
    trainings = [entry.record.training for entry in entries if entry.record.training is not None]
    rates = sorted(each.seconds / each.epochs for each in trainings if each.epochs)
    return rates[len(rates) // 2] * resolved.config.training.epochs if rates else None


def _training_lock(folder: Path) -> str:
    return f"weights-{folder.parent.name}-{folder.name}"


def main(plan: Callable[[Grid], SweepPlan] = plan_sweep) -> int:
    """A grid as JSON on standard input, its plan as the last line of standard output; status 2 for bad input."""
    try:
        made = plan(Grid.from_json(sys.stdin.read()))
    except UserError as error:
        print(message(error))
        return 2
    print(made.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
