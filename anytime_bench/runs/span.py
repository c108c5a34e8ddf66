"""Measure the parallel time of one method on one task, without training: speed needs no trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anytime_bench.errors import UserError
from anytime_bench.harness.operator_graph import SpanError
from anytime_bench.harness.span import Progress, SpanMeasurement, measure_span
from anytime_bench.runs.plan import build_model, pick_device, resolve, resolve_reference
from anytime_bench.tasks.loading import load_task
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.recipes import recipe_for

#: Test images from which the passes draw.
IMAGES = 256


@dataclass(frozen=True)
class SpanSubject:
    """What was measured: names, the declared ticks, and the measurement."""

    method: str
    task: str
    reference: str
    ticks: tuple[float, ...]
    measurement: SpanMeasurement


def span_of_method(
    method: str,
    task: str = "digits",
    *,
    overrides: Sequence[str] = (),
    data_root: Path | None = None,
    device: str = "auto",
    batch_size: int = 1,
    budget_seconds: float = 2.0,
    progress: Progress | None = None,
) -> SpanSubject:
    """The method's parallel time beside the recipe's reference model, with the options a run on ``task`` would use.

    ``overrides`` are ``key=value`` options of the method. Raises ``UserError`` for names, options and models that
    cannot be measured.
    """
    loaded, place = load_task(task, data_root), pick_device(device)
    recipe = recipe_for(task, None, place.type, loaded.card.shape)
    options = [override if override.startswith("options.") else f"options.{override}" for override in overrides]
    subject, beside = resolve(method, recipe, options), resolve_reference(recipe, {})
    if reason := subject.method.skip(loaded.card):
        raise UserError(f"method '{method}' cannot run on task '{task}': {reason}")
    model, reference = (build_model(each, loaded, 0, place) for each in (subject, beside))
    images = DeviceSplit.place(loaded.splits["test"], loaded.card, place).sample(IMAGES).normalised()
    try:
        measurement = measure_span(
            model, reference, images, budget_seconds=budget_seconds, batch_size=batch_size, progress=progress
        )
    except SpanError as error:
        raise UserError(f"method '{method}' on task '{task}': {error}") from error
    return SpanSubject(method, task, beside.name, tuple(float(tick) for tick in model.ticks), measurement)
