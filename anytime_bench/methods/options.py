"""A method's own options: its ``Config`` dataclass merged with given values by OmegaConf. A typo is an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anytime_bench.errors import UserError, did_you_mean


def build_options(name: str, method: type, given: Mapping[str, Any], variant: str | None = None) -> Any:
    """An instance of the method's ``Config`` with ``given`` filled in; unknown keys and wrong types are errors."""
    given = dict(given)
    option = getattr(method, "variant_option", None)
    if variant is not None and option is not None:
        given[option] = variant
    base = option_defaults(name, method)
    for key in given:
        if key not in base:
            raise UserError(f"method '{name}' has no option '{key}'.{did_you_mean(key, [str(k) for k in base])}")
    return typed(merged(base, given, f"method '{name}'"), f"method '{name}'")


def option_defaults(name: str, method: type) -> DictConfig:
    target = getattr(method, "Config", None)
    if not (isinstance(target, type) and dataclasses.is_dataclass(target)):
        raise UserError(f"method '{name}': Config must be a dataclass, got {target!r}. Decorate it with @dataclass.")
    try:
        return OmegaConf.structured(target)
    except OmegaConfBaseException as error:
        raise UserError(f"method '{name}': Config holds a type OmegaConf cannot check: {first_line(error)}") from error


def merged(base: DictConfig, layer: Mapping[str, Any], where: str) -> DictConfig:
    for key in layer:
        if key not in base:
            raise UserError(f"{where}: unknown key '{key}'.{did_you_mean(str(key), [str(k) for k in base])}")
    try:
        layered = OmegaConf.merge(base, dict(layer))
    except (OmegaConfBaseException, TypeError) as error:  # a list where a mapping belongs is a TypeError
        raise UserError(f"{where}: {first_line(error)}") from error
    assert isinstance(layered, DictConfig)
    return layered


def typed(node: DictConfig, where: str) -> Any:
    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
