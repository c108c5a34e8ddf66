"""What a record of each protocol must hold: the one table that ``verify`` judges completeness by.

A protocol's version changes whenever a score or a measurement would come out differently for the same weights. Fields
are dotted paths below a record; ``*`` stands for every key, and a list for all of its entries. What a record holds
beyond its protocol's demands is verified too, but a score that the suite learned after the record was made is no fault.

A score that leaves the suite, or is computed otherwise from now on, goes into ``not_derived`` of the protocols that
had it: their records still state it, and today's functions cannot judge it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = object()
AREAS = ("auc_1", "auc_2", "alc_1")
EXIT_SCORES = ("accuracy", "top5", "nll", "brier", "ece", "auroc", "augrc")
CLOCK = ("reference_full", "run_through", "ratio_to_reference")


@dataclass(frozen=True)
class Protocol:
    """``demands``: what a record must state wherever its raw data give it; ``not_derived``: what is not judged."""

    demands: tuple[str, ...]
    not_derived: tuple[str, ...] = ()


PROTOCOLS: dict[str, Protocol] = {
    "1": Protocol(
        demands=(
            *(f"exits.{name}" for name in EXIT_SCORES),
            *(f"{block}.*.{area}" for block in ("scores", "timed_scores") for area in AREAS),
            *(f"timing.{name}" for name in (*CLOCK, "prefix", "comparable", "reasons", "device_time")),
            *(f"stopping.stopping.{name}" for name in ("at_budget", "threshold", "budgeted_batch", "oracle")),
            *(f"stopping.images.{name}" for name in ("destructive_overthinking", "wasted_cost", "flips")),
            "robustness.clean.*.final_accuracy",
            "robustness.rows.final_accuracy",
            "robustness.rows.kept",
        ),
        # The time to a share of the reference's accuracy needs another run's result: always null in these records.
        # How fast an answer recovers from a burst was never shown.
        not_derived=("scores.*.time_to", "timed_scores.*.time_to", "robustness.rows.recovery"),
    ),
}

#: Scores that may be null, each with its reason; any other null in a record is a fault.
NULLS: dict[str, str] = {
    "exits.top5": "there are five classes or fewer",
    "exits.auroc": "all answers are right, or all are wrong",
    "rules.*.*.*": "the rule cannot spend as little as the budget",
    "stopping.images.confusion": "the trace was stored without it",
    "stopping.images.confusion.auroc_error": "all answers are right, or all are wrong",
    "stopping.images.hindsight_improvability": "no answer of this exit is wrong",
    "stopping.stopping.at_budget.*": "leaving at once costs more than the budget",
    "stopping.stopping.at_budget.*.thresholds": "infinity: never leave early",
    "stopping.stopping.threshold.thresholds": "infinity: never leave early",
    "stopping.stopping.risk_control.threshold": "no threshold is safe, so every image runs to the last exit",
    "stopping.stopping.oracle.gap": "the rule cannot spend as little as the oracle",
    "robustness.rows.kept": "no clean answer is right",
    "span": "nothing was timed",
    "span.real_lanes": "there is one core, or the device is no CPU",
    "timing.device_time": "the device has no clock of its own",
}


def unexplained_nulls(block: Any, where: str) -> list[str]:
    """Paths of the nulls in a block of a record for which ``NULLS`` states no reason."""
    if block is None:
        return [] if any(_fits(where, pattern) for pattern in NULLS) else [where]
    if isinstance(block, Mapping):
        return [path for key, item in block.items() for path in unexplained_nulls(item, f"{where}.{key}")]
    if isinstance(block, list):
        return list(dict.fromkeys(path for item in block for path in unexplained_nulls(item, where)))
    return []


def _fits(where: str, pattern: str) -> bool:
    parts, wanted = where.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(w in ("*", part) for part, w in zip(parts, wanted, strict=True))


def lacking(stored: Any, derived: Any, demand: str) -> list[str]:
    """Places that ``demand`` names, that the raw data give (``derived``) and that ``stored`` does not state."""
    return list(_lacking(stored, derived, demand.split("."), ""))


def _lacking(stored: Any, derived: Any, path: list[str], where: str) -> Iterator[str]:
    if stored is MISSING and derived not in (None, {}, []):
        yield where
    elif isinstance(derived, list) and isinstance(stored, list):
        for index, (mine, theirs) in enumerate(zip(stored, derived, strict=False)):
            yield from _lacking(mine, theirs, path, f"{where}[{index}]")
    elif path and isinstance(derived, Mapping):
        for key in derived if path[0] == "*" else {path[0]} & set(derived):
            inside = stored.get(key, MISSING) if isinstance(stored, Mapping) else MISSING
            yield from _lacking(inside, derived[key], path[1:], f"{where}.{key}".lstrip("."))


def without(value: Any, path: str) -> Any:
    """``value`` without what the dotted ``path`` names."""
    return _without(value, path.split("."))


def _without(value: Any, path: list[str]) -> Any:
    if isinstance(value, list):
        return [_without(item, path) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(path) == 1:
        return {key: item for key, item in value.items() if path[0] not in ("*", key)}
    return {key: _without(item, path[1:]) if path[0] in ("*", key) else item for key, item in value.items()}
