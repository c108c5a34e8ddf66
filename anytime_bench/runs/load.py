"""``profile --load``: one method under a Poisson load, its accuracies from the records of its row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anytime_bench.errors import UserError
from anytime_bench.harness.load import Load, LoadSettings, PlayedLoad, play_load
from anytime_bench.records import store
from anytime_bench.runs.plan import build_model, pick_device
from anytime_bench.runs.profile import find_subjects
from anytime_bench.scores.intervals import accuracy_interval
from anytime_bench.scores.results import Estimate, Strict
from anytime_bench.tasks.loading import load_task
from anytime_bench.trace.answers import Trace
from anytime_bench.training.data import DeviceSplit, Normalised


class PolicyUnderLoad(Strict):
    """One policy. ``goodput`` is the share of requests answered in time and right, None without a record.

    ``right_per_second`` are such answers per second of arrivals. Waits are seconds from arrival to the end of service.
    """

    policy: str
    in_time: Estimate
    goodput: Estimate | None
    right_per_second: float | None
    mean_exit: float | None
    waited_p50: float
    waited_p99: float


class LoadReport(Strict):
    """All policies under one load; ``full`` in seconds, ``rate`` and ``deadline`` in full answers of the model."""

    label: str
    task: str
    rate: float
    deadline: float
    full: float
    requests: int
    record: str
    policies: list[PolicyUnderLoad]


def load_on_method(
    names: Sequence[str],
    settings: LoadSettings,
    *,
    task: str = "digits",
    records: Path | None = Path("results"),
    overrides: Sequence[str] = (),
    device: str = "auto",
    data_root: Path | None = None,
) -> LoadReport:
    """Play the load against the one method that ``names`` holds, built with random weights.

    Which exit answers in time is measured here; whether it is right is read from the row's first record.
    """
    if len(names) != 1:
        raise UserError(f"--load plays against one method, got {len(names)}. Give one with --methods NAME.")
    place, loaded = pick_device(device), load_task(task, data_root)
    subjects, untimed = find_subjects(loaded, place, records, names, overrides)
    if not subjects:
        raise UserError("; ".join(f"{each.label}: {each.reason}" for each in untimed))
    subject = subjects[0]
    model = build_model(subject.resolved, loaded, 0, place).eval()
    images = Normalised(DeviceSplit.place(loaded.splits["test"], loaded.card, place))
    load = play_load(model, images, settings)
    entry = subject.entries[0] if subject.entries else None
    trace = Trace.from_arrays(store.load_arrays(entry.path, entry.record), "test") if entry else None
    return LoadReport(
        label=subject.label,
        task=loaded.card.name,
        rate=settings.rate,
        deadline=settings.deadline,
        full=load.full,
        requests=len(load.images),
        record=entry.record.record_id if entry else "",
        policies=[_policy(load, played, trace) for played in load.played],
    )


def _policy(load: Load, played: PlayedLoad, trace: Trace | None) -> PolicyUnderLoad:
    answered = played.exits >= 0
    p50, p99 = np.percentile(played.waited, [50, 99])
    right = None if trace is None else answered & trace.correct[played.exits, load.images]
    duration = load.full / load.settings.rate * len(load.images)
    return PolicyUnderLoad(
        policy=played.policy,
        in_time=_share(answered),
        goodput=None if right is None else _share(right),
        right_per_second=None if right is None else float(right.sum() / duration),
        mean_exit=float(played.exits[answered].mean()) if answered.any() else None,
        waited_p50=float(p50),
        waited_p99=float(p99),
    )


def _share(values: np.ndarray) -> Estimate:
    interval = accuracy_interval(values)
    return Estimate.of(interval.value, (interval.low, interval.high))
