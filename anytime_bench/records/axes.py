"""What each exit of a record costs, per axis, in multiples of the reference model's full answer.

The axes themselves are the table ``trace/axes.py``, which lies below because stored traces and scores need it too.
Counted costs come from ``record.exits``; timed ones are the medians of the per-round ratios in ``record.timing``,
parallel ones lie in ``record.span``, in another unit where protocol 2 measured them. In these units the horizon of
AUC@1 is 1 and that of AUC@2 is 2 on every axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from anytime_bench.harness.timing_block import ClockBlock, ProcessRatios
from anytime_bench.records.protocol import PROTOCOLS
from anytime_bench.records.record import Record
from anytime_bench.scores.measured import ProcessCosts
from anytime_bench.scores.results import Estimate
from anytime_bench.trace.axes import AXES


@dataclass(frozen=True)
class ExitCosts:
    """Costs ``(E,)`` of one record on one axis: ``relative`` to the reference, ``absolute`` in the axis's unit."""

    relative: tuple[float, ...]
    absolute: tuple[float, ...]


def exit_costs(record: Record, axis: str) -> ExitCosts | None:
    """Costs of all exits on ``axis``, or None where the record has no such measurement."""
    full = record.reference.costs.get(AXES[axis].horizon or axis) if record.reference else None
    if not full:
        return None
    return {"exits": _counted, "timing": _timed, "span": _parallel}[AXES[axis].place](record, axis, float(full))


def timing_processes(record: Record, axis: str) -> list[ProcessCosts]:
    """What each timing process of a record measured on ``axis``; empty where it was not timed.

    A clock's block may list its ``processes``, each with ratios of its own; a block without them is one process.
    """
    if AXES[axis].place == "span":
        values, errors = (part * span_unit(record) for part in _ratios(record.span.span if record.span else []))
        return [ProcessCosts(values, values, errors, errors)] if len(values) == len(record.exits) > 0 else []
    block = record.timing.clock(axis) if record.timing else None
    if block is None:
        return []
    costs = [_process(each) for each in block.processes] or [_process(block)]
    return [each for each in costs if len(each.run_through) == len(record.exits)]


def span_unit(record: Record) -> float:
    """The unit of a record's parallel times in full answers of the reference.

    Protocol 2 took a run-through of the reference with all of its heads. A full answer was measured beside the model's
    own run-through, on the same thread, in the timing of the same record.
    """
    protocol = PROTOCOLS.get(record.protocol_version)
    if protocol is None or protocol.span_unit == "full answer" or record.span is None or record.timing is None:
        return 1.0
    clock = record.timing.clock("device_time") or record.timing.latency
    return clock.ratio_to_reference[-1].value / record.span.threads[0].latency.value


def _process(block: ClockBlock | ProcessRatios) -> ProcessCosts:
    run_through, prefix = _ratios(block.ratio_to_reference), _ratios(block.prefix_ratio_to_reference)
    # Untimed alone, an answer costs no more than after all earlier ones.
    prefix = prefix if len(prefix[0]) == len(run_through[0]) else run_through
    return ProcessCosts(run_through[0], prefix[0], run_through[1], prefix[1])


def _ratios(rows: Sequence[Estimate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values ``(E,)`` of a block's ratios and their standard errors over rounds, from 95 % intervals."""
    widths = np.array([row.high - row.low for row in rows], dtype=np.float64)
    return np.array([row.value for row in rows], dtype=np.float64), widths / (2 * float(scipy.special.ndtri(0.975)))


def _counted(record: Record, axis: str, full: float) -> ExitCosts | None:
    absolute = tuple(float(entry.costs[axis]) for entry in record.exits if axis in entry.costs)
    if not absolute or len(absolute) != len(record.exits):
        return None
    return ExitCosts(tuple(value / full for value in absolute), absolute)


def _timed(record: Record, axis: str, full: float) -> ExitCosts | None:
    block = record.timing.clock(axis) if record.timing else None
    if block is None or len(block.ratio_to_reference) != len(record.exits):
        return None
    relative = tuple(each.value for each in block.ratio_to_reference)
    return ExitCosts(relative, tuple(value * full for value in relative))


def _parallel(record: Record, axis: str, full: float) -> ExitCosts | None:
    if record.span is None or {len(record.span.span), len(record.span.span_macs)} != {len(record.exits)}:
        return None
    if AXES[axis].measured:
        unit = span_unit(record)
        return ExitCosts(
            tuple(each.value * unit for each in record.span.span), tuple(each.value * full for each in record.span.span)
        )
    absolute = tuple(float(macs) for macs in record.span.span_macs)
    return ExitCosts(tuple(macs / full for macs in absolute), absolute)


def span_disturbances(records: Iterable[Record]) -> list[str]:
    """What speaks against comparing the parallel times of ``records``, which are measured apart from latency."""
    return list(dict.fromkeys(reason for record in records if record.span for reason in record.span.meta.reasons))


def comparable(record: Record) -> tuple[bool, str]:
    """Whether the record's times may be ranked, and if not, why."""
    if record.timing is None:
        return False, "not timed"
    if record.timing.comparable:
        return True, ""
    return False, "; ".join(record.timing.headline.reasons or ["no reason given"])
