"""What a sweep is asked to do: methods x tasks x seeds, and how, read from a plan file and the command line.

A plan file is YAML with the keys of ``Grid``; what the command line gives replaces what the file says::

    methods: [first_method, second_method]
    tasks: [digits]
    seeds: 0-4
    overrides: [epochs=5]
    slurm: {partition: main, cpus_per_task: 4, gpus_per_node: 1, minutes: 120}

No torch here: the command line and every process that only watches stay light. Errors are ``UserError``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf
from pydantic import FiniteFloat, JsonValue, TypeAdapter, ValidationError

from anytime_bench.errors import UserError, did_you_mean, message
from anytime_bench.runs.sweep.jobs import Existing, Outcome, Sent
from anytime_bench.training.config import Settings

#: More runs than this are a slip of the keyboard.
MAX_RUNS = 100_000


@dataclass(frozen=True)
class SlurmOptions:
    """Resources per run. ``parallel`` jobs of one array run at a time, ``exclusive`` takes whole nodes for timings.

    ``extra`` holds any other option of sbatch.
    """

    partition: str | None = None
    cpus_per_task: int = 1
    gpus_per_node: int | None = None
    mem_gb: FiniteFloat | None = None
    minutes: int = 240
    parallel: int = 256
    exclusive: bool = False
    extra: dict[str, JsonValue] = field(default_factory=dict)


@dataclass
class Grid(Sent):
    """A sweep as asked for. ``only`` holds ``method@task@seed``, and restricts the product to these runs.

    ``train_only`` leaves everything after the training to a later sweep.
    """

    methods: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=lambda: ["digits"])
    seeds: list[int] = field(default_factory=lambda: [0])
    overrides: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    out: str = "runs"
    device: str = "auto"
    data_root: str | None = None
    recipe: str | None = None
    existing: Existing = "skip"
    only: list[str] = field(default_factory=list)
    train_only: bool = False
    jobs: int = 0
    gpus: list[str] = field(default_factory=list)
    time_limit: float = 0.0
    memory_limit: float = 0.0
    slurm: SlurmOptions = field(default_factory=SlurmOptions)

    def cells(self) -> list[tuple[str, str, int]]:
        """Method, task and seed of every run asked for, each once, in order."""
        wanted = {parse_cell(text) for text in self.only}
        product = dict.fromkeys((m, t, s) for t in self.tasks for s in self.seeds for m in self.methods)
        missing = wanted - set(product)
        if missing:
            method, task, seed = sorted(missing)[0]
            raise UserError(f"--only {method}@{task}@{seed}: this run is not part of the sweep.")
        return [cell for cell in product if not wanted or cell in wanted]

    def shared_options(self) -> list[str]:
        """The options of this grid that a single run has too, as a command line spells them."""
        values = {
            "--out": self.out if self.out != "runs" else "",
            "--device": self.device if self.device != "auto" else "",
            "--data-root": self.data_root or "",
            "--recipe": self.recipe or "",
        }
        options = [piece for option, value in values.items() if value for piece in (option, value)]
        return [*options, *(piece for plugin in self.plugins for piece in ("--plugin", plugin))]

    def repeat_command(self, outcomes: Sequence[Outcome]) -> str:
        """The command that does just the failed runs again; empty where none failed."""
        failed = [each for each in outcomes if each.status == "failed"]
        if not failed:
            return ""
        axes = [list(dict.fromkeys(getattr(each, key) for each in failed)) for key in ("method", "task", "seed")]
        parts = ["anytime-bench", "sweep"]
        for option, values in zip(("--methods", "--tasks", "--seeds"), axes, strict=True):
            parts += [option, ",".join(map(str, values))]
        if len(axes[0]) * len(axes[1]) * len(axes[2]) > len(failed):
            parts += [piece for each in failed for piece in ("--only", each.name)]
        parts += self.shared_options()
        parts += ["--train-only"] if self.train_only else []
        parts += ["--jobs", str(self.jobs)] if self.jobs else []
        parts += ["--gpus", ",".join(self.gpus)] if self.gpus else []
        parts += ["--time-limit", f"{self.time_limit:g}"] if self.time_limit else []
        parts += ["--memory-limit", f"{self.memory_limit:g}"] if self.memory_limit else []
        return shlex.join([*parts, *self.overrides])


def parse_cell(text: str) -> tuple[str, str, int]:
    """``method@task@0`` as its three parts."""
    parts = text.rsplit("@", 2)
    if len(parts) != 3 or not parts[2].isdigit():
        raise UserError(f"--only '{text}': expected method@task@seed, such as two_exits@digits@0.")
    return parts[0], parts[1], int(parts[2])


def parse_seeds(text: str | int | list[Any]) -> list[int]:
    """Seeds from ``0-4``, ``0,2,5-7``, a number or a list of these.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    items = text if isinstance(text, list) else str(text).split(",")
    seeds: list[int] = []
    for item in items:
        match = re.fullmatch(r"\s*([0-9]{1,18})(?:\s*-\s*([0-9]{1,18}))?\s*", str(item))
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"seeds '{item}': expected numbers and ranges of 0 or more, such as 0-4 or 0,2,5.")
        wanted = range(int(match[1]), int(match[2] or match[1]) + 1)
        if len(wanted) > MAX_RUNS:
            raise UserError(f"seeds '{item}' are {len(wanted):,} seeds; a sweep takes at most {MAX_RUNS:,} runs.")
        seeds += wanted
    return list(dict.fromkeys(seeds))


def split_names(text: str) -> list[str]:
    """``a,b`` as a list; a comma is the only separator, since task names may hold a path."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_plan_file(path: Path) -> Settings:
    """The content of a plan file, its keys and types checked."""
    if not path.is_file():
        raise UserError(f"plan file '{path}' does not exist. Give a YAML file, or --methods a,b --tasks t --seeds 0-4.")
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise UserError(f"plan file '{path}' is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except Exception as error:
        raise UserError(f"plan file '{path}' is not valid YAML: {message(error)}") from error
    known = {each.name for each in dataclasses.fields(Grid)}
    if not isinstance(loaded, dict):
        raise UserError(f"plan file '{path}' must be a mapping with keys such as methods, tasks and seeds.")
    values = {str(key): value for key, value in loaded.items() if value is not None}
    for key in values:
        if key not in known:
            raise UserError(f"plan file '{path}' has an unknown key '{key}'.{did_you_mean(key, known)}")
    if not isinstance(values.get("overrides", []), list):
        raise UserError(f"plan file '{path}': 'overrides' must be a list such as [epochs=5].")
    return values


def make_grid(plain: Mapping[str, Any]) -> Grid:
    """A checked grid from plain values, those of a plan file and of the command line merged."""
    values = dict(plain)
    for key in ("methods", "tasks", "gpus"):
        if isinstance(values.get(key), str):
            values[key] = split_names(values[key])
    if isinstance(values.get("gpus"), int):
        values["gpus"] = [values["gpus"]]
    if "seeds" in values:
        values["seeds"] = parse_seeds(values["seeds"])
    for key in ("methods", "tasks", "overrides", "plugins", "only", "gpus"):
        if key in values:
            if not isinstance(values[key], list):
                raise UserError(f"sweep: '{key}' must be a list, got {values[key]!r}.")
            values[key] = [str(item) for item in values[key]]
    for key, kind in (("jobs", int), ("time_limit", float), ("memory_limit", float)):
        if key in values:
            values[key] = _number(key, values[key], kind)
    for key in ("out", "device", "data_root", "recipe", "existing"):
        if not isinstance(values.get(key, ""), str):
            raise UserError(f"sweep: '{key}' must be text, got {values[key]!r}.")
    if not isinstance(values.get("train_only", False), bool):
        raise UserError(f"sweep: 'train_only' must be true or false, got {values['train_only']!r}.")
    if "slurm" in values:
        values["slurm"] = _slurm_options(values["slurm"])
    grid = Grid(**values)
    if not grid.methods:
        raise UserError(
            "which methods? Give them with --methods a,b or in a plan file. See anytime-bench list methods."
        )
    if grid.gpus and grid.memory_limit:
        raise UserError(
            f"--memory-limit {grid.memory_limit:g} bounds a job's address space, of which CUDA takes more than "
            "there is memory: leave it out with --gpus."
        )
    if not grid.tasks or not grid.seeds:
        raise UserError("a sweep needs at least one task and one seed.")
    runs = len(grid.methods) * len(grid.tasks) * len(grid.seeds)
    if runs > MAX_RUNS:
        raise UserError(f"this sweep has {runs:,} runs; it takes at most {MAX_RUNS:,}.")
    if grid.jobs > MAX_RUNS:
        raise UserError(f"sweep: jobs={grid.jobs:,}, expected at most {MAX_RUNS:,}, 0 for as many as fit the machine.")
    if grid.existing not in get_args(Existing):
        raise UserError(f"--existing {grid.existing}: expected {', '.join(get_args(Existing))}.")
    return grid


def _number(key: str, value: Any, kind: type) -> Any:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if not 0 <= number < math.inf:
        raise UserError(f"sweep: {key}={value!r}, expected a number of 0 or more.")
    return number


def _slurm_options(value: object) -> SlurmOptions:
    known = [each.name for each in dataclasses.fields(SlurmOptions)]
    if not isinstance(value, dict):
        raise UserError(f"plan: 'slurm' must be a mapping with keys such as {', '.join(known[:3])}.")
    for key in value:
        if key not in known:
            raise UserError(f"plan: slurm has an unknown key '{key}'.{did_you_mean(str(key), known)}")
    try:
        options = _SLURM.validate_python(value)
        json.dumps(options.extra, allow_nan=False)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise UserError(f"plan: slurm: {place}={fault['input']!r}: {fault['msg']}.") from error
    except ValueError as error:
        raise UserError(f"plan: slurm: extra={value['extra']!r}: expected finite numbers.") from error
    return options


_SLURM = TypeAdapter(SlurmOptions)
