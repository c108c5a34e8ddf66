"""The board of one's own device: every row timed here, without training, its accuracies taken from published records.

Times do not depend on weights, with one exception: where a network stops depends on its answers. So a row's model is
built with random weights and timed exit by exit beside the reference, as in a run; what it answers, and where it would
stop, is read from the stored answers of its records. Nothing here is a new result about accuracy.

Rows come from a store of records (the newest group of the task), from ``methods`` by name, and from plugins; a method
without a record has times alone. Energy is read where a counter can be (``harness/energy.py``).

Units: seconds, joules; shares in [0, 1].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from anytime_bench.errors import UserError, describe, did_you_mean
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.energy import Counter, NoCounter, energy_counter, joules_per_answer
from anytime_bench.harness.environment import capture
from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.records import store
from anytime_bench.records.consistency import read_entries
from anytime_bench.records.entries import Entry, groups, labels
from anytime_bench.records.stamp import now, suite_version
from anytime_bench.registry import methods as registered
from anytime_bench.runs.plan import ResolvedMethod, build_model, pick_device, resolve, resolve_reference
from anytime_bench.runs.rerun import overrides_of, recipe_of
from anytime_bench.scores.curve import auc, settle
from anytime_bench.scores.intervals import mean_interval
from anytime_bench.scores.results import Estimate, Strict
from anytime_bench.tasks.loading import load_task
from anytime_bench.tasks.task import Task
from anytime_bench.trace.answers import Trace
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.recipes import recipe_for

Progress = Callable[[float, str], None]
Floats = NDArray[np.float64]

#: Test images that are timed on, and the threshold of the confidence by which a row's mean time of stopping is told.
IMAGES = 256
CONFIDENCE = 0.9


class ProfileRow(Strict):
    """One row, timed here. Lists are per exit; what needs a record is empty or None without one.

    ``stop_seconds`` is the mean time here if each stored test image leaves at the first answer of ``CONFIDENCE``.
    ``joules`` are those of exit k alone. ``disturbed`` are reasons against comparing its times.
    """

    label: str
    method: str
    options: dict[str, JsonValue]
    records: list[str]
    seeds: list[int]
    seconds: list[float]
    ratio: list[Estimate]
    accuracy: list[Estimate]
    auc_1: Estimate | None = None
    stop_seconds: float | None = None
    stop_accuracy: float | None = None
    joules: list[float]
    auc_joules: Estimate | None = None
    disturbed: list[str]


class Untimed(Strict):
    label: str
    reason: str


class Profile(Strict):
    """All rows of one task on this device; ``energy`` names the counter, or says why there is none."""

    task: str
    title: str
    chance: float
    device: str
    device_name: str
    threads: int
    created: str
    suite_version: str
    source: str
    reference: str
    horizon: float
    energy: str
    rows: list[ProfileRow]
    untimed: list[Untimed]


@dataclass(frozen=True)
class Subject:
    """What is to be timed: a resolved method, its reference, and the records of its seeds."""

    label: str
    resolved: ResolvedMethod
    reference: ResolvedMethod
    entries: list[Entry] = field(default_factory=list)


def profile(
    task: str = "digits",
    *,
    records: Path | None = Path("results"),
    methods: Sequence[str] = (),
    overrides: Sequence[str] = (),
    device: str = "auto",
    data_root: Path | None = None,
    seconds: float = 100.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Time every row on this machine; ``seconds`` is about what all of them together may take.

    ``methods`` restricts the rows to those names, and adds those that have no record. ``overrides`` are options of
    methods without records. Raises ``UserError`` where there is nothing to time.
    """
    place, loaded = pick_device(device), load_task(task, data_root)
    subjects, untimed = find_subjects(loaded, place, records, methods, overrides)
    environment = capture(place)
    images = DeviceSplit.place(loaded.splits["test"], loaded.card, place).sample(IMAGES).normalised()
    settings = TimingSettings(budget_seconds=seconds / max(1, len(subjects)), threads=threads or None)
    counter = energy_counter(place)
    rows, horizons = [], []
    for number, subject in enumerate(subjects):
        report = partial(_report, progress, number, len(subjects), subject.label)
        report(0.0, "")
        try:
            row, horizon = _timed(subject, loaded, place, images, settings, counter, report)
        except UserError as error:
            untimed.append(Untimed(label=subject.label, reason=str(error)))
        except Exception as error:  # a method's own failure is no reason to lose the others
            untimed.append(Untimed(label=subject.label, reason=describe(error)))
        else:
            rows.append(row)
            horizons.append(horizon)
    if not rows:
        reasons = "; ".join(f"{each.label}: {each.reason}" for each in untimed)
        raise UserError(f"nothing could be timed on task '{task}'. {reasons}")
    return Profile(
        task=loaded.card.name,
        title=loaded.card.title,
        chance=1 / loaded.card.num_classes,
        device=str(environment["device_class"]),
        device_name=str(environment.get("device_name") or ""),
        threads=threads or torch.get_num_threads(),
        created=now(),
        suite_version=suite_version(),
        source=os.path.relpath(records) if records is not None else "",
        reference=subjects[0].reference.name,
        horizon=float(np.median(horizons)),
        energy=counter.reason if isinstance(counter, NoCounter) else counter.name,
        rows=sorted(rows, key=lambda row: (-(row.auc_1.value if row.auc_1 else -1.0), row.seconds[-1])),
        untimed=untimed,
    )


def find_subjects(
    task: Task, device: torch.device, records: Path | None, names: Sequence[str], overrides: Sequence[str]
) -> tuple[list[Subject], list[Untimed]]:
    """What is to be timed, and what cannot be, with the reason."""
    subjects: list[Subject] = []
    untimed: list[Untimed] = []
    recorded: set[str] = set()
    rows = _rows_of(records, task)
    for entries, label in zip(rows, labels([entries[0].record for entries in rows]), strict=True):
        if names and entries[0].record.method.name not in names:
            continue
        recorded.add(entries[0].record.method.name)
        try:
            subjects.append(_from_record(label, entries))
        except UserError as error:
            untimed.append(Untimed(label=label, reason=str(error)))
    known = registered.names()
    plugins = [name for name in registered.added() if not names]
    everything = [] if subjects or names else known
    recipe = recipe_for(task.card.name, None, device.type, task.card.shape)
    for name in dict.fromkeys([*names, *plugins, *everything]):
        if name in recorded:
            continue
        if name.partition("/")[0] not in known:
            raise UserError(f"method '{name}' is unknown and has no record here.{did_you_mean(name, known)}")
        try:
            options = [each if each.startswith("options.") else f"options.{each}" for each in overrides]
            resolved = resolve(name, recipe, options)
            if reason := resolved.method.skip(task.card):
                raise UserError(reason)
            subjects.append(Subject(name, resolved, resolve_reference(recipe, {})))
        except UserError as error:
            untimed.append(Untimed(label=name, reason=str(error)))
    return subjects, untimed


def _rows_of(records: Path | None, task: Task) -> list[list[Entry]]:
    """The rows of the task's newest group; where several devices have one, of that with the most rows."""
    if records is None or not records.is_dir():
        return []
    newest = {
        group.device: group
        for group in groups(read_entries(records))  # the current one of a device comes last
        if (group.task, group.key.task_sha256) == (task.card.name, task.card.sha256)
    }
    rows = max(newest.values(), key=lambda group: len(group.rows)).rows.values() if newest else []
    return [trained for entries in rows if (trained := [each for each in entries if not each.diverged])]


def _from_record(label: str, entries: list[Entry]) -> Subject:
    record = entries[0].record
    assert record.training is not None  # a record with results was trained
    overrides = overrides_of(record)
    recipe = recipe_of(record, record.training, overrides)
    return Subject(label, resolve(record.method.name, recipe, overrides), resolve_reference(recipe, {}), entries)


def _timed(
    subject: Subject,
    task: Task,
    device: torch.device,
    images: Tensor,
    settings: TimingSettings,
    counter: Counter | NoCounter,
    report: Progress,
) -> tuple[ProfileRow, float]:
    """The row, and the reference's full time beside it."""
    model, reference = (build_model(each, task, 0, device).eval() for each in (subject.resolved, subject.reference))
    timing = time_exits(model, reference, images, device, settings, report).summary()
    latency = timing.latency
    ratio = [each.value for each in latency.ratio_to_reference]
    joules, relative = _joules(model, reference, images[:1], counter)
    known = _known(subject.entries, ratio, [each.p50 for each in latency.run_through], relative)
    row = ProfileRow(
        label=subject.label,
        method=subject.resolved.name,
        options=subject.resolved.options,
        records=[entry.record.record_id for entry in subject.entries],
        seeds=[entry.seed for entry in subject.entries],
        seconds=[each.p50 for each in latency.run_through],
        ratio=latency.ratio_to_reference,
        joules=joules,
        disturbed=list(timing.headline.reasons or []),
        **known,
    )
    return row, latency.reference_full.p50


def _joules(
    model: AnytimeModel, reference: AnytimeModel, image: Tensor, counter: Counter | NoCounter
) -> tuple[list[float], list[float]]:
    """Joules per exit, and in multiples of the reference's full answer; empty without a counter."""
    if isinstance(counter, NoCounter):
        return [], []

    def run(which: AnytimeModel, k: int) -> None:
        which.answer(image, k)
        if image.is_cuda:
            torch.cuda.synchronize(image.device)

    with evaluating(model), evaluating(reference):
        full = joules_per_answer(partial(run, reference, reference.num_exits - 1), counter)
        joules = [joules_per_answer(partial(run, model, k), counter) for k in range(model.num_exits)]
    return joules, [each / full for each in joules] if full > 0 else []


def _known(
    entries: Sequence[Entry], ratio: Sequence[float], seconds: Sequence[float], joules: Sequence[float]
) -> dict[str, Any]:
    """What the records' answers give at the times and joules of this machine."""
    if not entries:
        return {"accuracy": []}
    traces = [Trace.from_arrays(store.load_arrays(entry.path, entry.record), "test") for entry in entries]
    if any(trace.num_exits != len(ratio) for trace in traces):
        raise UserError(f"its records hold {traces[0].num_exits} exits, the method here has {len(ratio)}")
    chance = 1 / traces[0].num_classes
    accuracy = [_mean(np.stack([trace.correct[k] for trace in traces])) for k in range(len(ratio))]
    leaves = [_first_confident(trace) for trace in traces]
    right = [trace.correct[leave, np.arange(trace.num_samples)] for trace, leave in zip(traces, leaves, strict=True)]
    return {
        "accuracy": accuracy,
        "auc_1": _area(traces, settle(ratio), chance),
        "stop_seconds": float(np.mean([np.asarray(seconds)[leave].mean() for leave in leaves])),
        "stop_accuracy": float(np.mean([each.mean() for each in right])),
        "auc_joules": _area(traces, settle(joules), chance) if joules else None,
    }


def _area(traces: Sequence[Trace], cost: Floats, chance: float) -> Estimate:
    return _mean(np.stack([auc(cost, trace.correct, 1.0, chance) for trace in traces]))


def _mean(values: NDArray[Any]) -> Estimate:
    interval = mean_interval(values.astype(np.float64))
    return Estimate.of(interval.value, (max(interval.low, 0.0), min(interval.high, 1.0)))


def _first_confident(trace: Trace) -> NDArray[np.intp]:
    """The exit at which each image leaves ``(N,)``."""
    sure = trace.confidence.astype(np.float64) >= CONFIDENCE
    sure[-1] = True
    return sure.argmax(axis=0)


def _report(progress: Progress | None, number: int, count: int, label: str, share: float, what: str) -> None:
    if progress is not None:
        progress((number + share) / count, label)
