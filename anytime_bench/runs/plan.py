"""The plan of a run: methods resolved, options merged, costs counted, the output folder tried, before any work.

Everything that can be wrong with the input is found here and raised as ``UserError``. Trained weights live in
``<out>/<task>/<device>/<method>/<run key>/``; the key is equal for equal method, options, recipe, data and seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue, ValidationError

from anytime_bench.corruptions.catalogue import named
from anytime_bench.errors import UserError, describe, message
from anytime_bench.files import safe_name, short_hash
from anytime_bench.harness.cost import ExitCosts, count_costs
from anytime_bench.harness.deadlines import DeadlineSettings
from anytime_bench.harness.environment import capture
from anytime_bench.harness.torch_settings import restored_settings
from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.methods.plugins import method_class
from anytime_bench.records.record import Card, finite
from anytime_bench.registry import Origin
from anytime_bench.runs.disk import check_writable
from anytime_bench.runs.guard import time_limit
from anytime_bench.tasks.task import Task
from anytime_bench.training.config import Overrides, RunConfig, build_config, parsed_overrides
from anytime_bench.training.data import seeded
from anytime_bench.training.graphs import check_graph
from anytime_bench.training.recipe_names import check_names
from anytime_bench.training.recipes import recipe_for, reference_choice


@dataclass
class ResolvedMethod:
    """A method made concrete for a task: options filled in, weights source attached, not yet trained.

    ``overrides`` are those it was resolved with. ``weights_source`` is the method named by ``weights_from`` or
    ``starts_from``, resolved with those of them that concern it too.
    """

    name: str
    origin: Origin
    method: Method
    config: RunConfig
    overrides: dict[str, JsonValue] = field(default_factory=dict)
    weights_source: ResolvedMethod | None = None

    @property
    def options(self) -> dict[str, JsonValue]:
        """Every option that decides what this row is: its own, and those that only its weights source has."""
        inherited = self.weights_source.options if self.weights_source is not None else {}
        return finite({**inherited, **dataclasses.asdict(self.config.options)})

    @property
    def trained_by(self) -> ResolvedMethod:
        """The method whose training makes the weights: this one, or the source at the end of the chain."""
        if self.weights_source is not None and self.method.weights_from:
            return self.weights_source.trained_by
        return self

    def key(self, task: Task, seed: int) -> str:
        """Names the folder of the trained weights; a method without training of its own shares its source's."""
        if self.trained_by is not self:
            return self.trained_by.key(task, seed)
        parts: dict[str, object] = {
            "method": self.name,
            "origin": self.origin.identity,
            "options": self.options,
            "recipe": self.config.recipe(),
            "data": task.card.sha256,
            "seed": seed,
        }
        if self.weights_source is not None:
            parts["starts_from"] = self.weights_source.key(task, seed)
        return short_hash(parts)

    def folder(self, out: Path, device_name: str, task: Task, seed: int) -> Path:
        """Where the trained weights for ``task`` and ``seed`` live under ``out``."""
        names = map(safe_name, (task.card.name, device_name, self.trained_by.name))
        return out.joinpath(*names) / self.key(task, seed)


@dataclass
class Plan:
    """Everything decided about a run before it starts. ``out`` and ``data_root`` are absolute."""

    resolved: ResolvedMethod
    reference: ResolvedMethod
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
    #: Deadlines to interrupt the trained model at; None for none.
    deadlines: DeadlineSettings | None = None

    @property
    def folder(self) -> Path:
        return self.folder_of(self.resolved)

    def folder_of(self, resolved: ResolvedMethod) -> Path:
        """Where ``resolved``'s trained weights live under the plan's output folder."""
        return resolved.folder(self.out, self.device_name, self.task, self.seed)


def resolve(
    name: str, recipe: Mapping[str, Any], overrides: Overrides = (), takers: tuple[str, ...] = ()
) -> ResolvedMethod:
    """Find a method, merge its configuration, and do the same for the method whose weights it takes.

    ``takers`` are the methods that take this one's weights, of which none may be itself.

    An override of an option that only the weights source has (``lam=0.5`` for a wrapper of a method with ``lam``) is
    the source's.
    """
    target, origin, variant = method_class(name)
    values = parsed_overrides(overrides)
    foreign = {key: value for key, value in values.items() if option_name(key) not in (None, *_options_of(target))}
    own = {key: value for key, value in values.items() if key not in foreign}
    config = build_config(name, target, recipe, own, variant)
    method = configure(name, target, config)
    source_name = method.weights_from or method.starts_from
    source_class = method_class(source_name)[0] if source_name else None
    known = [] if source_class is None else _options_of(source_class)
    unknown = {key: value for key, value in foreign.items() if option_name(key) not in known}
    if unknown:
        # Raises, naming the nearest options of this method.
        build_config(name, target, recipe, unknown, variant)
    source = None
    if source_name and source_class is not None:
        chain = (*takers, name)
        if source_name in chain:
            raise UserError(f"method '{name}' takes its weights from itself: {' <- '.join((*chain, source_name))}.")
        source = resolve(source_name, recipe, for_source(values, source_class), chain)
        method.weights_source = source.method
    return ResolvedMethod(name, origin, method, config, values, source)


def reason_to_skip(resolved: ResolvedMethod, task: Task) -> str | None:
    """Why the method does not run on ``task``, in its own words, or None where it does."""
    try:
        reason = resolved.method.skip(task.card)
    except Exception as error:
        raise UserError(f"method '{resolved.name}': skip fails: {describe(error)}") from error
    if not isinstance(reason, str | None):
        raise UserError(f"method '{resolved.name}': skip must return text or None, got {reason!r:.60}.")
    return reason


def configure(name: str, target: type[Method], config: RunConfig) -> Method:
    """The method with its options; its own ``ValueError`` about a value becomes the user's, and so does a card that no
    record can hold."""
    try:
        method = target(config.options)
    except ValueError as error:
        raise UserError(f"method '{name}': {message(error)}") from error
    if hasattr(method, "card"):
        if not isinstance(method.card, MethodCard):
            raise UserError(f"method '{name}': card must be a MethodCard, got {type(method.card).__name__}.")
        try:
            Card.model_validate(finite(dataclasses.asdict(method.card)))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise UserError(f"method '{name}': its card's {place}: {fault['msg']}.") from error
    return method


def for_source(overrides: Mapping[str, JsonValue], source: type[Method]) -> dict[str, JsonValue]:
    """The overrides that concern a weights source too: training and data, and the options it has as well."""
    return {key: value for key, value in overrides.items() if option_name(key) in (None, *_options_of(source))}


def option_name(key: str) -> str | None:
    """The option an override names, or None where it belongs to a section that all methods share."""
    section, _, name = key.rpartition(".")
    shared = RunConfig()
    sections = ("training", "augment", "evaluation")
    if section in sections or (not section and any(hasattr(getattr(shared, each), name) for each in sections)):
        return None
    return name


def _options_of(method: type[Method]) -> list[str]:
    if not dataclasses.is_dataclass(method.Config):
        return []
    return [option.name for option in dataclasses.fields(method.Config)]


def build_model(resolved: ResolvedMethod, task: Task, seed: int, device: torch.device) -> AnytimeModel:
    """A freshly initialised model on the device. Every method's initial weights depend on the seed alone."""
    torch.manual_seed(int(torch.randint(0, 2**62, (), generator=seeded(seed, 0, 0))))
    try:
        with restored_settings(f"method '{resolved.name}'"), time_limit("building it"):
            model = resolved.method.build(task.card)
    except Exception as error:
        reason = message(error) if isinstance(error, ValueError) else describe(error)
        raise UserError(f"method '{resolved.name}' cannot be built for task '{task.card.name}': {reason}") from error
    if not isinstance(model, AnytimeModel):
        raise UserError(
            f"method '{resolved.name}': build must return an AnytimeModel, got {type(model).__name__}. "
            "Derive the model from anytime_bench.AnytimeModel."
        )
    if resolved.config.training.channels_last:
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
    if device.type == "cpu" and device.index is not None:
        raise UserError(f"device '{name}' has an index, which CUDA devices alone have. Use --device cpu.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device '{name}' was asked for, but torch finds no CUDA device. Use --device cpu, or see doctor."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device '{name}' was asked for, but there are {torch.cuda.device_count()} CUDA devices.")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device '{name}' is not supported. Expected auto, cpu, cuda or cuda:0.")
    if device.index is not None:
        torch.cuda.set_device(device)  # streams, events and graphs that name no device mean this one
    return device


def check_arguments(seed: object, overrides: object) -> None:
    """``UserError`` for a seed below 0 or no whole number, and for overrides that are one string."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"seed={seed!r}: expected a whole number, 0 or more.")
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r}: expected a list or a dictionary, such as [{overrides!r}].")


def make_plan(
    method: str,
    task: Task,
    *,
    seed: int = 0,
    overrides: Overrides = (),
    device: str = "auto",
    out: str | Path = "runs",
    resume: bool = False,
    recipe: str | Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    command: str = "",
) -> Plan:
    """Check the whole input and count costs, before anything is trained or written.

    ``recipe`` is a file, the name of an installed recipe, or a recipe as such.
    """
    # Whatever a plugin does to the working directory from here on moves nothing.
    out, data_root = Path(out).absolute(), Path(data_root).absolute() if data_root is not None else None
    place = pick_device(device)
    if not isinstance(recipe, Mapping):
        recipe = recipe_for(task.card.name, recipe, place.type, task.card.shape)
        check_names(recipe)
    values = parsed_overrides(overrides)
    reference = resolve_reference(recipe, values)
    resolved = resolve(method, recipe, {key: value for key, value in values.items() if not of_reference(key)})
    noise_choice(resolved.config.evaluation.noise)
    check_graph(resolved.trained_by.config.training, place)
    if place.type == "cpu" and resolved.config.evaluation.threads:
        torch.set_num_threads(resolved.config.evaluation.threads)
    environment = capture(place)
    skip = reason_to_skip(resolved, task)
    try:
        reference_costs = count_exits(reference, task, seed, place)
    except UserError as error:
        hint = "It is the reference: reference.KEY=VALUE sets its options, reference=NAME takes another."
        raise UserError(f"{str(error).rstrip('.')}. {hint}") from error
    plan = Plan(
        resolved=resolved,
        reference=reference,
        task=task,
        seed=seed,
        device=place,
        device_name=str(environment["device_class"]),
        out=out,
        resume=resume,
        costs=count_exits(resolved, task, seed, place) if skip is None else reference_costs,
        reference_costs=reference_costs,
        environment=environment,
        command=command,
        data_root=data_root,
        skip=skip,
    )
    check_writable(plan.folder)
    return plan


def noise_choice(choice: str) -> tuple[tuple[str, ...], bool]:
    """Kinds behind ``none``, ``paper``, ``common``, ``all`` or names separated by commas, and whether ``official``,
    the CIFAR-10-C files below the data root, is among them. Unknown names raise ``UserError`` with the nearest ones."""
    parts = [part.strip() for part in choice.split(",")]
    rest = [part for part in parts if part != "official"]
    return (named(",".join(rest)) if rest else ()), "official" in parts


def of_reference(key: str) -> bool:
    """Whether an override concerns the reference model and not the method."""
    return key == "reference" or key.startswith("reference.")


def resolve_reference(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> ResolvedMethod:
    """The model whose full cost is the unit of every horizon, with the recipe's options and ``reference.KEY``."""
    name, options = reference_choice(recipe, overrides)
    return resolve(name, recipe, {f"options.{key}": value for key, value in options.items()})


def count_exits(resolved: ResolvedMethod, task: Task, seed: int, device: torch.device) -> ExitCosts:
    """Ticks, MACs and parameters per exit; a model that breaks the contract shows it here, before training."""
    model = build_model(resolved, task, seed, device)
    try:
        with restored_settings(f"method '{resolved.name}'"), time_limit("its stream for one image"):
            return count_costs(model, task.card.shape, device)
    except Exception as error:
        reason = message(error) if isinstance(error, ValueError) else describe(error)
        raise UserError(f"method '{resolved.name}' on task '{task.card.name}': {reason}") from error
