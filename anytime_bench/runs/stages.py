"""The stages of a run that look at a trained model: its answers, its times, its answers under noise.

Each returns arrays as the record's ``.npz`` keeps them; nothing is scored here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.corruptions.catalogue import named
from anytime_bench.corruptions.cifar10c import OfficialFiles
from anytime_bench.harness.early_stop import confident, stop_early
from anytime_bench.harness.noise import evaluate_noise
from anytime_bench.harness.policies import ExitCosts as NoiseCosts
from anytime_bench.harness.predict import predict
from anytime_bench.harness.timing import time_exits
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import Plan, build_model
from anytime_bench.trace.answers import Trace
from anytime_bench.training.data import DeviceSplit

#: Images and threshold of the early-stop measurement: what a policy's decisions cost, not which threshold is best.
EARLY_STOP_IMAGES = 256
CONFIDENCE = 0.9

Arrays = dict[str, NDArray[Any]]


def noise_choice(choice: str) -> tuple[tuple[str, ...], bool]:
    """Kinds behind ``none``, ``paper``, ``common``, ``all`` or names separated by commas, and whether ``official``,
    the CIFAR-10-C files below the data root, is among them. Unknown names raise ``UserError`` with the nearest ones."""
    parts = [part.strip() for part in choice.split(",")]
    rest = [part for part in parts if part != "official"]
    return (named(",".join(rest)) if rest else ()), "official" in parts


def predict_stage(plan: Plan, model: AnytimeModel, display: Display) -> Arrays:
    """The traces of the validation and the test split."""
    arrays: Arrays = {}
    card = plan.task.card
    with display.bar("predict", card.sizes["val"] + card.sizes["test"]) as advance:
        for key in ("val", "test"):
            split = DeviceSplit.place(plan.task.splits[key], card, plan.device)
            logits = predict(model, split, plan.row.config.evaluation.prediction_batch, advance)
            arrays.update(Trace.from_logits(logits, plan.task.splits[key].labels).to_arrays(key))
    return arrays


def timing_stage(plan: Plan, model: AnytimeModel, display: Display) -> tuple[Arrays, dict[str, Any] | None]:
    """Raw timing samples against the reference, an untrained twin of the same architecture: speed needs no training."""
    settings = plan.row.config.evaluation
    if settings.timing_rounds == 0:
        return {}, None
    reference = build_model(plan.reference, plan.task, plan.seed, plan.device).eval()
    split = DeviceSplit.place(plan.task.splits["test"], plan.task.card, plan.device).sample(512)
    with display.bar("time", 1000) as advance:
        done = 0

        def report(share: float, what: str) -> None:
            nonlocal done
            advance(int(1000 * share) - done, what)
            done = int(1000 * share)

        timing = time_exits(
            model, reference, split.normalised(), device=plan.device, engine=settings.engine,
            batch_sizes=settings.timing_batches, rounds=settings.timing_rounds,
            budget_seconds=settings.timing_budget, seed=plan.seed, precision=settings.timing_precision,
            threads=settings.threads or None, cache=settings.cache, progress=report,
        )  # fmt: skip
    meta = {**timing.meta, "early_stop": early_stop(model, split, settings.timing_batches, display)}
    return {f"timing_{name}": np.asarray(value) for name, value in timing.samples.items()}, meta


def early_stop(model: AnytimeModel, split: DeviceSplit, batch_sizes: Sequence[int], display: Display) -> list[Any]:
    """Stopping for real, per batch size: the host decides after each exit by the confidence of its answer."""
    found = []
    split = split.sample(EARLY_STOP_IMAGES)
    images = split.normalised()
    with display.bar("stop early", len(batch_sizes) * len(split)) as advance:
        for size in batch_sizes:
            done = 0

            def report(count: int) -> None:
                nonlocal done
                advance(count - done)
                done = count

            stopped = stop_early(
                model, images, split.labels, confident(CONFIDENCE), batch_size=size, progress=report
            ).summary()
            found.append({"policy": f"confidence >= {CONFIDENCE}", **stopped})
    return found


def noise_stage(plan: Plan, model: AnytimeModel, choice: str, display: Display) -> Arrays:
    """Correctness of every answer under the chosen noise (see ``noise_choice``), on the test split."""
    kinds, with_official = noise_choice(choice)
    if not kinds and not with_official:
        return {}
    official = OfficialFiles(plan.data_root or Path("data")) if with_official else None
    card, settings = plan.task.card, plan.row.config.evaluation
    split = DeviceSplit.place(plan.task.splits["test"], card, plan.device)
    # The official files are in the order of CIFAR-10's test split, which is not sorted.
    split = split.first(settings.noise_images) if official else split.sample(settings.noise_images)
    costs = NoiseCosts(plan.costs.ticks, [float(value) for value in plan.costs.macs])
    with display.bar("noise", 1.0) as advance:
        done = 0.0

        def report(count: int, total: int) -> None:
            nonlocal done
            advance(count / total - done)
            done = count / total

        # As many frames as the reference is deep, so that every method is shown the same ones.
        frames = math.ceil(max(plan.reference_costs.ticks[-1], plan.costs.ticks[-1]))
        result = evaluate_noise(
            model, split.normalised(), split.labels, task=card, kinds=kinds, num_frames=frames, costs=costs,
            batch_size=settings.prediction_batch, official=official, progress=report,
        )  # fmt: skip
    return dict(result.arrays())
