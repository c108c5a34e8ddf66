"""How a row's model is run: what of its latency is fixed, and its times compiled and on the best number of threads.

Of the last exit at batch 1 on the host's clock, means over the seeds that were timed so;
records of protocol 1 were not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anytime_bench.harness.timing_block import Execution as Timed
from anytime_bench.harness.timing_block import Timing
from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.column import MILLISECONDS, PERCENT, TEXT, TIMES, Column, Each, Form, Missing, Value
from anytime_bench.leaderboard.row_parts import Execution, mean_digits, mean_share
from anytime_bench.records.record import Record

#: Seconds per MAC are read in ms per million of them.
MS_PER_MMAC = Form(1e9, 3, rounded=True)


def execution(records: Sequence[Record]) -> Execution | None:
    """None where no record of the row says anything of it."""
    timings = [record.timing for record in records if record.timing is not None]
    fits = [timing.dispatch for timing in timings if timing.dispatch is not None]
    compiled = [each for timing in timings if (each := timing.latency.executions.get("compile"))]
    threaded = [timing for timing in timings if timing.meta.best_threads is not None]
    if not (fits or compiled or threaded):
        return None
    best = [_on_best_threads(timing) for timing in threaded]
    return Execution(
        plain_seconds=_mean([timing.latency.run_through[-1].p50 for timing in timings]),
        fixed_seconds=_mean([fit.seconds for fit in fits]),
        seconds_per_mac=_mean([fit.seconds_per_mac for fit in fits if fit.seconds_per_mac is not None]),
        fixed_share=mean_share([fit.share for fit in fits]) if fits else None,
        compiled_seconds=_mean([each.run_through[-1].p50 for each in compiled]),
        compiled_ratio=_mean([each.ratio_to_reference[-1].value for each in compiled]),
        best_threads=sorted({timing.meta.best_threads for timing in threaded if timing.meta.best_threads}),
        best_threads_seconds=_mean([each.run_through[-1].p50 for each in best]),
        best_threads_ratio=_mean([each.ratio_to_reference[-1].value for each in best]),
    )


def _on_best_threads(timing: Timing) -> Timed:
    """The model on its best number of threads, which may be the number on which everything was timed."""
    plain = timing.latency
    own = Timed(run_through=plain.run_through, ratio_to_reference=plain.ratio_to_reference)
    return plain.executions.get(f"threads_{timing.meta.best_threads}", own)


def _mean(values: Sequence[float]) -> float | None:
    return mean_digits(values) if values else None


def _stated(board: Board) -> list[tuple[str, str, Form, str]]:
    """The columns, if some row says anything."""
    return list(SHOWN) if board.any_execution else []


def _column(board: Board, shown: tuple[str, str, Form, str]) -> Column:
    name, title, form, meaning = shown

    def read(line: Any) -> Value:
        value = getattr(line.row.execution, name) if line.row.execution else None
        if name == "best_threads" and value is not None:
            value = ", ".join(map(str, value)) or None
        return Missing("not measured") if value is None else value

    return Column(name, title, read, form, ("execution", "csv"), "" if form is TEXT else "low", meaning)


SHOWN: tuple[tuple[str, str, Form, str], ...] = (
    ("plain_seconds", "Last answer, ms", MILLISECONDS, ""),
    ("fixed_seconds", "Fixed, ms", MILLISECONDS, "what it takes whatever the batch: a line through its batch sizes"),
    ("seconds_per_mac", "ms/MMAC", MS_PER_MMAC, "the slope of that line, per million MACs of an image"),
    ("fixed_share", "Fixed %", PERCENT, "share of one image's time that is fixed, on a small network dispatch"),
    ("compiled_seconds", "Compiled, ms", MILLISECONDS, ""),
    ("compiled_ratio", "x compiled reference", TIMES, "compiled time over the compiled reference's full time"),
    ("best_threads", "Best threads", TEXT, "intra-op threads on which it is fastest, one number where seeds agree"),
    ("best_threads_seconds", "On these, ms", MILLISECONDS, ""),
    ("best_threads_ratio", "On these, x reference", TIMES, "over the reference's full time on the threads of all rows"),
)
EXECUTION_COLUMNS: tuple[Column | Each, ...] = (Each(_stated, _column),)
