"""The conformance kit behind ``anytime-bench check``: a method's name or a plugin file in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from anytime_bench.checks.kit import CheckResult, run_checks
from anytime_bench.config import build_config, recipe_for
from anytime_bench.registry import load_plugin, method_class
from anytime_bench.tasks import load_task


def check_named(
    given: str,
    task: str | None = None,
    data_root: Path | None = None,
    options: Sequence[str] = (),
    on_result: Callable[[str, CheckResult], None] = lambda name, result: None,
) -> list[tuple[str, CheckResult]]:
    """Verdicts for one method, or for each method of a plugin file; with ``task``, its recipe's options apply."""
    names = load_plugin(given) if given.endswith(".py") else [given]
    card = load_task(task, data_root).card if task else None
    # A narrow network breaks a promise as surely as a wide one, and in a fraction of the time.
    recipe = recipe_for(task) if task else {"options": {"width": 16}}
    found = []
    for name in names:
        target, _, variant = method_class(name)
        config = build_config(name, target, recipe, options, variant)

        def report(result: CheckResult, name: str = name) -> None:
            on_result(name, result)

        found += [(name, result) for result in run_checks(target(config.options), card, on_result=report)]
    return found
