"""Schedules and operator graphs as files for other programs: Chrome traces (Perfetto) and DOT (Graphviz).

A trace has a process per schedule and a thread per lane, times in microseconds; answers are instant events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from anytime_bench.harness.operator_graph import Operator, OperatorGraph
from anytime_bench.harness.schedule import Schedule, critical_path


def chrome_trace(graph: OperatorGraph, schedules: Mapping[str, Schedule]) -> str:
    """JSON of the trace event format, for ui.perfetto.dev and chrome://tracing: ``schedules`` by title."""
    events: list[dict[str, object]] = []
    for process, (title, run) in enumerate(schedules.items()):
        events.append(_named("process", process, 0, title))
        events += [_named("thread", process, lane, f"lane {lane + 1}") for lane in range(run.lanes_used)]
        for index in graph.needed:
            events += [_slice(graph, run, index, process, lane) for lane in run.lanes[index]]
        for k, seconds in enumerate(run.answers):
            event = {"name": f"answer {k}", "ph": "i", "s": "p", "pid": process, "tid": 0, "ts": 1e6 * float(seconds)}
            events.append(event)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def dot(graph: OperatorGraph, costs: ArrayLike) -> str:
    """The operator graph for Graphviz: what waits for what, each operator's cost in us, the longest chain in bold."""
    seconds = np.asarray(costs, dtype=np.float64)
    path = set(critical_path(graph, seconds))
    lines = ["digraph operators {", "  rankdir=TB;", '  node [shape=box, fontname="sans-serif", fontsize=10];']
    for index in graph.needed:
        operator = graph.operators[index]
        parts = [label(operator), f"{1e6 * seconds[index]:.1f} us", *[f"{operator.macs} MACs"] * bool(operator.macs)]
        style = ", penwidth=3" * (index in path) + ", style=dashed" * operator.barrier
        lines.append(f'  {index} [label="{_escaped(chr(10).join(parts))}"{style}];')
    for index in graph.needed:
        for before in graph.operators[index].after:
            bold = " [penwidth=3]" if {index, before} <= path else ""
            lines.append(f"  {before} -> {index}{bold};")
    for k, answer in enumerate(graph.answers):
        lines.append(f'  answer{k} [label="answer {k}", shape=ellipse];')
        lines += [f"  {index} -> answer{k};" for index in answer]
    return "\n".join([*lines, "}", ""])


def label(operator: Operator) -> str:
    """An operator's name and, where it has one, its module."""
    return f"{operator.name} {operator.module}".rstrip()


def _named(what: str, process: int, thread: int, name: str) -> dict[str, object]:
    return {"name": f"{what}_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _slice(graph: OperatorGraph, run: Schedule, index: int, process: int, lane: int) -> dict[str, object]:
    operator = graph.operators[index]
    return {
        "name": label(operator),
        "ph": "X",
        "pid": process,
        "tid": lane,
        "ts": 1e6 * float(run.start[index]),
        "dur": 1e6 * float(run.finish[index] - run.start[index]),
        "args": {
            "operator": index,
            "MACs": operator.macs,
            "first answer that needs it": graph.first_answer[index],
            "waits for": list(operator.after),
            "shapes": [list(shape) for shape in operator.shapes],
        },
    }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
