"""The names in a recipe, held against the methods that are installed or plugged in.

Apart from ``recipes``, because it imports methods and with them torch, which reading a recipe or a record needs not.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from anytime_bench.errors import UserError, did_you_mean
from anytime_bench.methods.plugins import method_class
from anytime_bench.registry import methods


def check_names(recipe: Mapping[str, Any]) -> None:
    """``UserError`` for an exception without a reason or for no known method, and an option that no method has."""
    names, where = methods.names(), f"recipe '{recipe.get('name', '')}'"
    for name, exception in ((str(key), value) for key, value in (recipe.get("methods") or {}).items()):
        if name not in names and name.partition("/")[0] not in names:
            near = did_you_mean(name, names)
            raise UserError(f"{where}: methods.{name}: no such method.{near} One of your own comes with --plugin FILE.")
        if not (exception or {}).get("why"):
            raise UserError(f"{where}: methods.{name} has no 'why': say in a sentence what the exception is for.")
    unknown, known = {str(key) for key in recipe.get("options") or {}}, set[str]()
    stated = recipe.get("reference") or ""
    reference = stated if isinstance(stated, str) else str(stated.get("method"))
    # The reference has most of them; all others are imported where it has not.
    for name in (reference, *names):
        if not unknown - known:
            return
        with contextlib.suppress(UserError):  # one that fails to import has no options to offer
            config = method_class(name)[0].Config
            if dataclasses.is_dataclass(config):
                known |= {option.name for option in dataclasses.fields(config)}
    for key in sorted(unknown - known):
        raise UserError(f"{where}: options.{key}: no method has such an option.{did_you_mean(key, known)}")
