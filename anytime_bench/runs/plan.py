"""The plan of a run: methods resolved, options merged, costs counted, the output folder tried, before any work.

Everything that can be wrong with the input is found here and raised as ``UserError``. Trained weights live in
``<out>/<task>/<device>/<method>/<run key>/``; the key is equal for equal method, options, recipe, data and seed.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anytime_bench.corruptions.catalogue import named
from anytime_bench.errors import UserError, describe
from anytime_bench.harness.cost import ExitCosts, count_costs
from anytime_bench.harness.environment import capture
from anytime_bench.methods.contract import AnytimeModel, Method
from anytime_bench.methods.plugins import method_class
from anytime_bench.records.record import finite
from anytime_bench.registry import Origin
from anytime_bench.tasks.task import Task
from anytime_bench.training import checkpoints
from anytime_bench.training.config import RunConfig, build_config
from anytime_bench.training.data import seeded
from anytime_bench.training.recipes import recipe_for


@dataclass
class Row:
    """A method made concrete for a task: options filled in, lender attached, not yet trained."""

    name: str
    origin: Origin
    method: Method
    config: RunConfig
    lender: Row | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Every option that decides what this row is: its own, and those that only its lender has."""
        lent = self.lender.options if self.lender is not None else {}
        return finite({**lent, **dataclasses.asdict(self.config.options)})

    def key(self, task: Task, seed: int) -> str:
        """Names the folder of the trained weights; a borrower without training of its own shares the lender's."""
        if self.lender is not None and self.method.weights_from:
            return self.lender.key(task, seed)
        parts: dict[str, object] = {
            "method": self.name,
            "origin": self.origin.identity,
            "options": self.options,
            "recipe": self.config.recipe(),
            "data": task.card.sha256,
            "seed": seed,
        }
        if self.lender is not None:
            parts["starts_from"] = self.lender.key(task, seed)
        return checkpoints.run_key(parts)

    @property
    def trained_name(self) -> str:
        """The row whose training makes the weights: this one, or the lender at the end of the chain."""
        return self.lender.trained_name if self.lender is not None and self.method.weights_from else self.name


@dataclass
class Plan:
    """Everything decided about a run before it starts."""

    row: Row
    reference: Row
    task: Task
    seed: int
    device: torch.device
    device_name: str
    out: Path
    resume: bool
    costs: ExitCosts
    reference_costs: ExitCosts
    environment: dict[str, Any]
    command: str
    data_root: Path | None = None
    skip: str | None = None

    @property
    def folder(self) -> Path:
        return weights_folder(self, self.row)


def weights_folder(plan: Plan, row: Row) -> Path:
    """Where ``row``'s trained weights live under the plan's output folder."""
    return weights_path(plan.out, plan.device_name, row, plan.task, plan.seed)


def weights_path(out: Path, device_name: str, row: Row, task: Task, seed: int) -> Path:
    """Where ``row``'s trained weights for ``task`` and ``seed`` live under ``out``."""
    name = row.trained_name.replace("/", "-").replace(":", "-")
    return out / task.card.name.replace("/", "-").replace(":", "-") / device_name / name / row.key(task, seed)


def make_row(name: str, recipe: Mapping[str, Any], overrides: Iterable[str] = ()) -> Row:
    """Resolve a method, merge its configuration, and do the same for the method it borrows weights from.

    An override of an option that only the lender has (``lam=0.5`` for ``product_of_experts/cascaded_td``) is the
    lender's.
    """
    target, origin, variant = method_class(name)
    overrides = list(overrides)
    foreign = [o for o in overrides if _option_name(o) not in (None, *_options_of(target))]
    own = [override for override in overrides if override not in foreign]
    config = build_config(name, target, recipe, own, variant)
    method = configure(name, target, config)
    lender_name = method.weights_from or method.starts_from
    lender_class = method_class(lender_name)[0] if lender_name else None
    unknown = [o for o in foreign if lender_class is None or _option_name(o) not in _options_of(lender_class)]
    if unknown:
        build_config(name, target, recipe, unknown, variant)
    lender = None
    if lender_name and lender_class is not None:
        lender = make_row(lender_name, recipe, lendable(overrides, lender_class))
        method.lender = lender.method
    return Row(name, origin, method, config, lender)


def configure(name: str, target: type[Method], config: RunConfig) -> Method:
    """The method with its options; its own ``ValueError`` about a value becomes the user's."""
    try:
        return target(config.options)
    except ValueError as error:
        raise UserError(f"method '{name}': {error}") from error


def lendable(overrides: Iterable[str], lender: type[Method]) -> list[str]:
    """The overrides that concern the lender too: training and data, and the options it shares with the borrower."""
    return [override for override in overrides if _option_name(override) in (None, *_options_of(lender))]


def _option_name(override: str) -> str | None:
    """The option an override names, or None where it belongs to a section that all methods share."""
    section, _, name = override.partition("=")[0].rpartition(".")
    shared = RunConfig()
    sections = ("training", "augment", "evaluation")
    if section in sections or (not section and any(hasattr(getattr(shared, each), name) for each in sections)):
        return None
    return name


def _options_of(method: type[Method]) -> list[str]:
    if not dataclasses.is_dataclass(method.Config):
        return []
    return [field.name for field in dataclasses.fields(method.Config)]


def build_model(row: Row, task: Task, seed: int, device: torch.device) -> AnytimeModel:
    """A freshly initialised model on the device. Every method's initial weights depend on the seed alone."""
    torch.manual_seed(int(torch.randint(0, 2**62, (), generator=seeded(seed, 0, 0))))
    try:
        model = row.method.build(task.card)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"method '{row.name}' cannot be built for task '{task.card.name}': {error}") from error
    if not isinstance(model, AnytimeModel):
        raise UserError(
            f"method '{row.name}': build must return an AnytimeModel, got {type(model).__name__}. "
            "Derive the model from anytime_bench.AnytimeModel."
        )
    if row.config.training.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda[:i]``; a GPU that is not there is an error, not a silent CPU run."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device '{name}' is unknown. Expected auto, cpu, cuda or cuda:0.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device '{name}' was asked for, but torch finds no CUDA device. Use --device cpu, or see doctor."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{name}' was asked for, but there are {torch.cuda.device_count()} CUDA devices.")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device '{name}' is not supported. Expected auto, cpu, cuda or cuda:0.")
    return device


def make_plan(
    method: str,
    task: Task,
    *,
    seed: int = 0,
    overrides: Iterable[str] = (),
    device: str = "auto",
    out: str | Path = "runs",
    resume: bool = False,
    recipe_file: str | None = None,
    data_root: str | Path | None = None,
    command: str = "",
) -> Plan:
    """Check the whole input and count costs, before anything is trained or written."""
    place = pick_device(device)
    recipe = recipe_for(task.card.name, recipe_file, place.type)
    row = make_row(method, recipe, overrides)
    reference = make_row(str(recipe.get("reference", "serial_ce")), recipe)
    for part in row.config.evaluation.noise.split(","):
        if part.strip() != "official":
            named(part.strip())
    if place.type == "cpu" and row.config.evaluation.threads:
        torch.set_num_threads(row.config.evaluation.threads)
    environment = capture(place)
    skip = row.method.skip(task.card)
    costs = [
        count_row(each, task, seed, place) if skip is None or each is reference else None for each in (row, reference)
    ]
    assert costs[1] is not None
    plan = Plan(
        row=row,
        reference=reference,
        task=task,
        seed=seed,
        device=place,
        device_name=str(environment["device_class"]),
        out=Path(out),
        resume=resume,
        costs=costs[0] or costs[1],
        reference_costs=costs[1],
        environment=environment,
        command=command,
        data_root=Path(data_root) if data_root is not None else None,
        skip=skip,
    )
    check_writable(plan.folder)
    return plan


def count_row(row: Row, task: Task, seed: int, device: torch.device) -> ExitCosts:
    """Ticks, MACs and parameters per exit; a model that breaks the contract is found out here, before training."""
    model = build_model(row, task, seed, device)
    try:
        return count_costs(model, task.card.shape, device)
    except Exception as error:
        told = str(error) if isinstance(error, ValueError) else describe(error)
        raise UserError(f"method '{row.name}' on task '{task.card.name}': {told}") from error


def check_writable(folder: Path) -> None:
    """Create the output folder and try a small file in it, so that a run does not train for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise UserError(
            f"cannot write to the output folder '{folder}': {error.strerror or error}. Choose another one with --out."
        ) from error
