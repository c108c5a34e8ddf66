"""What each exit of a record costs, per axis, in multiples of the reference model's full answer.

The axes themselves are the table ``trace/axes.py``, which lies below because stored traces and scores need it too.
Counted costs come from ``record.exits``; timed ones are the medians of the per-round ratios in ``record.timing``,
parallel ones lie in ``record.span``. In these units the horizon of AUC@1 is 1 and that of AUC@2 is 2 on every axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from anytime_bench.harness.timing_summary import clock_block
from anytime_bench.records.record import Record
from anytime_bench.scores.measured import ProcessCosts
from anytime_bench.trace.axes import AXES


@dataclass(frozen=True)
class ExitCosts:
    """Costs ``(E,)`` of one record on one axis: ``relative`` to the reference, ``absolute`` in the axis's unit."""

    relative: tuple[float, ...]
    absolute: tuple[float, ...]


def exit_costs(record: Record, axis: str) -> ExitCosts | None:
    """Costs of all exits on ``axis``, or None where the record has no such measurement."""
    full = record.reference.get(AXES[axis].horizon or axis)
    if AXES[axis].place == "span":
        return _of_span(record, axis, full)
    if AXES[axis].place == "exits":
        absolute = tuple(float(getattr(entry, axis)) for entry in record.exits)
        return ExitCosts(tuple(value / full for value in absolute), absolute) if full and absolute else None
    ratios = clock(record, axis).get("ratio_to_reference")
    if not ratios or len(ratios) != len(record.exits):
        return None
    relative = tuple(float(entry["value"] if isinstance(entry, dict) else entry) for entry in ratios)
    return ExitCosts(relative, tuple(value * float(full) for value in relative) if full else ())


def timing_processes(record: Record, axis: str) -> list[ProcessCosts]:
    """What each timing process of a record measured on ``axis``; empty where it was not timed.

    A clock's block may list its ``processes``, each with ratios of its own; a block without them is one process.
    """
    if AXES[axis].place == "span":
        values, errors = _ratios([each.model_dump() for each in record.span.span] if record.span else [])
        return [ProcessCosts(values, values, errors, errors)] if len(values) == len(record.exits) > 0 else []
    block = clock(record, axis)
    processes = []
    for process in block.get("processes") or [block]:
        run_through = _ratios(process.get("ratio_to_reference"))
        if len(run_through[0]) == len(record.exits) > 0:
            prefix = _ratios(process.get("prefix_ratio_to_reference"))
            # Untimed alone, an answer costs no more than after all earlier ones.
            prefix = prefix if len(prefix[0]) == len(record.exits) else run_through
            processes.append(ProcessCosts(run_through[0], prefix[0], run_through[1], prefix[1]))
    return processes


def _of_span(record: Record, axis: str, full: float | None) -> ExitCosts | None:
    if record.span is None or not full or len(record.span.span) != len(record.exits):
        return None
    if axis == "span_macs":
        absolute = tuple(float(macs) for macs in record.span.span_macs)
        return ExitCosts(tuple(macs / full for macs in absolute), absolute)
    relative = tuple(exit_.value for exit_ in record.span.span)
    return ExitCosts(relative, tuple(ratio * full for ratio in relative))


def _ratios(entries: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values ``(E,)`` of a block's ratios and their standard errors over rounds, from 95 % intervals."""
    rows = [entry if isinstance(entry, dict) else {"value": entry} for entry in entries or ()]
    values = np.array([row["value"] for row in rows], dtype=np.float64)
    ends = np.array([[row.get("low", row["value"]), row.get("high", row["value"])] for row in rows], dtype=np.float64)
    return values, np.diff(ends.reshape(-1, 2))[:, 0] / (2 * float(special.ndtri(0.975)))


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
