"""From a grid to jobs: what exists, what is skipped and why, what has to be trained once for several runs.

The plan is a small graph. Nodes are jobs, edges say whose weights a job needs. Equal weights (one method, options,
recipe, data and seed) are trained by one job, however many runs evaluate them. A run whose times are asked for ends in
a job of its own that has the machine to itself; without timing one job does it all.

Planning imports plugins and torch, so it happens in a process of its own: ``plan_apart``. Raises ``UserError``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anytime_bench.errors import UserError
from anytime_bench.runs.sweep.existing import Stored, stored_records
from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.jobs import Job

if TYPE_CHECKING:
    import torch

    from anytime_bench.runs.plan import Row
    from anytime_bench.tasks.task import Task

State = Literal["new", "cached", "skip", "refused"]


@dataclass
class Cell:
    """One run of the sweep. ``expected`` identifies its record, ``seconds`` is the training time to expect."""

    method: str
    task: str
    seed: int
    state: State
    why: str = ""
    record: str = ""
    command: str = ""
    expected: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    jobs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.method}@{self.task}@{self.seed}"


@dataclass
class SweepPlan:
    """All runs of a sweep in order, and the jobs that make the missing ones."""

    cells: list[Cell]
    jobs: dict[str, Job]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SweepPlan:
        data = json.loads(text)
        jobs = {name: Job.from_json(json.dumps(job)) for name, job in data["jobs"].items()}
        return cls([Cell(**cell) for cell in data["cells"]], jobs, data["warnings"])


def plan_apart(grid: Grid, launcher: Iterable[str] = ()) -> SweepPlan:
    """``plan_sweep`` in another process, so that neither a plugin nor a GPU context stays in this one.

    ``launcher`` goes before the command, to plan on another machine.
    """
    done = subprocess.run(
        [*launcher, sys.executable, "-m", "anytime_bench.runs.sweep.planning"],
        input=json.dumps(dataclasses.asdict(grid)), capture_output=True, text=True,
    )  # fmt: skip
    sys.stderr.write(done.stderr)
    if done.returncode == 2:
        raise UserError(done.stdout.strip())
    if done.returncode != 0 or not done.stdout.strip():
        raise UserError(
            f"planning ended with status {done.returncode} and no plan: a plugin ends the process when it is imported."
        )
    return SweepPlan.from_json(done.stdout.splitlines()[-1])


def plan_sweep(grid: Grid) -> SweepPlan:
    """Resolve every run of ``grid``, look for its record, and lay out the jobs for the rest."""
    from anytime_bench.methods.plugins import load_plugin
    from anytime_bench.runs.plan import pick_device

    for plugin in grid.plugins:
        load_plugin(plugin)
    maker = _Maker(grid, pick_device(grid.device))
    cells = [maker.cell(*cell) for cell in grid.cells()]
    return SweepPlan(cells, maker.jobs, maker.warnings)


class _Maker:
    """Collects jobs while the runs are gone through; a training asked for twice is the same job."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        from anytime_bench.harness.environment import capture

        self.grid, self.device = grid, device
        self.device_name = str(capture(device)["device_class"])
        self.jobs: dict[str, Job] = {}
        self.warnings: list[str] = []
        self._tasks: dict[str, Task] = {}
        self._stored: dict[tuple[str, str], list[Stored]] = {}
        #: The job that makes each folder of weights.
        self._trainer: dict[Path, str] = {}

    def cell(self, method: str, task_name: str, seed: int) -> Cell:
        from anytime_bench.runs.plan import make_row
        from anytime_bench.tasks.loading import load_task
        from anytime_bench.training.recipes import recipe_for

        grid = self.grid
        if task_name not in self._tasks:
            self._tasks[task_name] = load_task(task_name, grid.data_root)
        task = self._tasks[task_name]
        recipe = recipe_for(task.card.name, grid.recipe, self.device.type)
        row = make_row(method, recipe, grid.overrides)
        cell = Cell(method, task_name, seed, "new", command=self._command(method, task_name, seed))
        reason = row.method.skip(task.card)
        if reason:
            cell.state, cell.why = "skip", reason
            return cell
        cell.expected = identity(row, task, seed, self.device_name)
        stored = self._records(task.card.name, method)
        found = next((each for each in stored if each.is_run(cell.expected)), None)
        cell.seconds = expected_seconds(row, stored)
        if found is not None and grid.existing != "rerun":
            cell.state, cell.record = ("refused" if grid.existing == "error" else "cached"), str(found.path)
            return cell
        if found is not None:
            cell.why = "exists, runs again"
        self._lay_out(cell, row, task, recipe)
        return cell

    def _records(self, task: str, method: str) -> list[Stored]:
        if (task, method) not in self._stored:
            self._stored[task, method] = stored_records(
                Path(self.grid.out), task, self.device_name, method, self.warnings.append
            )
        return self._stored[task, method]

    def _lay_out(self, cell: Cell, row: Row, task: Task, recipe: dict[str, Any]) -> None:
        timed = row.config.evaluation.timing_rounds > 0
        needs: tuple[str, ...] = ()
        if row.lender is not None:
            needs = self._trainings(row.lender, self._lent(row, self.grid.overrides), cell, task, recipe)
        own = self._folder(row, task, cell.seed)
        trains = row.lender is None or not row.method.weights_from
        if trains and own in self._trainer:
            # A borrower seen before this row has already asked for this training: this job goes on from its weights.
            needs, trains = (self._trainer[own],), False
        first = self._job(
            cell, "prepared" if timed else "record", cell.method, self.grid.overrides, needs,
            locks=[f"run-{digest(cell.name, cell.expected)}"] + ([_training_lock(own)] if trains else []),
            resume=not trains or self.grid.existing != "rerun",
        )  # fmt: skip
        if trains:
            self._trainer[own] = first.name
        cell.jobs = [first.name]
        if timed:
            last = self._job(
                cell, "record", cell.method, self.grid.overrides, (first.name,), locks=list(first.locks[:1]),
                alone=True,
            )  # fmt: skip
            cell.jobs.append(last.name)

    def _trainings(
        self, lender: Row, overrides: list[str], cell: Cell, task: Task, recipe: dict[str, Any]
    ) -> tuple[str, ...]:
        """The job that makes ``lender``'s weights, new or known; nothing where they lie there finished."""
        folder = self._folder(lender, task, cell.seed)
        if folder in self._trainer:
            return (self._trainer[folder],)
        before: tuple[str, ...] = ()
        if lender.lender is not None:
            before = self._trainings(lender.lender, self._lent(lender, overrides), cell, task, recipe)
            if lender.method.weights_from:
                return before
        if (folder / "weights.safetensors").exists() and self.grid.existing != "rerun":
            return before
        job = self._job(
            cell, "trained", lender.name, overrides, before, locks=[_training_lock(folder)],
            outcome=str(folder / "weights.safetensors") if self.grid.existing != "rerun" else "",
            resume=self.grid.existing != "rerun",
        )  # fmt: skip
        self._trainer[folder] = job.name
        return (job.name,)

    def _lent(self, borrower: Row, overrides: list[str]) -> list[str]:
        from anytime_bench.methods.plugins import method_class
        from anytime_bench.runs.plan import lendable

        assert borrower.lender is not None
        return lendable(overrides, method_class(borrower.lender.name)[0])

    def _folder(self, row: Row, task: Task, seed: int) -> Path:
        from anytime_bench.runs.plan import weights_path

        return weights_path(Path(self.grid.out), self.device_name, row, task, seed)

    def _job(
        self, cell: Cell, until: Any, method: str, overrides: Iterable[str], needs: tuple[str, ...], *,
        locks: list[str], alone: bool = False, resume: bool = True, outcome: str = "",
    ) -> Job:  # fmt: skip
        grid, again = self.grid, self.grid.existing != "rerun"
        card = self._tasks[cell.task].card.name
        verb = {"trained": "train", "prepared": "train", "record": "time" if alone else "run"}[until]
        job = Job(
            f"{verb} {method}@{cell.task}@{cell.seed}", until, method, cell.task, cell.seed, tuple(overrides),
            tuple(grid.plugins), grid.out, grid.device, grid.data_root, grid.recipe, resume, alone, needs,
            tuple(locks), outcome, cell.expected if again and until != "trained" else {}, card, cell.command,
            grid.memory_limit,
        )  # fmt: skip
        if job.name in self.jobs:
            job = dataclasses.replace(job, name=f"{job.name} for {cell.method}")
        self.jobs[job.name] = job
        return job

    def _command(self, method: str, task: str, seed: int) -> str:
        grid = self.grid
        parts = ["anytime-bench", "run", "--method", method, "--task", task, "--seed", str(seed)]
        parts += ["--out", grid.out] if grid.out != "runs" else []
        parts += ["--device", grid.device] if grid.device != "auto" else []
        parts += ["--data-root", grid.data_root] if grid.data_root else []
        parts += ["--recipe", grid.recipe] if grid.recipe else []
        parts += [piece for plugin in grid.plugins for piece in ("--plugin", plugin)]
        return shlex.join([*parts, *grid.overrides])


def identity(row: Row, task: Task, seed: int, device: str) -> dict[str, Any]:
    """What a record must show to count as this run: see ``sweep_existing.Stored.is_run``."""
    from anytime_bench.records.record import PROTOCOL_VERSION, finite

    trained = row.lender.config if row.method.weights_from and row.lender is not None else row.config
    return {
        "method": row.name,
        "origin": row.origin.identity,
        "options": row.options,
        "recipe_sha256": trained.recipe_sha256(),
        "evaluation": finite(dataclasses.asdict(row.config.evaluation)),
        "task": task.card.sha256,
        "seed": seed,
        "device": device,
        "protocol": PROTOCOL_VERSION,
    }


def expected_seconds(row: Row, stored: list[Stored]) -> float | None:
    """Training time to expect from earlier records of this method, task and device, by epochs; None without any.

    A row that trains nothing of its own takes none.
    """
    if row.method.weights_from:
        return 0.0
    rates = sorted(each.seconds_per_epoch for each in stored if each.seconds_per_epoch)
    return rates[len(rates) // 2] * row.config.training.epochs if rates else None


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _training_lock(folder: Path) -> str:
    return f"weights-{folder.parent.name}-{folder.name}"


def main(plan: Callable[[Grid], SweepPlan] = plan_sweep) -> int:
    try:
        made = plan(Grid(**json.load(sys.stdin)))
    except UserError as error:
        print(" ".join(str(error).split()))
        return 2
    print(made.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
