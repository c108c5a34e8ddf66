"""Parallel time of one method as tables for a terminal, at most 80 columns, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from anytime_bench.harness.schedule import critical_path, edge_times, span, work
from anytime_bench.harness.schedule_export import label
from anytime_bench.harness.span_summary import EDGE_COSTS, SpanBlock, operator_seconds
from anytime_bench.runs.span import SpanSubject

Floats = NDArray[np.float64]

WIDTH = 80
#: Operators of the critical path that are named one by one.
NAMED = 10

Lanes = Sequence[int | None]


class PathStep(BaseModel):
    """An operator of the critical path; ``share`` is of its length."""

    operator: str
    seconds: float
    share: float


class ReadyTimes(BaseModel):
    """When each exit is ready on so many lanes; ``operators`` says how many lanes one operator may take."""

    edge_us: int
    operators: str
    lanes: str
    seconds: list[float]


class SpanReport(BaseModel):
    """Everything the tables say; seconds and MACs, lists by exit."""

    method: str
    task: str
    reference: str
    reference_seconds: float
    operators: int
    work_seconds: list[float]
    span_seconds: list[float]
    work_macs: list[int]
    span_macs: list[int]
    ticks: list[float]
    parallelism: float
    #: Measured, by number of threads.
    latency_seconds: dict[int, float]
    critical_path: list[PathStep]
    times: list[ReadyTimes]
    span: SpanBlock


def span_report(subject: SpanSubject, lanes: Lanes) -> SpanReport:
    """The report of one method; ``lanes`` None is unlimited and reads ``inf``."""
    graph, block = subject.measurement.graph, subject.measurement.summary()
    costs = operator_seconds(subject.measurement.samples)
    reference = block.reference_seconds.value
    path, edges = critical_path(graph, costs[0]), [edge * 1e-6 for edge in EDGE_COSTS]
    longest = float(span(graph, costs[0])[-1])
    return SpanReport(
        method=subject.method,
        task=subject.task,
        reference=subject.reference,
        reference_seconds=reference,
        operators=len(graph.needed),
        work_seconds=work(graph, costs[0]).tolist(),
        span_seconds=span(graph, costs[0]).tolist(),
        work_macs=[int(value) for value in work(graph, graph.macs)],
        span_macs=list(block.span_macs),
        ticks=list(subject.ticks),
        parallelism=float(work(graph, costs[0])[-1]) / longest,
        latency_seconds={each.threads: each.latency.value * reference for each in block.threads},
        critical_path=[
            PathStep(operator=label(graph.operators[i]), seconds=float(costs[0, i]), share=float(costs[0, i]) / longest)
            for i in path
        ],
        times=[
            ReadyTimes(edge_us=edge, operators=form, lanes=lane_name(count), seconds=row.tolist())
            for form, chosen in _forms(costs).items()
            for edge, times in zip(EDGE_COSTS, edge_times(graph, chosen, lanes, edges), strict=True)
            for count, row in zip(lanes, times, strict=True)
        ],
        span=block,
    )


def show_span(subject: SpanSubject, lanes: Lanes) -> None:
    """Print the tables to standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    report = span_report(subject, lanes)
    for title, table in (
        _summary(subject, report), _exits(report, lanes), _edges(report, lanes), _path(report),
    ):  # fmt: skip
        console.print(title, markup=False)
        console.print(table)
        console.print()
    for line in _notes(subject):
        console.print(line, markup=False)


def lane_name(lanes: int | None) -> str:
    return "inf" if lanes is None else str(lanes)


def _forms(costs: Floats) -> dict[str, Floats]:
    """The operators' costs by how many lanes one may take: one, and up to as many as threads were measured."""
    forms = {"on one lane": costs[:1]}
    return forms | ({f"on up to {len(costs)}": costs} if len(costs) > 1 else {})


def _summary(subject: SpanSubject, report: SpanReport) -> tuple[str, Any]:
    block = subject.measurement.summary()
    longest, total = block.span[-1], block.work[-1]
    table = _table("", "time", f"x {subject.reference}", "MACs")
    table.add_row("work T_1", _ms(report.work_seconds[-1]), f"{total.value:.2f}", _millions(report.work_macs[-1]))
    interval = f"{longest.value:.2f} [{longest.low:.2f}, {longest.high:.2f}]"
    table.add_row("span T_inf", _ms(report.span_seconds[-1]), interval, _millions(report.span_macs[-1]))
    macs = report.work_macs[-1] / max(1, report.span_macs[-1])
    table.add_row("parallelism", f"{report.parallelism:.2f}", "", f"{macs:.2f}")
    for each in block.threads:
        name = f"measured, {each.threads} thread{'s' * (each.threads > 1)}"
        table.add_row(name, _ms(report.latency_seconds[each.threads]), f"{each.latency.value:.2f}", "")
    if real := block.real_lanes:
        seconds = [1e3 * each.value * report.reference_seconds for each in (real.alone, real.together)]
        table.add_row("operators alone, 1 lane", f"{seconds[0]:.3f} ms", f"{real.alone.value:.2f}", "")
        table.add_row("on 2 real lanes", f"{seconds[1]:.3f} ms", f"{real.together.value:.2f}", "")
    return f"{subject.method} on {subject.task}, {block.meta.device}, batch {block.batch_size}, untrained", table


def _exits(report: SpanReport, lanes: Lanes) -> tuple[str, Any]:
    times = [row for row in report.times if row.edge_us == 0 and row.operators == "on one lane"]
    table = _table("exit", "ticks", "span MACs", *_headings(lanes))
    for k, tick in enumerate(report.ticks):
        cells = [f"{row.seconds[k] / report.reference_seconds:.2f}" for row in times]
        table.add_row(str(k), f"{tick:g}", _millions(report.span_macs[k]), *cells)
    return f"When exits are ready on P lanes, one an operator; x {report.reference} on one lane", table


def _edges(report: SpanReport, lanes: Lanes) -> tuple[str, Any]:
    table = _table("operators run", "edge", *_headings(lanes))
    rows: dict[tuple[str, int], list[str]] = {}
    for row in sorted(report.times, key=lambda row: row.operators != "on one lane"):
        cell = f"{row.seconds[-1] / report.reference_seconds:.2f}"
        rows.setdefault((row.operators, row.edge_us), []).append(cell)
    for (form, edge), cells in rows.items():
        table.add_row(form, f"{edge} us", *cells)
    return f"The last exit where an edge between lanes costs time; x {report.reference} on one lane", table


def _path(report: SpanReport) -> tuple[str, Any]:
    table = _table("operator", "time", "share")
    ranked = sorted(report.critical_path, key=lambda step: -step.seconds)
    for step in ranked[:NAMED]:
        table.add_row(step.operator, _ms(step.seconds), f"{step.share:.1%}")
    if rest := ranked[NAMED:]:
        seconds, share = sum(step.seconds for step in rest), sum(step.share for step in rest)
        table.add_row(f"{len(rest)} more", _ms(seconds), f"{share:.1%}")
    return f"The longest chain: {len(ranked)} operators", table


def _notes(subject: SpanSubject) -> list[str]:
    block = subject.measurement.summary()
    gap = block.model_error
    notes = [
        f"T_1 is {gap.value:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}] from the measured run-through on one thread; "
        f"issuing operators is {block.dispatch_share:.0%} of T_1.",
        "T_P is what P lanes of this machine's operators could do at best.",
    ]
    if real := block.real_lanes:
        gain = f"{real.gain.value:.2f} [{real.gain.low:.2f}, {real.gain.high:.2f}]"
        notes.append(f"Two real lanes (threads) are {gain} times as fast as one; T_1 / T_2 is {real.modelled:.2f}.")
    return notes + [f"not comparable: {reason}" for reason in block.meta.reasons]


def _headings(lanes: Lanes) -> list[str]:
    return [f"P = {lane_name(count)}" for count in lanes]


def _table(first: str, *rest: str) -> Any:
    """A table whose first column is text and the others numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"


def _millions(macs: int) -> str:
    return f"{macs / 1e6:.2f} M"
