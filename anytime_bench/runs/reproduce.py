"""A record's work done again: its model built, trained or timed anew, and compared with what the record says.

Needs torch and the method, unlike ``verify``, and all but ``rebuild`` need the task's data. Everything is made in a
folder that is thrown away; what is compared, and how closely, is in ``agreement``.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from anytime_bench.harness.timing_summary import summarise
from anytime_bench.records import store
from anytime_bench.runs.agreement import Agreement, built_differently, timed_differently, trained_differently
from anytime_bench.runs.display import Display
from anytime_bench.runs.pipeline import execute
from anytime_bench.runs.plan import build_model
from anytime_bench.runs.rerun import plan_of, task_without_data
from anytime_bench.runs.stages import timing_stage


def rebuild(path: Path, *, data_root: Path | None = None, device: str = "auto", display: Display) -> Agreement:
    """Build the record's model and its reference and compare options, parameters, ticks and MACs; reads no data."""
    record = store.load(path)
    with tempfile.TemporaryDirectory(prefix="anytime-bench-") as folder:
        plan = plan_of(record, path, task=task_without_data(record), device=device, out=Path(folder))
    return _named(path, Agreement(tuple(built_differently(record, plan)), "built again, costs are equal"))


def retrain(path: Path, *, data_root: Path | None = None, device: str = "auto", display: Display) -> Agreement:
    """Train the record's run again and compare everything that no clock has a part in."""
    record = store.load(path)
    with tempfile.TemporaryDirectory(prefix="anytime-bench-") as folder:
        plan = plan_of(record, path, data_root=data_root, device=device, out=Path(folder))
        built = tuple(built_differently(record, plan))
        if built:
            return _named(path, Agreement(built))
        evaluation = dataclasses.replace(plan.resolved.config.evaluation, timing_rounds=0)
        config = dataclasses.replace(plan.resolved.config, evaluation=evaluation)
        resolved = dataclasses.replace(plan.resolved, config=config)
        made = execute(dataclasses.replace(plan, resolved=resolved, resume=False), display)
        assert made is not None
        again = store.load(made)
        if again.status != "ok":
            return _named(path, Agreement((f"training again ended as {again.status}: {again.reason}",)))
        arrays = store.load_arrays(made, again)
    agreed = trained_differently(record, store.load_arrays(path, record), again, arrays)
    return _named(path, dataclasses.replace(agreed, verdict=f"trained again, {agreed.verdict}"))


def retime(path: Path, *, data_root: Path | None = None, device: str = "auto", display: Display) -> Agreement:
    """Time the record's model again; speed needs no trained weights."""
    record = store.load(path)
    if not record.timing:
        return _named(path, Agreement(("it was not timed, so there is nothing to time again",)))
    with tempfile.TemporaryDirectory(prefix="anytime-bench-") as folder:
        plan = plan_of(record, path, data_root=data_root, device=device, out=Path(folder))
        if plan.device_name != record.device:
            reason = f"it was timed on {record.device}, here is {plan.device_name}; times do not compare"
            return _named(path, Agreement((reason,)))
        arrays, meta = timing_stage(plan, build_model(plan.resolved, plan.task, plan.seed, plan.device).eval(), display)
    assert meta is not None
    now = summarise({name.removeprefix("timing_"): samples for name, samples in arrays.items()}, meta)
    if not now.comparable:
        reason = f"timing again was disturbed: {'; '.join(now.headline.reasons)}. Try again on an idle machine"
        return _named(path, Agreement((reason,)))
    faults = tuple(timed_differently(record.timing, now))
    return _named(path, Agreement(faults, "timed again, ratios to the reference agree"))


def _named(path: Path, agreement: Agreement) -> Agreement:
    """The same with the record's name before every line; a verdict only where there is no fault."""
    verdict = "" if agreement.faults else f"record '{path}': {agreement.verdict}"
    return Agreement(tuple(f"record '{path}': {fault}" for fault in agreement.faults), verdict)
