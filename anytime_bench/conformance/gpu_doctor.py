"""``doctor --gpu``: everything that only a GPU can answer, in one command of a few minutes, as one table and one JSON.

Sections, in order: what disturbs, correctness of every installed method and its engine, corruptions, early stop, A/A,
latencies (with side-by-side lanes), training steps. Each keeps to its share of the time, and what does not fit is
named as skipped, with the command that gives it more. The methods are those of the recipe, at its sizes, untrained:
speed and rounding need no training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from anytime_bench.conformance.gpu_correctness import answers_agree, corruption_bits, engine_line, stops_alike
from anytime_bench.conformance.gpu_lines import Line, as_json, failed, table
from anytime_bench.conformance.gpu_speed import a_a, against_do_bench, latencies, training_steps
from anytime_bench.errors import UserError, describe
from anytime_bench.harness.clocks import on_device
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.environment import capture, findings
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.registry import methods
from anytime_bench.runs.plan import build_model, resolve, resolve_reference
from anytime_bench.tasks.task import Task, TaskCard
from anytime_bench.training.recipes import recipe_for

CARD = TaskCard("thumbnails", "Random 32x32 images", tuple("abcdefghij"), (3, 32, 32), {}, (0.5,) * 3, (0.25,) * 3)
#: The recipe whose sizes the models have.
RECIPE = "cifar10"


Report = Callable[[str], None]


@dataclass(frozen=True)
class Scope:
    """What is examined: ``names`` of methods (None: all installed), ``minutes`` at most, ``overrides`` of options."""

    device: torch.device
    minutes: float = 8.0
    names: tuple[str, ...] | None = None
    overrides: tuple[str, ...] = ()
    training_batch: int = 512


def examine(
    scope: Scope, report: Callable[[str], None] = lambda text: None
) -> tuple[list[Line], dict[str, Any], float]:
    """All lines, the machine they hold for, and how many seconds it took. ``report`` hears of each section."""
    begun = perf_counter()
    machine, lines = capture(scope.device, import_torchvision=True), []
    lines += [
        Line("environment", finding.what, finding.effect, values={"level": finding.level})
        for finding in findings(machine)
    ]
    watch = DisturbanceWatch(scope.device)
    with on_device(scope.device):
        torch.manual_seed(0)
        models, reference, skipped = _models(scope)
        lines += skipped
        for title, until, parts in _sections(scope, models, reference):
            report(f"{perf_counter() - begun:4.0f} s  {title}")
            lines += _within(title, begun + until * 60 * scope.minutes, begun + 60 * scope.minutes, parts)
    lines += [Line("environment", "while examining", reason, "undisturbed") for reason in watch.finish()]
    return lines, machine, perf_counter() - begun


def write(folder: Path, lines: list[Line], machine: dict[str, Any], seconds: float) -> tuple[Path, Path]:
    """``gpu_doctor.md`` and ``gpu_doctor.json`` in ``folder``."""
    driver = (machine.get("gpu") or {}).get("driver")
    title = f"{machine['device_name']}, driver {driver}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    paths = folder / "gpu_doctor.md", folder / "gpu_doctor.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(table(title, lines, seconds))
        paths[1].write_text(json.dumps(as_json(machine, lines, seconds), default=str, indent=1) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write to '{folder}': {error.strerror or error}. Choose another folder with --out."
        ) from error
    return paths


def doctor_gpu(scope: Scope, folder: Path, report: Report) -> bool:
    """Examine, write, and say whether every correctness line holds."""
    lines, machine, seconds = examine(scope, report)
    markdown, _ = write(folder, lines, machine, seconds)
    report(markdown.read_text())
    return not failed(lines)


Part = tuple[str, Callable[[], Iterable[Line]]]


def _sections(
    scope: Scope, models: dict[str, AnytimeModel], reference: AnytimeModel
) -> Iterator[tuple[str, float, list[Part]]]:
    """Title, share of the time by which it must have begun its last part, and its parts."""
    device, seconds = scope.device, 60 * scope.minutes
    images = torch.randn(64, *CARD.shape, generator=torch.Generator().manual_seed(1))
    few, there = images[:4], images.to(device)
    rows = list(models.items())
    budget = max(0.08 * seconds / max(len(rows), 1), 0.3)
    compacting = [(name, model) for name, model in rows if model.compacts][:3]
    yield "answers", 0.35, [(name, _call(answers_agree, name, m, reference, few, device)) for name, m in rows]
    yield "engine", 0.40, [(name, _call(_one, engine_line, name, m, reference, there[:1])) for name, m in rows]
    yield "corruption", 0.45, [("all kinds", _call(corruption_bits, images[:8].sigmoid(), device))]
    yield "early stop", 0.50, [(name, _call(stops_alike, name, m, images, device)) for name, m in compacting]
    yield (
        "A/A",
        0.60,
        [
            ("two copies", _call(a_a, device, 0.03 * seconds)),
            ("another clock", _call(against_do_bench, device, 0.02 * seconds)),
        ],
    )
    yield (
        "latency",
        0.88,
        [(name, _call(latencies, name, m, reference, there, budget)) for name, m in rows],
    )
    steps = [
        (name, _call(training_steps, name, m, device, CARD.shape, scope.training_batch, 7))
        for name, m in rows
        if "dense" in getattr(m, "executions", dict)()
    ]
    yield "training", 1.0, steps


def _call(function: Callable[..., Iterable[Line]], *arguments: Any) -> Callable[[], Iterable[Line]]:
    return lambda: function(*arguments)


def _one(function: Callable[..., Line], *arguments: Any) -> Iterable[Line]:
    return [function(*arguments)]


def _within(section: str, last_begin: float, end: float, parts: list[Part]) -> Iterator[Line]:
    """The lines of all parts that begin before ``last_begin``, as far as they come before ``end``; one part's failure
    must not cost the others' lines."""
    for name, part in parts:
        if perf_counter() > last_begin:
            yield Line(section, name, "no time was left: give more with --minutes", verdict="skipped")
            continue
        try:
            for line in part():
                yield line
                if perf_counter() > end:
                    yield Line(section, f"{name}: the rest", "time was over: more with --minutes", verdict="skipped")
                    break
        except Exception as error:
            correctness = section in ("answers", "corruption", "early stop")
            yield Line(section, name, describe(error), "no error", verdict="FAILS", correctness=correctness)


def _models(scope: Scope) -> tuple[dict[str, AnytimeModel], AnytimeModel, list[Line]]:
    """Every method that can be built, the reference, and a line for each that cannot."""
    recipe, task = recipe_for(RECIPE, None, scope.device.type, CARD.shape), Task(CARD, {})
    models: dict[str, AnytimeModel] = {}
    lines = []
    for name in scope.names or methods.names():
        try:
            resolved = resolve(name, recipe, list(scope.overrides))
            models[name] = build_model(resolved, task, 0, scope.device).eval()
        except (UserError, ImportError) as error:
            lines.append(Line("answers", name, str(error), verdict="skipped"))
    reference = build_model(resolve_reference(recipe, {}), task, 0, scope.device).eval()
    return models, reference, lines
