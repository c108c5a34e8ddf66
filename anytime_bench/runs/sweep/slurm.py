"""A sweep on a Slurm cluster through submitit: the same jobs, as arrays, into one store on a shared folder.

Jobs that need others' weights wait for them by Slurm's own dependencies; times are taken by an array of its own, last,
one job at a time. A job that is pre-empted or reaches its time limit is put back into the queue and goes on from its
last checkpoint. There is no scheduler here: Slurm decides what runs where.

Resources per run come from the plan file's ``slurm`` section, see ``grid.SlurmOptions``. Raises ``UserError`` where
Slurm or submitit is missing.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from rich.console import Console

from anytime_bench.errors import UserError, message
from anytime_bench.files import short_hash, write_atomically
from anytime_bench.runs.disk import check_writable
from anytime_bench.runs.guard import expect_exit
from anytime_bench.runs.sweep.display import Overview, show_plan, show_summary
from anytime_bench.runs.sweep.existing import finished_record
from anytime_bench.runs.sweep.grid import Grid, SlurmOptions
from anytime_bench.runs.sweep.jobs import Job, JobEnd, Outcome, SweepPlan
from anytime_bench.runs.sweep.local import plan_in_subprocess
from anytime_bench.runs.sweep.process import run_job

#: Seconds between two looks at the queue, and between two tries of a job whose work another job does.
LOOK_AGAIN = 2.0


class ClusterRun:
    """What a cluster job calls. submitit pickles it, and asks for its ``checkpoint`` when the job has to go."""

    def __init__(self, job: Job, end_file: Path) -> None:
        self.job, self.end_file = job, end_file

    def __call__(self) -> str:
        try:
            end = run_job(self.job)
            while end.status == "busy":
                # A requeued job may start before its killed predecessor is gone.
                time.sleep(LOOK_AGAIN)
                end = run_job(self.job)
        except UserError as error:
            end = JobEnd("failed", message(error))
        write_atomically(self.end_file, end.to_json().encode())
        return end.status

    def checkpoint(self) -> Any:
        """The same job again, going on from its last finished epoch. submitit ends the process afterwards."""
        import submitit

        expect_exit()
        return submitit.helpers.DelayedSubmission(ClusterRun(dataclasses.replace(self.job, resume=True), self.end_file))


def sweep_on_slurm(
    grid: Grid, console: Console | None = None, *, wait: bool = True, dry_run: bool = False
) -> list[Outcome]:
    """Plan, submit one array per level of the plan, and (with ``wait``) watch the queue until all jobs have ended."""
    console = console or Console(stderr=True, highlight=False)
    check_cluster()
    on_node = ["srun", "--quiet", *srun_options(grid.slurm)] if grid.slurm.gpus_per_node else []
    plan = plan_in_subprocess(grid, on_node)
    show_plan(
        plan,
        console,
        min(grid.slurm.parallel, max(len(plan.jobs), 1)),
        "as Slurm arrays, timings one by one at the end",
    )
    if dry_run or not plan.jobs:
        return plan.outcomes({})
    check_writable(Path(grid.out))
    folder = Path(grid.out).absolute() / "logs" / "slurm" / datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    submitted = submit(plan, grid, folder)
    arrays = sorted(set(submitted.values()), key=int)
    console.print(f"submitted {len(plan.jobs)} jobs in arrays {', '.join(arrays)}; logs in {folder}", soft_wrap=True)
    if not wait:
        console.print("when they have ended, the same command shows what became of them", soft_wrap=True)
        return plan.outcomes({})
    with Overview(console, len(plan.jobs)) as overview:
        ends = watch(plan, folder, arrays, overview)
    outcomes = plan.outcomes(ends)
    show_summary(outcomes, grid, console)
    return outcomes


def check_cluster() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError("--cluster slurm needs submitit: pip install 'anytime_bench[slurm]'.") from None
    missing = [tool for tool in ("sbatch", "srun", "squeue") if shutil.which(tool) is None]
    if missing:
        raise UserError(f"--cluster slurm: {', '.join(missing)} is not on the path; run this on a Slurm login node.")


def levels(jobs: Mapping[str, Job]) -> list[list[Job]]:
    """Jobs in groups that can run at the same time, each needing only earlier groups; timings last, by themselves."""
    depth: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((of(need) for need in jobs[name].needs), default=-1)
        return depth[name]

    deepest = max((of(name) for name, job in jobs.items() if not job.exclusive), default=-1)
    groups = [[job for name, job in jobs.items() if not job.exclusive and of(name) == d] for d in range(deepest + 1)]
    timings = [job for job in jobs.values() if job.exclusive]
    return [group for group in (*groups, timings) if group]


def submit(plan: SweepPlan, grid: Grid, folder: Path) -> dict[str, str]:
    """Submit every level as one array behind the level before it; returns the array's id per job."""
    import submitit

    submitted: dict[str, str] = {}
    before = ""
    for group in levels(plan.jobs):
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(**parameters(grid.slurm, group, before))
        with executor.batch():
            handles = [executor.submit(ClusterRun(placed(job, grid), end_path(folder, job))) for job in group]
        before = handles[0].job_id.partition("_")[0]
        submitted.update((job.name, before) for job in group)
    return submitted


def placed(job: Job, grid: Grid) -> Job:
    """The job with absolute paths and its share of threads, for a node that starts elsewhere."""
    threads = 0 if grid.slurm.gpus_per_node else grid.slurm.cpus_per_task
    plugins = tuple(str(Path(p).absolute()) if p.endswith(".py") else p for p in job.plugins)
    data_root = str(Path(job.data_root).absolute()) if job.data_root else None
    # A recipe is a file or the name of an installed one, as on the command line of ``run``.
    recipe = str(Path(job.recipe).absolute()) if job.recipe and Path(job.recipe).is_file() else job.recipe
    return dataclasses.replace(
        job, out=str(Path(job.out).absolute()), threads=threads, plugins=plugins, data_root=data_root, recipe=recipe
    )


def parameters(slurm: SlurmOptions, group: Sequence[Job], after: str) -> dict[str, JsonValue]:
    """submitit's parameters for one array."""
    timed = group[0].exclusive
    extra: dict[str, JsonValue] = {"requeue": True, **slurm.extra}
    if after:
        # Whatever became of them: a job whose weights are missing trains them itself.
        extra["dependency"] = f"afterany:{after}"
    chosen: dict[str, JsonValue] = {
        "name": "anytime-bench",
        "timeout_min": slurm.minutes,
        "cpus_per_task": slurm.cpus_per_task,
        "gpus_per_node": slurm.gpus_per_node,
        "mem_gb": slurm.mem_gb,
        "slurm_partition": slurm.partition,
        "slurm_array_parallelism": 1 if timed else slurm.parallel,
        "slurm_exclusive": True if timed and slurm.exclusive else None,
        "slurm_additional_parameters": extra,
    }
    return {key: value for key, value in chosen.items() if value is not None}


def srun_options(slurm: SlurmOptions) -> list[str]:
    """Options of the job that plans: on a node like those of the runs, since its device is part of what is planned."""
    options = {
        "partition": slurm.partition,
        "cpus-per-task": slurm.cpus_per_task,
        "gpus-per-node": slurm.gpus_per_node,
    }
    return [f"--{option}={value}" for option, value in options.items() if value]


def end_path(folder: Path, job: Job) -> Path:
    return folder / "ends" / f"{short_hash([job.name])}.json"


def queued(arrays: Iterable[str]) -> set[str]:
    """Those of ``arrays`` that still have jobs waiting or running."""
    left = set()
    for array in arrays:
        # An id that Slurm has forgotten is an error to squeue, and ended to us.
        shown = subprocess.run(["squeue", "-h", "-j", array, "-o", "%i"], capture_output=True, text=True)
        if shown.returncode == 0 and shown.stdout.strip():
            left.add(array)
    return left


def watch(plan: SweepPlan, folder: Path, arrays: Sequence[str], overview: Overview) -> dict[str, JobEnd]:
    """How every job ended. Interrupting this leaves the jobs in the queue."""
    ends: dict[str, JobEnd] = {}
    left = set(arrays)
    while len(ends) < len(plan.jobs):
        left = queued(left)
        for name, job in plan.jobs.items():
            if name in ends:
                continue
            end_file = end_path(folder, job)
            if end_file.exists():
                ends[name] = dataclasses.replace(JobEnd.from_json(end_file.read_bytes()), log=str(folder))
            elif not left:
                record = finished_record(job)
                reason = "" if record else "the cluster ended the job before it was done"
                ends[name] = JobEnd("ok" if record else "failed", reason, record, log=str(folder))
            else:
                continue
            overview.finished(f"{name}: {ends[name].status} {ends[name].reason}".rstrip())
        overview.update([])
        if left:
            time.sleep(LOOK_AGAIN)
    return ends
