"""Configuration: dataclasses merged by OmegaConf, defaults < recipe < command line. A typo is an error.

A recipe is a YAML file per task, shared by all methods, with per-method exceptions visible in it::

    reference: first_method              # whose full cost is the unit of every horizon
    training: {epochs: 30, lr: 0.1}
    augment: {crop_padding: 1}
    options: {width: 16}                 # given to every method that has such an option
    methods:
      second_method: {training: {weight_decay: 1e-4}, options: {channels: 8}, why: "its paper's weight decay"}

Overrides on the command line are ``section.key=value``; the section may be left out where the key is unique.
``reference=NAME`` takes another reference and ``reference.key=value`` sets an option of it; in a recipe file that is
``reference: {method: first_method, options: {width: 64}}``.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anytime_bench.errors import UserError, did_you_mean, message
from anytime_bench.files import canonical_json
from anytime_bench.methods.options import merged, option_defaults, typed


@dataclass
class TrainingConfig:
    """How weights are trained. ``lr`` is the peak; ``warmup`` and ``milestones`` count epochs.

    ``optimizer`` names one of ``torch.optim`` and ``optimizer_args`` its further keywords; ``decay_norms=false`` spares
    norms and biases; ``accumulate`` batches make one step. ``precision`` is that of the forward pass (weights stay
    float32); ``auto`` is bfloat16 where the device multiplies in it.
    ``deterministic`` asks a GPU's convolutions and attention for repeatable bits; on a CPU they repeat anyway.
    ``compile`` compiles the model's forward pass; ``graph`` replays whole steps as CUDA graphs (see ``graphs``).
    """

    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "sgd"
    optimizer_args: dict[str, Any] = field(default_factory=dict)  # whatever the optimiser of torch takes
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norms: bool = True
    schedule: str = "cosine"
    warmup: float = 0.0
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.2
    clip_norm: float = 0.0
    accumulate: int = 1
    precision: str = "auto"
    channels_last: bool = True
    deterministic: bool = True
    compile: bool = False
    graph: bool = False
    train_images: int = 0


@dataclass
class AugmentConfig:
    """Random crop after padding, horizontal flip, square occlusion, in pixels; 0 or false leaves a step out."""

    crop_padding: int = 0
    crop_mode: str = "reflect"
    flip: bool = False
    occlusion: int = 0


@dataclass
class EvaluationConfig:
    """How a trained model is examined. ``timing_budget`` is the seconds that timing may take, over all of
    ``timing_processes``, until every ratio is known to 2 %; 0 rounds leave timing out. ``timing_beside`` names further
    ways to run a model on a CPU: "threads" (as many as it is fastest with) and "compile"."""

    prediction_batch: int = 512
    timing_rounds: int = 30
    timing_budget: float = 50.0
    timing_processes: int = 3
    timing_batches: list[int] = field(default_factory=lambda: [1, 64])
    timing_beside: list[str] = field(default_factory=lambda: ["threads"])
    engine: str = "auto"
    timing_precision: str = "fp32"
    threads: int = 0
    cache: str = "warm"
    noise: str = "none"
    noise_images: int = 0
    resamples: int = 2000
    #: Whether the stopping rules that learn (trace GRU, EENet) are fitted too: some seconds on the CPU.
    learned_rules: bool = False


@dataclass
class RunConfig:
    """Everything that decides a run, next to method, task, seed, device and reference."""

    recipe_name: str = ""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    options: Any = None

    def recipe(self) -> Settings:
        """What decides the weights apart from method, task, seed: goes into the record and the run's key."""
        training = dataclasses.asdict(self.training)
        if not self.training.graph:  # younger than the records whose hashes are without it
            del training["graph"]
        return {"training": training, "augment": dataclasses.asdict(self.augment)}

    def recipe_sha256(self) -> str:
        return hashlib.sha256(canonical_json(self.recipe()).encode()).hexdigest()


#: Settings by name as YAML and the command line hold them: numbers, words, truth values, lists and mappings of them.
#: ``build_config`` makes typed ones of them.
Settings = dict[str, Any]
#: ``["epochs=5", ...]`` as on a command line, or keys and values.
Overrides = Iterable[str] | Mapping[str, Any]

SECTIONS = ("training", "augment", "evaluation", "options")
CHOICES = {
    "training.schedule": ("cosine", "linear", "step", "constant"),
    "training.precision": ("auto", "fp32", "bf16"),
    "augment.crop_mode": ("reflect", "constant", "replicate"),
    "evaluation.engine": ("auto", "eager", "compile", "graph"),
    "evaluation.timing_precision": ("fp32", "bf16"),
    "evaluation.cache": ("warm", "flushed"),
}
#: What ``evaluation.timing_beside`` may hold.
BESIDE = ("threads", "compile")
POSITIVE = (
    "training.epochs",
    "training.batch_size",
    "training.accumulate",
    "training.lr",
    "evaluation.prediction_batch",
    "evaluation.resamples",
    "evaluation.timing_processes",
)
NOT_NEGATIVE = (
    "training.weight_decay",
    "training.momentum",
    "training.warmup",
    "training.clip_norm",
    "training.train_images",
    "augment.crop_padding",
    "augment.occlusion",
    "evaluation.timing_rounds",
    "evaluation.timing_budget",
    "evaluation.threads",
    "evaluation.noise_images",
)


def build_config(
    name: str,
    method: type,
    recipe: Mapping[str, Any],
    overrides: Overrides = (),
    variant: str | None = None,
) -> RunConfig:
    """Merge defaults < recipe < the recipe's exceptions for this method < overrides (see ``parsed_overrides``)."""
    family = name.partition("/")[0]
    exceptions = dict((recipe.get("methods") or {}).get(name) or (recipe.get("methods") or {}).get(family) or {})
    exceptions.pop("why", None)
    for key in exceptions:
        if key not in SECTIONS:
            raise UserError(f"the recipe's exception for '{name}' has an unknown section '{key}'. Known: {SECTIONS}.")
    options = option_defaults(name, method)
    shared = {key: value for key, value in (recipe.get("options") or {}).items() if key in options}
    sections: dict[str, DictConfig] = {
        "training": OmegaConf.structured(TrainingConfig),
        "augment": OmegaConf.structured(AugmentConfig),
        "evaluation": OmegaConf.structured(EvaluationConfig),
        "options": options,
    }
    for section in SECTIONS:
        layers = [recipe.get(section) if section != "options" else shared, exceptions.get(section)]
        for layer in layers:
            sections[section] = merged(sections[section], layer or {}, f"the recipe's section '{section}'")
    option = getattr(method, "variant_option", None)
    if variant is not None and option is not None:
        sections["options"] = merged(sections["options"], {option: variant}, f"method '{name}'")
    for override, value in parsed_overrides(overrides).items():
        section, key = _place_of(override, sections)
        sections[section] = merged(sections[section], {key: value}, f"override '{override}={value}'")
    complete = {section: typed(node, f"section '{section}'") for section, node in sections.items()}
    config = RunConfig(recipe_name=str(recipe.get("name", "")), **complete)
    _check_ranges(config)
    return config


def parsed_overrides(overrides: Overrides) -> Settings:
    """Overrides as keys, with or without section, and values; of one key's the last one counts. Values are YAML.

    >>> parsed_overrides(["epochs=5", "options.lam=0.5", "epochs=6"])
    {'options.lam': 0.5, 'epochs': 6}
    """
    if isinstance(overrides, Mapping):
        return dict(overrides)
    values: Settings = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(
                f"override '{override}' is not of the form key=value, such as training.epochs=5 or lam=0.5."
            )
        # Moved to the end: ``epochs`` and ``training.epochs`` are one key to ``build_config``; the later one counts.
        values.pop(key, None)
        values[key] = _yaml_value(override, text)
    return values


def _yaml_value(override: str, text: str) -> Any:
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(f"value: {text}"))
    except Exception as error:
        raise UserError(f"override '{override}': the value is not valid YAML ({message(error)}).") from error
    if not isinstance(loaded, dict) or set(loaded) != {"value"}:
        raise UserError(f"override '{override}': the value is not valid YAML (expected a single value).")
    return loaded["value"]


def _place_of(key: str, sections: Mapping[str, DictConfig]) -> tuple[str, str]:
    """Section and key of an override; the section may be left out where one section alone has the key."""
    section, dot, name = key.partition(".")
    if dot and section not in sections:
        raise UserError(f"override '{key}': unknown section '{section}'.{did_you_mean(section, sections)}")
    if not dot:
        holders = [candidate for candidate, node in sections.items() if key in node]
        if len(holders) > 1:
            choices = " or ".join(f"{holder}.{key}" for holder in holders)
            raise UserError(f"override '{key}' is ambiguous: write {choices}.")
        if not holders:
            known = [str(known) for node in sections.values() for known in node]
            raise UserError(f"override '{key}': unknown key '{key}'.{did_you_mean(key, known)}")
        section, name = holders[0], key
    if name not in sections[section]:
        near = did_you_mean(name, [str(known) for known in sections[section]])
        raise UserError(f"override '{key}': section '{section}' has no key '{name}'.{near}")
    return section, name


def _check_ranges(config: RunConfig) -> None:
    for way in config.evaluation.timing_beside:
        if way not in BESIDE:
            near = did_you_mean(way, BESIDE)
            raise UserError(f"evaluation.timing_beside={way}: expected {' or '.join(BESIDE)}.{near}")
    for path, choices in CHOICES.items():
        value = _lookup(config, path)
        if value not in choices:
            raise UserError(f"{path}={value}: expected one of {', '.join(choices)}.{did_you_mean(value, choices)}")
    for path in POSITIVE:
        if not _lookup(config, path) > 0:
            raise UserError(f"{path}={_lookup(config, path)}: expected a number above 0.")
    for path in NOT_NEGATIVE:
        if not _lookup(config, path) >= 0:
            raise UserError(f"{path}={_lookup(config, path)}: expected 0 or more.")


def _lookup(config: RunConfig, path: str) -> Any:
    section, key = path.split(".")
    return getattr(getattr(config, section), key)
