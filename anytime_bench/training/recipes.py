"""Recipes: YAML files that methods of a task share, read from a path or from an installed recipe package."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from anytime_bench.errors import UserError, did_you_mean, message
from anytime_bench.registry import Registry, installed
from anytime_bench.training.config import SECTIONS, Settings

RECIPES = "anytime_bench.recipes"
#: Images with a side below this are too small for a stem made for 32 pixels.
SMALL = 16

#: Recipe packages by entry point, and recipes that plugins register by name.
recipes = Registry(RECIPES, "recipe")


def register_recipe(name: str, recipe: Mapping[str, Any]) -> None:
    """Add a recipe of one's own, in the form of a recipe file; ``name`` is a task's, or ``<task>.cpu``, or free."""
    recipes.add(name, _checked(dict(recipe), name))


def recipe_for(task: str, recipe: str | None = None, device: str = "", shape: Sequence[int] | None = None) -> Settings:
    """The shared recipe of a task, with its ``name`` and its ``reference``.

    ``recipe`` is the path of a YAML file or the name of an installed recipe. Without it, the first installed recipe
    package that has one decides: on a CPU ``<task>.cpu.yaml``, a cut that fits one, else ``<task>.yaml``, else
    ``default.small.yaml`` for images ``shape (D, H, W)`` below ``SMALL`` pixels, else ``default.yaml``. A recipe that
    names no reference takes the default recipe's.
    """
    chosen = _chosen_recipe(task, recipe, device, shape)
    if "reference" not in chosen:
        chosen |= {key: value for key, value in (_installed_recipe("default") or {}).items() if key == "reference"}
    return chosen


def reference_choice(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[str, Settings]:
    """Name and options of the reference model: those of the recipe, then ``reference`` and ``reference.KEY``."""
    stated = recipe.get("reference") or {}
    name, options = (stated, {}) if isinstance(stated, str) else (stated.get("method"), stated.get("options") or {})
    if "reference" in overrides and overrides["reference"] != name:
        # Options belong to the reference they were stated for.
        name, options = overrides["reference"], {}
    if not name or not isinstance(name, str):
        raise UserError(
            "which method is the reference, whose full cost is the unit of every horizon? Give reference=NAME, or a "
            "recipe with the line 'reference: NAME'."
        )
    own = {key.partition(".")[2]: value for key, value in overrides.items() if key.startswith("reference.")}
    return name, {**options, **own}


def _chosen_recipe(task: str, recipe: str | None, device: str, shape: Sequence[int] | None) -> Settings:
    if recipe is not None and Path(recipe).suffix in (".yaml", ".yml"):
        if not Path(recipe).is_file():
            raise UserError(f"recipe '{recipe}' does not exist. Give the path of a YAML file or an installed name.")
        return {**_read_recipe(Path(recipe).read_bytes(), recipe), "name": Path(recipe).stem}
    family = task.partition(":")[0]
    small = shape is not None and min(shape[1:]) < SMALL
    own = [f"{family}.cpu"] * (device == "cpu") + [family, *["default.small"] * small, "default"]
    for stem in own if recipe is None else [recipe]:
        installed = _installed_recipe(stem)
        if installed is not None:
            return installed
    if recipe is not None:
        raise UserError(f"unknown recipe '{recipe}'.{did_you_mean(recipe, installed_recipes())}")
    return {}


def _installed_recipe(stem: str) -> Settings | None:
    if stem in recipes.added():
        return {**recipes.resolve(stem)[0], "name": stem}
    for package in _packages(tuple(sys.path)):
        resource = files(package).joinpath(f"{stem}.yaml")
        if resource.is_file():
            return {**copy.deepcopy(_parsed(resource.read_bytes(), f"{package}/{stem}.yaml")), "name": stem}
    return None


def installed_recipes() -> list[str]:
    """Names of the recipes of all installed recipe packages."""
    resources = {resource.name for package in _packages(tuple(sys.path)) for resource in files(package).iterdir()}
    return sorted({name.removesuffix(".yaml") for name in resources if name.endswith(".yaml")} | set(recipes.added()))


@cache
def _packages(path: tuple[str, ...]) -> list[str]:
    """Packages of recipes by entry point; ``path`` is in the key because an extended ``sys.path`` may hold more."""
    return sorted({entry.value for entry in installed(RECIPES)})


@cache
def _parsed(data: bytes, source: str) -> Settings:
    """An installed recipe, which is read for every record that is verified."""
    return _read_recipe(data, source)


def _read_recipe(data: bytes, source: str) -> Settings:
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(data.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise UserError(f"recipe '{source}' is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except Exception as error:
        raise UserError(f"recipe '{source}' is not valid YAML: {message(error)}") from error
    return _checked(loaded, source)


def _checked(loaded: object, source: str) -> Settings:
    """A recipe whose sections are known; ``UserError`` otherwise."""
    if not isinstance(loaded, dict):
        raise UserError(f"recipe '{source}' must be a mapping with the sections reference, {', '.join(SECTIONS)}.")
    known = {"reference", "methods", *SECTIONS}
    recipe = {str(key): value for key, value in loaded.items()}
    for key in recipe:
        if key not in known:
            raise UserError(f"recipe '{source}' has an unknown section '{key}'.{did_you_mean(key, known)}")
    for key in ("methods", *SECTIONS):
        _require_mapping(recipe.get(key), f"recipe '{source}': {key}")
    for name, exception in (recipe.get("methods") or {}).items():
        _require_mapping(exception, f"recipe '{source}': methods.{name}")
        for key in SECTIONS:
            _require_mapping((exception or {}).get(key), f"recipe '{source}': methods.{name}.{key}")
    if not isinstance(recipe.get("reference", ""), str):
        _require_mapping(recipe["reference"], f"recipe '{source}': reference")
        _require_mapping(recipe["reference"].get("options"), f"recipe '{source}': reference.options")
    return recipe


def _require_mapping(value: object, where: str) -> None:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping such as {{key: value}}, got {value!r}.")
