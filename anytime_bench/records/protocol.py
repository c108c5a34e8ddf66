"""What a record of each protocol must hold: the one table that ``verify`` judges completeness by.

A protocol's version changes whenever a score or a measurement would come out differently for the same weights. Fields
are dotted paths below a record; ``*`` stands for every key, and a list for all of its entries. What a record holds
beyond its protocol's demands is verified too, but a score that the suite learned after the record was made is no fault.

A score that leaves the suite, or is computed otherwise from now on, goes into ``not_derived`` of the protocols that
had it: their records still state it, and today's functions cannot judge it.

Protocol 2 times a row in processes of their own until a stated target, with two copies of the reference in every round
(A/A), records parallel time beside it, and holds the accuracy at budgets of every stopping rule. What belongs to a row
over all its seeds (gains over fixed exits, exit sets and static nets, areas over horizons, ranks) is in no record:
boards derive it from the same ``.npz``, and ``leaderboard check`` derives it again.

Protocol 3 measures parallel time in full answers of the reference, as all other axes are, where protocol 2 took its
run-through with every head; boards convert the latter. A policy that starts anew with every frame is charged what it
runs, a plain answer, for every frame after the first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MISSING = object()
AREAS = ("auc_1", "auc_2", "alc_1")
EXIT_SCORES = ("top5", "nll", "brier", "ece", "auroc", "augrc", "improvable")
CLOCK = ("reference_full", "run_through", "ratio_to_reference", "prefix", "prefix_ratio_to_reference")
IMAGE_SCORES = ("overthinking", "wasted", "falls", "flips")
RULES = ("confidence", "budgeted_batch", "patience", "risk_control")
#: Further rules at budgets; those that learn only where a record holds what they have learned.
BUDGETED = ("budgeted_batch", "patience", "risk_control", "collision", "trace_gru", "eenet", "oracle")
EFFORT = ("processes", "inferences", "answers_agree", "stopped_because")
BLOCK = ("rounds", "inferences_per_round", "stopped_because", "widest")


@dataclass(frozen=True)
class Protocol:
    """``demands``: what a record must state wherever its raw data give it; ``not_derived``: what is not judged.

    ``timed`` names the raw data that every record with times must hold, ``*`` standing for each of its batch sizes;
    ``resamples`` is how often the bootstrap behind its intervals draws; ``span_unit`` is of the reference.
    ``anew`` is what a policy that starts anew with every frame is charged for each frame after the first.
    """

    demands: tuple[str, ...]
    not_derived: tuple[str, ...] = ()
    timed: tuple[str, ...] = ()
    resamples: int = 2000
    span_unit: Literal["full answer", "run-through"] = "full answer"
    anew: Literal["a plain answer", "every head"] = "a plain answer"

    @property
    def rules(self) -> set[str]:
        """The stopping rules whose accuracy at budgets is demanded."""
        paths = [path.split(".") for path in self.demands]
        return {path[2] for path in paths if path[:2] == ["stopping", "budgets"]}

    def absent(self, arrays: Collection[str], sizes: Sequence[int]) -> list[str]:
        """The arrays that a record timed at these batch sizes must hold and does not."""
        names = dict.fromkeys(name.replace("*", str(size)) for name in self.timed for size in sizes)
        return [name for name in names if name not in arrays]


_ALWAYS = (
    "exits.accuracy",
    *(f"exits.scores.{name}" for name in EXIT_SCORES),
    "reference.costs.*",
    *(f"{block}.*.{area}" for block in ("scores", "timed_scores") for area in AREAS),
    *(f"images.{name}" for name in IMAGE_SCORES),
    *(f"stopping.curves.{name}" for name in RULES),
    "stopping.budgets.confidence",
    "stopping.oracle",
    *(f"timing.batches.*.clocks.*.{name}" for name in CLOCK),
    "timing.batches.*.comparable",
    "timing.batches.*.reasons",
    "robustness.clean.*.final_accuracy",
    "robustness.rows.final_accuracy",
    "robustness.rows.kept",
)

_TIMED = (
    *_ALWAYS,
    *(f"stopping.budgets.{name}" for name in BUDGETED),
    *(f"timing.meta.{name}" for name in EFFORT),
    *(f"timing.batches.*.{name}" for name in BLOCK),
    "timing.batches.*.clocks.*.a_a",
    "timing.batches.*.clocks.*.processes",
    "timing.dispatch",
    "span.*",
)
_SAMPLES = ("timing_batch*_latency_twin", "timing_batch*_latency_reference", "span_seconds")

PROTOCOLS: dict[str, Protocol] = {
    # Intervals at a budget were bootstrapped.
    "1": Protocol(
        _ALWAYS, not_derived=("stopping.budgets.*.*.*.low", "stopping.budgets.*.*.*.high"), anew="every head"
    ),
    "2": Protocol(_TIMED, timed=_SAMPLES, span_unit="run-through", anew="every head"),
    "3": Protocol(_TIMED, timed=(*_SAMPLES, "span_reference_answer")),
}

#: Scores that may be null or absent, each with its reason; any other null in a record is a fault.
UNDEFINED: dict[str, str] = {
    "stopping.budgets.*.*.*": "the rule cannot spend as little as the budget",
    "stopping.curves.*.settings": "infinity: never leave early",
    "exits.scores.top5": "there are five classes or fewer",
    "exits.scores.auroc": "all answers are right, or all are wrong",
    "exits.scores.improvable": "no answer of this exit is wrong",
    "exits.scores.set_size": "the record is older than prediction sets",
    "exits.scores.coverage": "the record is older than prediction sets",
    "exits.scores.consistency": "the record is older than prediction sets",
    "stopping.oracle.gap": "the confidence rule cannot spend as little as the oracle",
    "robustness.rows.kept": "no clean answer is right",
    "timing.batches.*.clocks.device_time": "the device has no clock of its own",
    "span.real_lanes": "there is one core, or the device is no CPU",
}


def unexplained_nulls(block: Any, where: str) -> list[str]:
    """Paths of the nulls in a block of a record for which ``UNDEFINED`` states no reason."""
    if block is None:
        return [] if any(_fits(where, pattern) for pattern in UNDEFINED) else [where]
    if isinstance(block, float | int | str):
        return []
    if isinstance(block, dict):
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
