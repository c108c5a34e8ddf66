"""The work of one job, in the process that holds its locks: load plugins, plan, execute. Imports torch."""

from __future__ import annotations

import torch
from rich.console import Console

from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records import store
from anytime_bench.runs.display import Display
from anytime_bench.runs.guard import guarded
from anytime_bench.runs.pipeline import execute
from anytime_bench.runs.plan import make_plan
from anytime_bench.runs.sweep.jobs import Event, Job, JobEnd, Report
from anytime_bench.tasks.loading import load_task
from anytime_bench.training.loop import TrainingStep


def carry_out(job: Job, report: Report) -> JobEnd:
    """Train, prepare or finish what the job asks for. Raises ``UserError`` for bad input."""

    def on_step(step: TrainingStep) -> None:
        report(Event("training", step.epoch, step.epochs, step.fraction))

    if job.threads:
        torch.set_num_threads(job.threads)
    for plugin in job.plugins:
        with guarded():
            load_plugin(plugin)
    with guarded():
        plan = make_plan(
            job.method, load_task(job.task, job.data_root), seed=job.seed, overrides=job.overrides, device=job.device,
            out=job.out, resume=job.resume, recipe=job.recipe, data_root=job.data_root, command=job.command,
        )  # fmt: skip
    # The log on standard output.
    display = Display(Console(width=100, highlight=False), on_training_step=on_step)
    display.plan(plan)
    path = execute(plan, display, until=job.until)
    if path is None:
        return JobEnd("ok")
    record = store.load(path)
    display.result(record, path, "")
    return JobEnd(record.status, record.reason, str(path))
