"""Synthetic records with real scores: traces of made-up methods, scored by the suite's own functions.

Difficulty belongs to the image and is shared by all methods, so paired comparisons behave as on a real task. Nothing
here was measured: devices are called ``generated``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from anytime_bench.files import canonical_json
from anytime_bench.harness.deadline_summary import DeadlineMeta
from anytime_bench.harness.operator_graph import Operator, OperatorGraph, graph_to_arrays
from anytime_bench.harness.span_summary import SpanMeta
from anytime_bench.harness.streaming import follow
from anytime_bench.harness.streaming_summary import StreamingMeta, clock_of
from anytime_bench.harness.timing_block import EarlyStopTiming, Spread, TimingMeta
from anytime_bench.records import store
from anytime_bench.records.record import Derived, MethodEntry, Record, Reference, TaskEntry, TrainingEntry
from anytime_bench.records.scoring import derive
from anytime_bench.trace.answers import Trace
from anytime_bench.trace.axes import timed

CLASSES = 10
RECIPE = {"training": {"lr": 0.1, "epochs": 2}}
RECIPE_SHA256 = hashlib.sha256(canonical_json(RECIPE).encode()).hexdigest()
RESAMPLES = 2000
#: How made-up clips were made.
CLIPS = StreamingMeta(device="generated", threads=1, seed=0, kind="made_up", hold=4)
#: The larger batch that is timed too.
BATCH = 64
#: Processes that share the thirty rounds.
PROCESSES = 3


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
    task: str = "made_up",
    device: str = "generated-cpu",
    options: Mapping[str, Any] | None = None,
    speed: float = 1.0,
    timed: bool = True,
    gpu: bool = False,
    deadlines: bool = False,
    streaming: bool = False,
    beside: bool = False,
    reported: float | None = None,
    created: str = "2026-01-01T00:00:00Z",
    traces: tuple[Trace, Trace] | None = None,
    extra: Mapping[str, Any] | None = None,
    change: Mapping[str, Any] | None = None,
) -> tuple[Record, dict[str, Any]]:
    """A record and its arrays; ``speed`` scales measured times, ``extra`` adds arrays, ``change`` replaces fields."""
    test, val = traces or (
        make_trace(skill, exits, images, seed),
        make_trace(skill, exits, images // 4 + 20, seed, split="val"),
    )
    exits = test.num_exits
    ticks = [k + 1.0 for k in range(exits)]
    macs = [1_000_000 * (k + 1) + 40_000 * k * k for k in range(exits)]
    reference = Reference(method="plain", costs={"ticks": 5.0, "macs": 5_000_000})
    meta, arrays = make_timing(exits, speed, f"{method} {options} {seed}", comparable=timed, gpu=gpu)
    if beside:
        meta, arrays = run_beside(meta, arrays, macs)
    arrays |= make_span(exits, speed, f"{method} {options} {seed}")
    arrays |= make_deadlines(test, speed, f"{method} {options} {seed}") if deadlines else {}
    arrays |= make_streaming(skill, exits, speed, f"{method} {options} {seed}") if streaming else {}
    arrays |= {**test.to_arrays("test"), **val.to_arrays("val"), **(extra or {})}
    derived = derive(
        arrays, costs={"ticks": ticks, "macs": macs}, prefix_costs={"macs": macs}, reference=reference,
        timing_meta=meta, span_meta=SpanMeta(device="generated", seed=0, reasons=()), resamples=RESAMPLES,
        deadline_meta=DeadlineMeta(device="generated", threads=1, seed=0, jitter="drawn") if deadlines else None,
        streaming_meta=CLIPS if streaming else None,
    )  # fmt: skip
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
                "title": method.replace("_", " ").title(), "paper": "Made-up Methods", "year": 2026,
                "ticks": "one block", "deviations": ["it does not exist"],
                "reported": {} if reported is None else {task: reported},
            },
        ),
        "task": TaskEntry(
            name=task, title=task.title(), version="1", classes=test.num_classes, shape=(1, 8, 8),
            sizes={"train": 1000, "val": val.num_samples, "test": test.num_samples},
            sha256=hashlib.sha256(task.encode()).hexdigest(),
        ),
        "training": TrainingEntry(
            seed=seed, epochs=2, recipe=RECIPE, recipe_sha256=RECIPE_SHA256,
            weights_sha256=hashlib.sha256(test.predictions.tobytes()).hexdigest(), seconds=1.5, final_loss=0.3,
        ),
        "environment": {"python": "3.12", "torch": "none", "device": "generated", "threads": 1},
        "parameters": 12_345,
        "evaluation": {"resamples": RESAMPLES},
        "artifacts": {"trace": {"sha256": "", "bytes": 0}},
        **dict(derived),
    }  # fmt: skip
    fields.update(change or {})
    return Record.model_validate(fields), arrays


def failed(record: Record, **changes: Any) -> Record:
    """The same run without results, as one that failed; ``changes`` replaces fields."""
    empty = {name: field.get_default(call_default_factory=True) for name, field in Derived.model_fields.items()}
    return record.model_copy(update={**empty, "artifacts": {}, "status": "failed", **changes})


def make_timing(
    exits: int, speed: float, run: str, *, comparable: bool, gpu: bool
) -> tuple[TimingMeta, dict[str, Any]]:
    """What a timing run says of itself, and its raw samples; by speed 1 exit k costs (k + 1) / 5 of the reference."""
    rng = np.random.default_rng([crc32(run.encode()), exits])
    clocks = timed()[: 2 if gpu else 1]
    sizes = (1, BATCH)
    steps = np.arange(1, exits + 1) / 5 / speed
    samples = {}
    for size in sizes:
        for clock in clocks:
            full = (0.004 if clock == "latency" else 0.003) * size**0.8 * rng.normal(1, 0.01, (30, 3))
            # Reversed in each process, so that the ratios of both copies have their median at 1.
            twin = full.reshape(PROCESSES, -1, 3)[:, ::-1].reshape(full.shape)
            samples[f"batch{size}_{clock}_reference"] = full.astype(np.float32)
            samples[f"batch{size}_{clock}_twin"] = twin.astype(np.float32)
            full = np.sqrt(full * twin)
            for what in ("run_through", "prefix")[: 2 if size == 1 else 1]:
                noise = rng.normal(1, 0.005, (30, 3, exits))
                samples[f"batch{size}_{clock}_{what}"] = (full[..., None] * steps * noise).astype(np.float32)
        samples[f"batch{size}_process"] = np.repeat(np.arange(PROCESSES), 30 // PROCESSES).astype(np.int8)
    meta = TimingMeta(
        batch_sizes=list(sizes),
        processes=PROCESSES,
        target=0.02,
        inferences=dict.fromkeys(map(str, sizes), 3),
        answers_agree=1.0,
        stopped_because={str(size): "rounds" for size in sizes},
        disturbances={} if comparable else {"1": ["another process used the device"]},
        stop={clock: {"run_through": "real", "prefix": "real"} for clock in clocks},
        clocks=dict.fromkeys(clocks, "generated"),
        early_stop=[_early_stop(size, 0.004 * size**0.8 * steps) for size in sizes],
    )
    return meta, {f"timing_{name}": values for name, values in samples.items()}


def run_beside(meta: TimingMeta, arrays: Mapping[str, Any], macs: list[int]) -> tuple[TimingMeta, dict[str, Any]]:
    """The model compiled, in half the time beside a reference in 0.8 of it, and on two threads in 0.6 of the time."""
    name = "timing_batch1_latency"
    plain, full = arrays[f"{name}_run_through"], arrays[f"{name}_reference"]
    more = {
        f"{name}_execution_compile": 0.5 * plain, f"{name}_reference_compile": 0.8 * full,
        f"{name}_execution_threads_2": 0.6 * plain,
    }  # fmt: skip
    said = {"best_threads": 2, "threads": 1, "macs": macs}
    return meta.model_copy(update=said), {**arrays, **{key: value.astype(np.float32) for key, value in more.items()}}


def _early_stop(size: int, seconds: NDArray[np.float64]) -> EarlyStopTiming:
    """Stopping at the middle exit, deciding for a tenth of the time; 0.01 of accuracy lost."""
    time = float(seconds[len(seconds) // 2])
    return EarlyStopTiming(
        policy="confidence >= 0.9", stop="real" if size == 1 else "simulated", batch_size=size, images=64,
        accuracy=0.8, final_accuracy=0.81, mean_exit=len(seconds) // 2, policy_share=0.1,
        latency=Spread(**dict.fromkeys(("p50", "p90", "p99", "mean", "low", "high"), time)),
    )  # fmt: skip


def make_span(exits: int, speed: float, run: str) -> dict[str, Any]:
    """Raw samples of operators: per exit one on the chain, a head, and a side branch that a second lane takes."""
    rng = np.random.default_rng([crc32(run.encode()), exits, 3])
    operators, answers = [], []
    for k in range(exits):
        chain = len(operators) - 3
        operators.append(Operator("conv2d", 700_000, (chain,) if k else ()))
        operators.append(Operator("conv2d", 300_000 + 80_000 * k, (chain,) if k else ()))
        operators.append(Operator("linear", 0, (len(operators) - 2, len(operators) - 1)))
        answers.append((len(operators) - 1,))
    graph = OperatorGraph(tuple(operators), tuple(answers))
    costs = np.tile([5e-4, 2e-4, 1e-4], exits) / speed
    noise = rng.normal(1, 0.005, (2, 9, len(graph)))
    samples = {
        **graph_to_arrays(graph),
        "calls": np.ones(len(graph), dtype=np.int16),
        "threads": np.array([1, 2], dtype=np.int16),
        "batch_size": np.array(1, dtype=np.int32),
        "seconds": ((np.array([1.0, 0.7])[:, None, None] * costs + 1e-5) * noise).astype(np.float32),
        "inside": (np.array([0.8, 0.5])[:, None] * costs).astype(np.float32),
        "latency": (costs.sum() * np.array([1.02, 0.7])[:, None] * rng.normal(1, 0.01, (2, 9))).astype(np.float32),
        "reference": (0.004 * np.array([1.0, 1.1])[:, None] * rng.normal(1, 0.005, 9)).astype(np.float32),
        "reference_answer": (0.003 * rng.normal(1, 0.005, 9)).astype(np.float32),
        "reference_calls": np.array(40, dtype=np.int32),
        "lanes": (costs.sum() * np.array([0.9, 0.75])[:, None] * rng.normal(1, 0.01, (2, 7))).astype(np.float32),
    }
    return {f"span_{name}": values for name, values in samples.items()}


def make_deadlines(test: Trace, speed: float, run: str, *, behind: float = 0.0, draws: int = 300) -> dict[str, Any]:
    """Raw samples of deadlines, delivered as the curve promises, only ``behind`` of H later; H is 40 ms.

    The known deadline is served as the others are, because the made-up times of an exit alone are those of the stream.
    """
    rng = np.random.default_rng([crc32(run.encode()), test.num_exits, 4])
    horizon, costs = 0.04, np.arange(1, test.num_exits + 1) / 5 / speed
    deadline = rng.uniform(0, 1, draws)
    image = rng.integers(0, test.num_samples, draws)
    newest = np.tile(np.searchsorted(costs + behind, deadline, side="right") - 1, (3, 1))
    late = np.where(rng.uniform(size=(3, draws)) < 0.1, 0.002, 0.0)
    samples = {
        "horizon": np.array(horizon),
        "kind": np.repeat(np.arange(3), draws // 3).astype(np.uint8),
        "image": image.astype(np.uint16),
        "deadline": (deadline * horizon).astype(np.float32),
        "exit": newest.astype(np.int8),
        "prediction": np.where(newest >= 0, test.predictions[newest, image], 0).astype(np.uint16),
        "late": late.astype(np.float16),
        "release": (late + 0.001).astype(np.float16),
        "reference": (horizon * rng.normal(1, 0.002, 15)).astype(np.float32),
        "run_through": (horizon * costs * rng.normal(1, 0.002, (15, test.num_exits))).astype(np.float32),
    }
    return {f"deadlines_{name}": values for name, values in samples.items()}


def make_streaming(skill: float, exits: int, speed: float, run: str) -> dict[str, Any]:
    """Raw samples of clips, answered the better the later the exit; a step of watching takes as long as two exits."""
    rng = np.random.default_rng([crc32(run.encode()), exits, 5])
    rates, frames, clips, rounds = (0.5, 1.0, 2.0), 12, 8, 9
    labels = rng.integers(0, CLASSES, (frames // 4, clips)).repeat(4, axis=0)
    costs = np.arange(1, exits + 1) / 5 / speed

    def answered(truth: NDArray[Any], chance: float) -> NDArray[Any]:
        wrong = rng.integers(0, CLASSES, truth.shape)
        return np.where(rng.uniform(size=truth.shape) < chance, truth, wrong).astype(np.uint16)

    samples = {
        "reference": np.full(rounds, 0.04, np.float32),
        "run_through": np.tile(0.04 * costs, (rounds, 1)).astype(np.float32),
        "full": np.full(rounds, 0.04 * costs[-1], np.float32),
        "step": np.full(rounds, 0.016 / speed, np.float32),
        "rates": np.array(rates),
        "labels": labels.astype(np.uint16),
        "classes": np.stack([answered(labels, skill * (k + 1) / exits) for k in range(exits)]),
    }
    clock = clock_of(samples)
    for number, rate in enumerate(rates):
        seen = [each.frame for each in follow("watch", clock, rate, frames)]
        samples[f"watched_{number}"] = answered(labels[seen], skill)
    return {f"streaming_{name}": values for name, values in samples.items()}


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
