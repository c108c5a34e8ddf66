"""Recipes: YAML files that methods of a task share, read from a path or from an installed recipe package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from anytime_bench.errors import UserError, did_you_mean
from anytime_bench.registry import Registry
from anytime_bench.training.config import SECTIONS

RECIPES = "anytime_bench.recipes"


#: Recipe packages by entry point, and recipes that plugins register by name.
recipes = Registry(RECIPES, "recipe")


def register_recipe(name: str, recipe: Mapping[str, Any]) -> None:
    """Add a recipe of one's own, in the form of a recipe file; ``name`` is a task's, or ``<task>.cpu``, or free."""
    recipes.add(name, _checked(dict(recipe), name))


def recipe_for(task: str, recipe: str | None = None, device: str = "") -> dict[str, Any]:
    """The shared recipe of a task, with its ``name``.

    ``recipe`` is the path of a YAML file or the name of an installed recipe. Without it, the first installed recipe
    package that has one decides: on a CPU ``<task>.cpu.yaml``, a cut that fits one, else ``<task>.yaml``, else
    ``default.yaml``.
    """
    if recipe is not None and Path(recipe).suffix in (".yaml", ".yml"):
        if not Path(recipe).is_file():
            raise UserError(f"recipe '{recipe}' does not exist. Give the path of a YAML file or an installed name.")
        return {**_read_recipe(Path(recipe).read_text(), recipe), "name": Path(recipe).stem}
    family = task.partition(":")[0]
    stems = [recipe] if recipe is not None else [f"{family}.cpu"] * (device == "cpu") + [family, "default"]
    packages = sorted({entry.value for entry in entry_points(group=RECIPES)})
    for stem in stems:
        if stem in recipes.added():
            return {**recipes.resolve(stem)[0], "name": stem}
        for package in packages:
            resource = files(package).joinpath(f"{stem}.yaml")
            if resource.is_file():
                return {**_read_recipe(resource.read_text(), f"{package}/{stem}.yaml"), "name": stem}
    if recipe is not None:
        raise UserError(f"unknown recipe '{recipe}'.{did_you_mean(recipe, installed_recipes())}")
    return {}


def installed_recipes() -> list[str]:
    """Names of the recipes of all installed recipe packages."""
    packages = {entry.value for entry in entry_points(group=RECIPES)}
    found = {resource.name for package in packages for resource in files(package).iterdir()}
    return sorted({name.removesuffix(".yaml") for name in found if name.endswith(".yaml")} | set(recipes.added()))


def _read_recipe(text: str, source: str) -> dict[str, Any]:
    try:
        loaded = OmegaConf.to_container(OmegaConf.create(text))
    except Exception as error:
        raise UserError(f"recipe '{source}' is not valid YAML: {str(error).splitlines()[0]}") from error
    return _checked(loaded, source)


def _checked(loaded: object, source: str) -> dict[str, Any]:
    """A recipe whose sections are known; ``UserError`` otherwise."""
    if not isinstance(loaded, dict):
        raise UserError(f"recipe '{source}' must be a mapping with the sections reference, {', '.join(SECTIONS)}.")
    known = {"reference", "methods", *SECTIONS}
    recipe = {str(key): value for key, value in loaded.items()}
    for key in recipe:
        if key not in known:
            raise UserError(f"recipe '{source}' has an unknown section '{key}'.{did_you_mean(key, known)}")
    return recipe
