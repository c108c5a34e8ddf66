"""What a record says against its run done again: the model built, trained or timed anew. One line per difference.

*Built*: method, options, parameters, ticks and MACs need no training and are the same on every machine.

*Trained*: on one kind of CPU, with the same torch and threads, a training repeats bit for bit, so there every bit of
weights, losses and answers must be the record's. Elsewhere another order of additions makes it another training of the
same row: then each exit's accuracy on both splits must agree. Of 200 pairs of published seeds of one row, 12 differ at
their last exit beyond both intervals and 22 at any exit by more than ``EXIT_TOLERANCE`` beyond them.

*Timed*: ratios to the reference must agree within their intervals or ``TIME_TOLERANCE``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.timing_block import Timing
from anytime_bench.records.record import Record, TrainingEntry, finite
from anytime_bench.registry import origin_identity
from anytime_bench.runs.plan import Plan
from anytime_bench.scores.intervals import accuracy_interval

#: Ratios to the reference from two sessions may differ by this share beyond their intervals.
TIME_TOLERANCE = 0.15
#: Accuracies of exits before the last from two trainings may differ by this much beyond their intervals.
EXIT_TOLERANCE = 0.10
#: Share of answers that equal weights give alike on any machine; the rest are ties up to rounding.
SAME_ANSWERS = 0.999
BIT_EQUAL, WITHIN = "bit-equal", "agrees within intervals"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """What came of doing a record's run again: the faults, one line each, and without any, how well they agree."""

    faults: tuple[str, ...] = ()
    verdict: str = ""


def built_differently(record: Record, plan: Plan) -> Iterator[str]:
    """Where the model that ``plan`` builds is not what ``record`` says of it."""
    assert record.reference is not None  # as every record with results has one
    resolved, costs, method = plan.resolved, plan.costs, record.method
    was, now = origin_identity(method.origin), resolved.origin.identity
    if was != now:
        yield f"method.origin is {was:.16}, that of the {method.name} loaded here is {now:.16}: other code"
    elif "sha256" in method.origin:
        yield from _differing("method.card", method.card.model_dump(), finite(dataclasses.asdict(resolved.method.card)))
    # An option that came after the record had its default then.
    yield from _differing("method.options", method.options, resolved.options)
    sources = {"weights_from": method.weights_from, "starts_from": method.starts_from}
    yield from _differing("method", sources, {name: getattr(resolved.method, name) for name in sources})
    if record.parameters != costs.parameters:
        yield f"parameters is {record.parameters:,}, the model built from its options has {costs.parameters:,}"
    counts: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "ticks": ([entry.ticks for entry in record.exits], costs.ticks),
        "macs": ([entry.macs for entry in record.exits], costs.macs),
        "macs of each exit alone": ([entry.macs_prefix for entry in record.exits], costs.macs_prefix),
    }
    names = {*record.macs_by_execution, *costs.macs_by_execution}
    for name in sorted(names):
        further = record.macs_by_execution.get(name, ()), costs.macs_by_execution.get(name, ())
        counts[f"macs_by_execution.{name}"] = further
    for name, (stated_costs, built) in counts.items():
        yield from _differing_exits(name, stated_costs, built)
    full = {"ticks": float(plan.reference_costs.ticks[-1]), "macs": int(plan.reference_costs.macs_prefix[-1])}
    for axis, cost in full.items():
        if record.reference.costs[axis] != cost:
            yield (
                f"reference.costs.{axis} is {record.reference.costs[axis]:,}, the {plan.reference.name} built here has "
                f"{cost:,}"
            )


def _differing(where: str, stated: Mapping[str, Any], built: Mapping[str, Any]) -> Iterator[str]:
    for key, value in stated.items():
        if value != built.get(key):
            yield f"{where}.{key} is {value!r:.80}, the method here has {built.get(key)!r:.80}"


def _differing_exits(name: str, stated: Sequence[float], built: Sequence[float]) -> Iterator[str]:
    if len(stated) != len(built):
        yield f"{name} are stated of {len(stated)} exits, the model has {len(built)}"
        return
    wrong = [k for k, (a, b) in enumerate(zip(stated, built, strict=True)) if a != b]
    if wrong:
        k = wrong[0]
        more = f", and {len(wrong) - 1} more exits differ" if len(wrong) > 1 else ""
        yield f"{name} of exit {k} are {stated[k]:,}, the model has {built[k]:,}{more}"


def trained_differently(record: Record, arrays: Arrays, again: Record, again_arrays: Arrays) -> Agreement:
    """Whether ``record`` and its training done ``again`` are one training, bit for bit or within intervals."""
    assert record.training is not None
    assert again.training is not None
    was, now = record.training, again.training
    bits = list(_other_bits(was, now, arrays, again_arrays))
    if not bits:
        return Agreement(verdict=BIT_EQUAL)
    if like(record, again):
        where = "though processor, torch and threads are the record's, where a training repeats bit for bit"
        return Agreement((*bits[:-1], f"{bits[-1]}, {where}"))
    far = list(_too_far(arrays, again_arrays))
    if was.weights_sha256 == now.weights_sha256:
        far += _other_answers(arrays, again_arrays)
    return Agreement(tuple(far), "" if far else WITHIN)


def like(record: Record, again: Record) -> bool:
    """Whether two records come from CPUs, builds of torch and numbers of threads that give the same bits."""
    one, other = (_machine(each) for each in (record, again))
    return one == other and None not in one


def _machine(record: Record) -> tuple[Any, ...]:
    environment = record.environment.model_dump()
    places = (("cpu", "model"), ("cpu", "capability"), ("builds", "torch"), ("threads", "intra_op"))
    blocks = [(environment.get(block), name) for block, name in places]
    values = [block.get(name) if isinstance(block, dict) else None for block, name in blocks]
    return (record.device if record.device == "cpu" else None, *values)


def _other_bits(was: TrainingEntry, now: TrainingEntry, arrays: Arrays, again: Arrays) -> Iterator[str]:
    """What of the weights, the history and the answers is not the same."""
    for field in ("weights_sha256", "final_losses", "precision"):
        stated, made = getattr(was, field), getattr(now, field)
        if stated != made and not (field == "precision" and stated is None):
            yield f"training.{field} is {stated!r:.40}, training again gives {made!r:.40}"
    for name, values in again.items():
        stored = arrays.get(name)
        if stored is None:
            yield f"its trace holds no {name}, training again gives them"
        elif stored.shape != values.shape:
            yield f"{name} has the shape {stored.shape}, training again gives {values.shape}"
        elif not np.array_equal(stored, values):
            yield f"{name}{_where(stored, values)}"


def _where(stored: NDArray[Any], values: NDArray[Any]) -> str:
    if stored.ndim != 2:
        return " differ from those of training again"
    other = (stored != values).sum(axis=1)
    exits = [str(k) for k in np.flatnonzero(other)]
    return f" of exit {', '.join(exits)} differ from those of training again at {other.sum()} of {stored.size} places"


def _too_far(arrays: Arrays, again: Arrays) -> Iterator[str]:
    """Exits whose accuracy on a split is another than training again gives."""
    for split in ("val", "test"):
        right = [each[f"{split}_predictions"] == each[f"{split}_labels"] for each in (arrays, again)]
        if len(right[0]) != len(right[1]):
            yield f"its trace holds {len(right[0])} exits, training again gives {len(right[1])}"
            return
        for k, (a, b) in enumerate(zip(*(map(accuracy_interval, each) for each in right), strict=True)):
            tolerance = EXIT_TOLERANCE if k + 1 < len(right[0]) else 0.0
            if max(a.low - b.high, b.low - a.high) > tolerance:
                yield (
                    f"training again gives exit {k} a {split} accuracy of {b.value:.4f} [{b.low:.4f}, {b.high:.4f}], "
                    f"the record says {a.value:.4f} [{a.low:.4f}, {a.high:.4f}]"
                )


def _other_answers(arrays: Arrays, again: Arrays) -> Iterator[str]:
    """Splits on which equal weights give other answers than the trace holds."""
    for split in ("val", "test"):
        same = float((arrays[f"{split}_predictions"] == again[f"{split}_predictions"]).mean())
        if same < SAME_ANSWERS:
            yield f"the record's own weights give {1 - same:.2%} other {split} predictions than its trace holds"


def timed_differently(was: Timing, now: Timing) -> list[str]:
    """Exits whose ratio to the reference differs beyond both intervals and ``TIME_TOLERANCE``."""
    problems = []
    for k, (a, b) in enumerate(zip(was.latency.ratio_to_reference, now.latency.ratio_to_reference, strict=True)):
        overlap = a.low <= b.high and b.low <= a.high
        if not overlap and abs(b.value / a.value - 1) > TIME_TOLERANCE:
            problems.append(
                f"exit {k} takes {b.value:.3f} of the reference's time here, the record says {a.value:.3f} "
                f"[{a.low:.3f}, {a.high:.3f}]"
            )
    return problems
