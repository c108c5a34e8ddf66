"""The stages of a run that look at a trained model: its answers, its times, its answers under noise.

Each returns arrays as the record's ``.npz`` keeps them; nothing is scored here. A sweep trains and predicts many runs
at once but times each one alone, later: ``untimed_stages`` keeps what it made in the run's folder, in a file named by
everything that decides its content next to the weights, with their SHA-256 inside. What cannot be read, or belongs to
other weights, is made again.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_bench.corruptions.cifar10c import OfficialFiles
from anytime_bench.files import npz_bytes, short_hash, write_atomically
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.deadline_summary import DeadlineMeta
from anytime_bench.harness.deadlines import DeadlineSettings, serve_deadlines
from anytime_bench.harness.early_stop import confident, stop_early
from anytime_bench.harness.noise import NoiseSettings, evaluate_noise
from anytime_bench.harness.policies import PassCosts
from anytime_bench.harness.predict import predict
from anytime_bench.harness.span import measure_span
from anytime_bench.harness.span_summary import SpanMeta
from anytime_bench.harness.streaming_clips import StreamingSettings, make_clips, play_clips
from anytime_bench.harness.streaming_summary import StreamingMeta
from anytime_bench.harness.timing import TimingSettings
from anytime_bench.harness.timing_block import EarlyStopTiming, TimingMeta
from anytime_bench.harness.timing_processes import TimingProcesses, time_in_processes
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.records.record import PROTOCOL_VERSION
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import Plan, build_model, noise_choice
from anytime_bench.runs.progress import Steps
from anytime_bench.scores.stopping_budgets import learn_rules
from anytime_bench.trace.answers import Trace
from anytime_bench.trace.prediction_sets import nested_sets
from anytime_bench.training.checkpoints import storage_errors
from anytime_bench.training.data import DeviceSplit, Normalised

#: Images and threshold of the early-stop measurement: what a policy's decisions cost, not which threshold is best.
EARLY_STOP_IMAGES = 256
CONFIDENCE = 0.9

#: Images from which the passes of the span measurement draw, and its time as a share of the timing's.
SPAN_IMAGES = 256
SPAN_SHARE = 0.04

Arrays = dict[str, NDArray[Any]]
#: The entry of a prepared file that names the weights.
WEIGHTS = "weights_sha256"


def untimed_stages(plan: Plan, model: AnytimeModel, weights_sha256: str, display: Display, keep: bool) -> Arrays:
    """Traces and noise, in which no clock takes part: read from the run's folder, or made now and kept if asked."""
    arrays = read_prepared(plan, weights_sha256) if plan.resume else None
    if arrays is None:
        arrays = predict_stage(plan, model, display)
        arrays |= noise_stage(plan, model, plan.resolved.config.evaluation.noise, display)
        if keep:
            write_prepared(plan, arrays, weights_sha256)
    return arrays


def predict_stage(plan: Plan, model: AnytimeModel, display: Display) -> Arrays:
    """The traces of the validation and the test split, the latter with prediction sets calibrated on the former."""
    logits: Arrays = {}
    card = plan.task.card
    with display.bar("predict", card.sizes["val"] + card.sizes["test"]) as advance:
        for key in ("val", "test"):
            split = DeviceSplit.place(plan.task.splits[key], card, plan.device)
            logits[key] = predict(model, split, plan.resolved.config.evaluation.prediction_batch, advance)
    labels = {key: plan.task.splits[key].labels for key in logits}
    traces = {key: Trace.from_logits(logits[key], labels[key]) for key in logits}
    size, own, covers = nested_sets(logits["val"], labels["val"], logits["test"], labels["test"])
    traces["test"] = dataclasses.replace(traces["test"], set_size=size, set_own=own, set_covers=covers)
    return {name: array for key, trace in traces.items() for name, array in trace.to_arrays(key).items()}


def timing_processes(plan: Plan) -> TimingProcesses:
    """The processes that ``timing_stage`` needs, started now, so that they are ready when the model is."""
    settings = plan.resolved.config.evaluation
    elsewhere = settings.timing_rounds > 0 and settings.timing_processes > 1
    return TimingProcesses(settings.timing_processes if elsewhere else 0, plan.device)


def timing_stage(
    plan: Plan, model: AnytimeModel, display: Display, started: TimingProcesses | None = None
) -> tuple[Arrays, TimingMeta | None]:
    """Raw timing samples against the reference, an untrained twin of the same architecture: speed needs no training."""
    settings = plan.resolved.config.evaluation
    if settings.timing_rounds == 0:
        return {}, None
    reference = build_model(plan.reference, plan.task, plan.seed, plan.device).eval()
    split = DeviceSplit.place(plan.task.splits["test"], plan.task.card, plan.device).sample(512)
    with display.bar("time", 1.0) as bar:
        timing = time_in_processes(
            model, reference, split.normalised(), plan.device, timing_settings(plan), bar.at, started
        )
    stops = early_stop(model, split, settings.timing_batches, display)
    meta = timing.meta.model_copy(update={"early_stop": stops})
    return {f"timing_{name}": np.asarray(value) for name, value in timing.samples.items()}, meta


def span_stage(plan: Plan, model: AnytimeModel, display: Display) -> tuple[Arrays, SpanMeta | None]:
    """The model's operators and their times beside an untrained reference's; left out where nothing is timed."""
    settings = plan.resolved.config.evaluation
    if settings.timing_rounds == 0:
        return {}, None
    reference = build_model(plan.reference, plan.task, plan.seed, plan.device).eval()
    images = DeviceSplit.place(plan.task.splits["test"], plan.task.card, plan.device).sample(SPAN_IMAGES).normalised()
    with display.bar("span", 1.0) as bar:
        measurement = measure_span(
            model, reference, images, budget_seconds=SPAN_SHARE * settings.timing_budget, seed=plan.seed,
            progress=bar.at,
        )  # fmt: skip
    return {f"span_{name}": array for name, array in measurement.samples.items()}, measurement.meta


def deadline_stage(
    plan: Plan, model: AnytimeModel, settings: DeadlineSettings, display: Display
) -> tuple[Arrays, DeadlineMeta]:
    """The model interrupted at deadlines, on the test split, beside an untrained reference; a draw per seed."""
    settings = settings if settings.seed is not None else dataclasses.replace(settings, seed=plan.seed)
    reference = build_model(plan.reference, plan.task, plan.seed, plan.device).eval()
    images = Normalised(DeviceSplit.place(plan.task.splits["test"], plan.task.card, plan.device))
    with display.bar("deadlines", 1.0) as bar:
        session = serve_deadlines(model, reference, images, settings, lambda share, what: bar.at(share))
    return {f"deadlines_{name}": array for name, array in session.samples.items()}, session.meta


def streaming_stage(
    plan: Plan, model: AnytimeModel, settings: StreamingSettings, display: Display
) -> tuple[Arrays, StreamingMeta]:
    """Clips of noisy test images before the model, beside an untrained reference; a draw per seed."""
    settings = settings if settings.seed is not None else dataclasses.replace(settings, seed=plan.seed)
    reference = build_model(plan.reference, plan.task, plan.seed, plan.device).eval()
    split = DeviceSplit.place(plan.task.splits["test"], plan.task.card, plan.device)
    clips = make_clips(Normalised(split), split.labels, plan.task.card, settings)
    with display.bar("frames", 1.0) as bar:
        samples, meta = play_clips(model, reference, clips, settings, bar.at)
    return {f"streaming_{name}": array for name, array in samples.items()}, meta


def timing_settings(plan: Plan) -> TimingSettings:
    """What the run's configuration says of timing."""
    settings = plan.resolved.config.evaluation
    return TimingSettings(
        engine=settings.engine,
        batch_sizes=tuple(settings.timing_batches),
        rounds=settings.timing_rounds,
        budget_seconds=settings.timing_budget,
        processes=settings.timing_processes,
        seed=plan.seed,
        threads=settings.threads or None,
        precision=settings.timing_precision,
        cache=settings.cache,
        beside=tuple(settings.timing_beside),
        macs=tuple(plan.costs.macs),
    )


def early_stop(
    model: AnytimeModel, split: DeviceSplit, batch_sizes: Sequence[int], display: Display
) -> list[EarlyStopTiming]:
    """Stopping for real, per batch size: the host decides after each exit by the confidence of its answer."""
    runs = []
    split = split.sample(EARLY_STOP_IMAGES)
    images = split.normalised()
    with evaluating(model):
        final = torch.cat([model.answer(part, model.num_exits - 1).argmax(1) for part in images.split(64)])
    final_accuracy = float((final == split.labels).float().mean())
    with display.bar("stop early", len(batch_sizes) * len(split)) as bar:
        for number, size in enumerate(batch_sizes):
            report = partial(_after, bar, number * len(split))
            stopped = stop_early(
                model, images, split.labels, confident(CONFIDENCE), batch_size=size, beside=True, progress=report
            )
            runs.append(stopped.summary(f"confidence >= {CONFIDENCE}", final_accuracy))
    return runs


def _after(bar: Steps, before: float, count: float) -> None:
    bar.at(before + count)


def noise_stage(plan: Plan, model: AnytimeModel, choice: str, display: Display) -> Arrays:
    """Correctness of every answer under the chosen noise (see ``noise_choice``), on the test split."""
    kinds, with_official = noise_choice(choice)
    if not kinds and not with_official:
        return {}
    official = OfficialFiles(plan.data_root or Path("data")) if with_official else None
    card, settings = plan.task.card, plan.resolved.config.evaluation
    split = DeviceSplit.place(plan.task.splits["test"], card, plan.device)
    # The official files are in the order of CIFAR-10's test split, which is not sorted.
    split = split.first(settings.noise_images) if official else split.sample(settings.noise_images)
    costs = PassCosts(plan.costs.ticks, [float(value) for value in plan.costs.macs], float(plan.costs.macs_prefix[-1]))
    with display.bar("noise", 1.0) as bar:
        # As many frames as the reference is deep, so that every method is shown the same ones.
        frames = math.ceil(max(plan.reference_costs.ticks[-1], plan.costs.ticks[-1]))
        noise = NoiseSettings(kinds=kinds, num_frames=frames, batch_size=settings.prediction_batch)
        result = evaluate_noise(
            model, Normalised(split), split.labels, card, noise, costs, official,
            progress=lambda count, total: bar.at(count, total=total),
        )  # fmt: skip
    return dict(result.arrays())


def learning_stage(plan: Plan, arrays: Arrays, display: Display) -> Arrays:
    """What the stopping rules that learn make of the validation split's trace, where the run asks for them."""
    if not plan.resolved.config.evaluation.learned_rules:
        return {}
    display.say("learn the stopping rules")
    cost = np.asarray(plan.costs.macs, dtype=np.float64) / plan.reference_costs.macs_prefix[-1]
    return learn_rules(Trace.from_arrays(arrays, "val"), cost)


def prepared_path(plan: Plan) -> Path:
    """Where the arrays of ``plan`` wait for their timing."""
    evaluation = dataclasses.asdict(plan.resolved.config.evaluation)
    parts = {key: evaluation[key] for key in ("prediction_batch", "noise", "noise_images")}
    resolved = plan.resolved
    name = short_hash({"method": resolved.name, "options": resolved.options, "protocol": PROTOCOL_VERSION, **parts})
    return plan.folder / f"prepared-{name}.npz"


def write_prepared(plan: Plan, arrays: Arrays, weights_sha256: str) -> None:
    """Keep ``arrays``, made with the weights of this hash. Raises ``UserError`` where the disk is full."""
    with storage_errors(plan.folder):
        write_atomically(prepared_path(plan), npz_bytes({**arrays, WEIGHTS: np.array(weights_sha256)}, quick=True))


def read_prepared(plan: Plan, weights_sha256: str) -> Arrays | None:
    """The arrays kept for these weights, or None where there are none."""
    try:
        with np.load(prepared_path(plan), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return arrays if str(arrays.pop(WEIGHTS, "")) == weights_sha256 else None
