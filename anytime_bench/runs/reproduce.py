"""A record's work done again: trained anew, or timed anew, and compared with what the record says.

Needs torch, the task's data and the method, unlike ``verify``. On one kind of CPU training repeats bit for bit;
elsewhere the final accuracies must agree within their intervals. Times must agree within their intervals or
``TIME_TOLERANCE``.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from anytime_bench.harness.timing_block import Timing
from anytime_bench.harness.timing_summary import summarise
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.runs.display import Display
from anytime_bench.runs.pipeline import execute
from anytime_bench.runs.plan import build_model
from anytime_bench.runs.rerun import plan_of
from anytime_bench.runs.stages import timing_stage

#: Ratios to the reference from two sessions may differ by this share beyond their intervals.
TIME_TOLERANCE = 0.15


def retrain(path: Path, *, data_root: Path | None = None, device: str = "auto", display: Display) -> list[str]:
    """Faults found by training the record's run again, in a folder that is thrown away."""
    record = store.load(path)
    with tempfile.TemporaryDirectory(prefix="anytime-bench-") as folder:
        plan = plan_of(record, path, data_root=data_root, device=device, out=Path(folder))
        evaluation = dataclasses.replace(plan.resolved.config.evaluation, timing_rounds=0, noise="none")
        config = dataclasses.replace(plan.resolved.config, evaluation=evaluation)
        resolved = dataclasses.replace(plan.resolved, config=config)
        made = execute(dataclasses.replace(plan, resolved=resolved, resume=False), display)
        assert made is not None
        again = store.load(made)
    if again.status != "ok":
        return [f"record '{path}': training again ended as {again.status}: {again.reason}"]
    return [f"record '{path}': {problem}" for problem in trained_differently(record, again)]


def trained_differently(record: Record, again: Record) -> list[str]:
    """Whether two trainings of one run disagree by more than chance; equal weights agree."""
    assert record.training is not None
    assert again.training is not None
    if record.training.weights_sha256 == again.training.weights_sha256:
        return []
    was, now = record.exits[-1].accuracy, again.exits[-1].accuracy
    if was.low <= now.high and now.low <= was.high:
        return []
    return [
        f"training again gives a final accuracy of {now.value:.4f} [{now.low:.4f}, {now.high:.4f}], "
        f"the record says {was.value:.4f} [{was.low:.4f}, {was.high:.4f}]"
    ]


def retime(path: Path, *, data_root: Path | None = None, device: str = "auto", display: Display) -> list[str]:
    """Faults found by timing the record's model again; speed needs no trained weights."""
    record = store.load(path)
    if not record.timing:
        return [f"record '{path}': it was not timed, so there is nothing to time again"]
    with tempfile.TemporaryDirectory(prefix="anytime-bench-") as folder:
        plan = plan_of(record, path, data_root=data_root, device=device, out=Path(folder))
        if plan.device_name != record.device:
            reason = f"it was timed on {record.device}, here is {plan.device_name}; times do not compare"
            return [f"record '{path}': {reason}"]
        arrays, meta = timing_stage(plan, build_model(plan.resolved, plan.task, plan.seed, plan.device).eval(), display)
    assert meta is not None
    now = summarise({name.removeprefix("timing_"): samples for name, samples in arrays.items()}, meta)
    if not now.comparable:
        return [
            f"record '{path}': timing again was disturbed: {'; '.join(now.headline.reasons)}. "
            "Try again on an idle machine"
        ]
    return [f"record '{path}': {problem}" for problem in timed_differently(record.timing, now)]


def timed_differently(was: Timing, now: Timing, tolerance: float = TIME_TOLERANCE) -> list[str]:
    """Exits whose ratio to the reference differs beyond both intervals and ``tolerance``."""
    problems = []
    for k, (a, b) in enumerate(zip(was.latency.ratio_to_reference, now.latency.ratio_to_reference, strict=True)):
        overlap = a.low <= b.high and b.low <= a.high
        if not overlap and abs(b.value / a.value - 1) > tolerance:
            problems.append(
                f"exit {k} takes {b.value:.3f} of the reference's time here, the record says {a.value:.3f} "
                f"[{a.low:.3f}, {a.high:.3f}]"
            )
    return problems
