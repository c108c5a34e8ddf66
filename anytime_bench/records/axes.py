"""What each exit of a record costs, per axis, in multiples of the reference model's full answer.

The axes themselves are the table ``trace/axes.py``, which lies below because stored traces and scores need it too.
Counted costs come from ``record.exits``; timed ones are the medians of the per-round ratios in ``record.timing``. In
these units the horizon of AUC@1 is 1 and that of AUC@2 is 2 on every axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anytime_bench.harness.timing_summary import clock_block
from anytime_bench.records.record import Record
from anytime_bench.trace.axes import AXES


@dataclass(frozen=True)
class ExitCosts:
    """Costs ``(E,)`` of one record on one axis: ``relative`` to the reference, ``absolute`` in the axis's unit."""

    relative: tuple[float, ...]
    absolute: tuple[float, ...]


def exit_costs(record: Record, axis: str) -> ExitCosts | None:
    """Costs of all exits on ``axis``, or None where the record has no such measurement."""
    full = record.reference.get(axis)
    if AXES[axis].place == "exits":
        absolute = tuple(float(getattr(entry, axis)) for entry in record.exits)
        return ExitCosts(tuple(value / full for value in absolute), absolute) if full and absolute else None
    ratios = clock(record, axis).get("ratio_to_reference")
    if not ratios or len(ratios) != len(record.exits):
        return None
    relative = tuple(float(entry["value"] if isinstance(entry, dict) else entry) for entry in ratios)
    return ExitCosts(relative, tuple(value * float(full) for value in relative) if full else ())


def clock(record: Record, axis: str) -> dict[str, Any]:
    """The part of ``record.timing`` that belongs to one clock; empty where it was not read."""
    return clock_block(record.timing, axis)


def comparable(record: Record) -> tuple[bool, str]:
    """Whether the record's times may be ranked, and if not, why."""
    if not record.timing:
        return False, "not timed"
    if record.timing.get("comparable", False):
        return True, ""
    reasons = record.timing.get("reasons") or ["no reason given"]
    return False, "; ".join(str(reason) for reason in reasons)
