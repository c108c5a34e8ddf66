"""Synthetic records with real scores: traces of made-up methods, scored by the suite's own functions.

Difficulty belongs to the image and is shared by all methods, so paired comparisons behave as on a real task. Nothing
here was measured: devices are called ``generated``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anytime_bench import store
from anytime_bench.harness.summary import summarise
from anytime_bench.record import ExitEntry, MethodEntry, Record, TaskEntry, TrainingEntry, finite
from anytime_bench.scores.summary import exit_scores, score_axes, trace_scores
from anytime_bench.trace import Trace

CLASSES = 10


def make_trace(
    skill: float, exits: int, images: int, seed: int, *, split: str = "test", classes: int = CLASSES
) -> Trace:
    """Answers of a made-up method: better with skill, with later exits and on easier images."""
    task = np.random.default_rng([7, images, split == "test"])
    labels, difficulty = task.integers(0, classes, images), task.normal(size=images)
    noise = np.random.default_rng([seed, int(1000 * skill), exits, split == "test"])
    logits = noise.normal(size=(exits, images, classes))
    logits[1:] = 0.6 * logits[1:] + 0.8 * logits[:1]  # Exits of one network err together.
    reach = np.linspace(0.2, 1.0, exits)[:, None]
    logits[:, np.arange(images), labels] += (2.0 + 3.0 * skill) * reach - 1.5 * difficulty
    return Trace.from_logits(logits, labels)


def make_record(
    method: str = "quick",
    *,
    seed: int = 0,
    skill: float = 0.5,
    exits: int = 5,
    images: int = 400,
    task: str = "digits",
    device: str = "generated-cpu",
    options: Mapping[str, Any] | None = None,
    speed: float = 1.0,
    timed: bool = True,
    gpu: bool = False,
    reported: float | None = None,
    created: str = "2026-01-01T00:00:00Z",
    traces: tuple[Trace, Trace] | None = None,
    change: Mapping[str, Any] | None = None,
) -> tuple[Record, dict[str, Any]]:
    """A record and the arrays of its ``.npz``; ``speed`` scales measured times, ``change`` replaces fields."""
    test, val = traces or (
        make_trace(skill, exits, images, seed),
        make_trace(skill, exits, images // 4 + 20, seed, split="val"),
    )
    exits = test.num_exits
    ticks = [k + 1.0 for k in range(exits)]
    macs = [1_000_000 * (k + 1) + 40_000 * k * k for k in range(exits)]
    reference: dict[str, Any] = {"method": "plain", "ticks": 5.0, "macs": 5_000_000, "accuracy": 0.9, "latency": 0.004}
    if gpu:
        reference["device_time"] = 0.003
    timing, arrays = make_timing(exits, speed, seed, comparable=timed, gpu=gpu)
    clocks = {"latency": timing, "device_time": timing["device_time"]} if gpu else {"latency": timing}
    fields: dict[str, Any] = {
        "created": created,
        "status": "ok",
        "suite_version": "0.1.0",
        "command": f"anytime-bench run {method} --task {task} --seed {seed}",
        "device": device,
        "method": MethodEntry(
            name=method,
            origin={"distribution": "generated", "version": "1"},
            options=dict(options or {}),
            card={
                "title": method.replace("_", " ").title(), "paper": "Made-up Methods", "year": 2026, "ticks": "one block",
                "deviations": ["it does not exist"], "reported": {} if reported is None else {task: reported},
            },
        ),
        "task": TaskEntry(
            name=task, title=task.title(), version="1", classes=test.num_classes, shape=(1, 8, 8),
            sizes={"train": 1000, "val": val.num_samples, "test": test.num_samples}, sha256=hashlib.sha256(task.encode()).hexdigest(),
        ),
        "training": TrainingEntry(
            seed=seed, epochs=2, recipe={"training": {"lr": 0.1}}, recipe_sha256="a" * 64,
            weights_sha256=hashlib.sha256(f"{method}{seed}{options}".encode()).hexdigest(), seconds=1.5, final_loss=0.3,
        ),
        "environment": {"python": "3.12", "torch": "none", "device": "generated", "threads": 1},
        "parameters": 12_345,
        "exits": [
            ExitEntry(k=k, ticks=ticks[k], macs=macs[k], macs_prefix=macs[k], **scores)
            for k, scores in enumerate(exit_scores(test))
        ],
        "reference": reference,
        "scores": score_axes(test, {"ticks": ticks, "macs": macs}, {"ticks": 5.0, "macs": 5e6}, reference_accuracy=0.9),
        "timing": timing,
        "timed_scores": score_axes(
            test,
            {clock: [entry["value"] for entry in part["ratio_to_reference"]] for clock, part in clocks.items()},
            dict.fromkeys(clocks, 1.0),
            reference_accuracy=0.9,
        ),
        "stopping": trace_scores(test, val, macs, 5e6),
    }  # fmt: skip
    fields.update(change or {})
    arrays |= {**test.to_arrays("test"), **val.to_arrays("val")}
    return Record.model_construct(**{**Record.model_construct(**fields).__dict__, **finite_fields(fields)}), arrays


def finite_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain = ("scores", "timing", "timed_scores", "stopping", "robustness", "reference", "environment")
    return {name: finite(fields[name]) for name in plain if name in fields}


def make_timing(
    exits: int, speed: float, seed: int, *, comparable: bool, gpu: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A timing summary by the suite's own function, and the raw samples it rests on."""
    rng = np.random.default_rng([seed, exits])
    clocks = ("latency", "device_time")[: 2 if gpu else 1]
    samples = {}
    for clock in clocks:
        full = (0.004 if clock == "latency" else 0.003) * rng.normal(1, 0.01, (30, 3))
        steps = np.arange(1, exits + 1) / 5 / speed
        samples[f"batch1_{clock}_reference"] = full.astype(np.float32)
        noise = rng.normal(1, 0.005, (30, 3, exits))
        samples[f"batch1_{clock}_run_through"] = (full[..., None] * steps * noise).astype(np.float32)
    meta = {
        "seed": seed,
        "batch_sizes": [1],
        "stopped_because": {"1": "rounds"},
        "disturbances": [] if comparable else ["another process used the device"],
        "stop": {clock: {"run_through": "real", "prefix": "real"} for clock in clocks},
        "clocks": {clock: "generated" for clock in clocks},
        "notes": [],
    }
    return summarise(samples, meta), {f"timing_{name}": values for name, values in samples.items()}


def save(root: Path, *args: Any, **options: Any) -> Path:
    """Make a record and store it; returns its path."""
    record, arrays = make_record(*args, **options)
    return store.save(root, record, arrays)


def fill(root: Path, methods: int = 4, seeds: int = 2, **options: Any) -> list[Path]:
    """A store of ``methods`` x ``seeds`` records, the reference first."""
    paths = []
    for index in range(methods):
        name = "plain" if index == 0 else f"method_{index:02d}"
        for seed in range(seeds):
            settings = {"skill": 0.3 + 0.6 * index / max(1, methods - 1), "speed": 1.0 + 0.2 * (index % 5), **options}
            paths.append(save(root, name, seed=seed, **settings))
    return paths
