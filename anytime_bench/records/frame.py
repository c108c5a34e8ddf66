"""Records as a pandas frame, one line per record and exit: for tables and figures of one's own, and for boards.

What the record is and where it comes from, ``exit``, ``accuracy`` with ``_low`` and ``_high``, the scores per exit by
name, per axis ``cost_<axis>`` (in its unit) and ``relative_<axis>`` (in multiples of the reference's full cost), and
the record's areas as ``<area>_<axis>``, the same on each of its lines. What a record does not have is missing. All
columns are listed in docs/records.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from anytime_bench.files import canonical_json
from anytime_bench.records import store
from anytime_bench.records.axes import comparable, exit_costs, span_unit
from anytime_bench.records.entries import row_key, superseded
from anytime_bench.records.record import Record
from anytime_bench.records.verify import record_paths
from anytime_bench.trace.axes import AXES

Value = str | int | float | bool | None


def load_results(folder: str | Path) -> pd.DataFrame:
    """All results below ``folder``, one line per record and exit; docs/records.md lists the columns.

    As on a board, records that another one supersedes are left out, and so are runs without results. Raises
    ``UserError`` where there is no record or one cannot be read.
    """
    records = [store.load(path) for path in record_paths([Path(folder)])]
    replaced = superseded(records)
    return exit_frame(record for record in records if record.record_id not in replaced)


def exit_frame(records: Iterable[Record]) -> pd.DataFrame:
    """The lines of ``records``, in their order; those without results have none."""
    return pd.DataFrame([line for record in records for line in _lines(record)])


def exit_means(records: Sequence[Record]) -> pd.DataFrame:
    """Means over the seeds of a row, one line per exit; missing where a seed does not have the number."""
    by_exit = exit_frame(records).select_dtypes("number").groupby("exit")
    return by_exit.mean().where(by_exit.count() == len(records))


def _lines(record: Record) -> Iterator[dict[str, Value]]:
    named: dict[str, Value] = {
        "record": record.record_id,
        "created": record.created,
        "protocol": record.protocol_version,
        "task": record.task.name,
        "device": record.device,
        "method": record.method.name,
        "options": canonical_json(record.method.options),
        "row": row_key(record)[:12],
        "seed": record.seed,
        "parameters": record.parameters,
        "timed": comparable(record)[0],
    }
    areas = {
        f"{name}_{axis}": area.value
        for axis, by_name in {**record.scores, **record.timed_scores}.items()
        for name, area in by_name.items()
        if axis != "span" or span_unit(record) == 1.0
    }
    costs = {axis: each for axis in AXES if (each := exit_costs(record, axis)) is not None}
    for entry in record.exits:
        accuracy = entry.accuracy
        yield {
            **named,
            "exit": entry.k,
            "accuracy": accuracy.value,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            **entry.scores,
            **{f"cost_{axis}": each.absolute[entry.k] for axis, each in costs.items()},
            **{f"relative_{axis}": each.relative[entry.k] for axis, each in costs.items()},
            **areas,
        }
