"""The files of one measured parallel time: a timeline for Perfetto, a graph for Graphviz, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from anytime_bench.analysis.gantt import draw_schedules
from anytime_bench.analysis.span_tables import lane_name
from anytime_bench.errors import UserError
from anytime_bench.files import write_atomically
from anytime_bench.harness.schedule import Schedule, best_schedule
from anytime_bench.harness.schedule_export import chrome_trace, dot
from anytime_bench.harness.span_summary import operator_seconds
from anytime_bench.runs.span import SpanSubject

#: More lanes than this have no panel in the picture; more would not fit a page.
DRAWN = 8


def write_files(
    subject: SpanSubject,
    lanes: Sequence[int | None],
    *,
    trace: Path | None = None,
    graph: Path | None = None,
    gantt: Path | None = None,
) -> list[Path]:
    """Write the files that are asked for; returns their paths. Operators run on one lane each.

    Raises ``UserError`` where a file cannot be written.
    """
    operators = subject.measurement.graph
    costs = operator_seconds(subject.measurement.samples)[0]
    wanted = lanes if trace or gantt else ()
    runs = {f"P = {lane_name(count)}": best_schedule(operators, costs, count) for count in wanted}
    contents: list[tuple[Path, bytes]] = []
    if trace is not None:
        contents.append((trace, chrome_trace(operators, runs).encode()))
    if graph is not None:
        contents.append((graph, dot(operators, costs).encode()))
    written: list[Path] = []
    try:
        for path, data in contents:
            write_atomically(path, data)
            written.append(path)
        if gantt is not None:
            title = f"{subject.method} on {subject.task}: operators on P lanes; vertical lines are answers"
            written.append(draw_schedules(operators, _panels(runs), title, gantt))
    except OSError as error:
        place = error.filename or gantt
        raise UserError(f"'{place}' cannot be written: {error.strerror}. Choose another file.") from error
    return written


def _panels(runs: Mapping[str, Schedule]) -> dict[str, Schedule]:
    """The schedules that fit a page, each number of lanes in use once; the first one where none fits."""
    panels: dict[int, tuple[str, Schedule]] = {}
    for title, run in runs.items():
        if run.lanes_used <= DRAWN:
            panels.setdefault(run.lanes_used, (title, run))
    return dict(panels.values() or [next(iter(runs.items()))])
