"""The checks for the command line: a method by name, or a plugin file; options as overrides, progress on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anytime_bench.conformance.kit import CHECKS, CheckResult, run_checks
from anytime_bench.conformance.scoring_pass import check_rule, check_score
from anytime_bench.errors import UserError
from anytime_bench.harness.torch_settings import restored_settings
from anytime_bench.methods.contract import Method
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.runs.guard import time_limit
from anytime_bench.runs.plan import resolve
from anytime_bench.runs.progress import progress
from anytime_bench.training.recipes import recipe_for


def check_named(
    method: str, task: str | None = None, data_root: Path | None = None, overrides: Sequence[str] = ()
) -> list[tuple[str, CheckResult]]:
    """``(name, result)`` of every check of ``method``, or of each method, score and rule of the plugin file ``method``.

    With ``task`` the checks run on its card and with its recipe's options, as a run would; without, on a small
    synthetic one with the method's defaults. ``overrides`` are ``key=value`` options. Raises ``UserError`` for names,
    files and options that do not exist, and for a file that holds nothing to check.
    """
    added = {"method": [method]}
    if method.endswith(".py"):
        with restored_settings(f"plugin '{method}'"), time_limit(f"the import of plugin '{method}'"):
            added = load_plugin(method)
    names, scores, rules = (added.get(kind, []) for kind in ("method", "score", "stopping rule"))
    if not names and not scores and not rules:
        kinds = " and ".join(f"{kind} '{name}'" for kind, added_names in added.items() for name in added_names)
        raise UserError(
            f"nothing to check: '{method}' registers {kinds}; check examines methods, scores, stopping rules."
        )
    card = None
    if task is not None:
        from anytime_bench.tasks.loading import load_task

        card = load_task(task, data_root).card
    built = {name: named_method(name, task, overrides, card.shape if card is not None else None) for name in names}
    results = [(name, check_score(name)) for name in scores] + [(name, check_rule(name)) for name in rules]
    with progress("checks", len(CHECKS) * len(built)) as bar:
        for name, subject in built.items():
            for result in run_checks(subject, card, on_result=lambda _: bar(1, name)):  # noqa: B023
                results.append((name, result))
    return results


def named_method(
    name: str, task: str | None = None, overrides: Sequence[str] = (), shape: Sequence[int] | None = None
) -> Method:
    """The method ``name`` with the options of ``task``'s recipe, if any, and ``key=value`` overrides, as in a run.

    ``shape (D, H, W)`` is that of the task's images, which decides between the default recipes.
    """
    recipe = recipe_for(task, shape=shape) if task is not None else {}
    stated = [override if override.startswith("options.") else f"options.{override}" for override in overrides]
    return resolve(name, recipe, stated).method
