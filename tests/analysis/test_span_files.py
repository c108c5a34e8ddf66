"""Files of a measured parallel time say what the schedule is: a timeline, a graph, a picture."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from anytime_bench.analysis.gantt import blocks_of, draw_schedules
from anytime_bench.harness.operator_graph import Operator, OperatorGraph
from anytime_bench.harness.schedule import best_schedule, critical_path, lane_times, work
from anytime_bench.harness.schedule_export import chrome_trace, dot

COSTS = np.array([1e-6, 4e-6, 6e-6, 2e-6])


@pytest.fixture
def graph() -> OperatorGraph:
    """A fork of two branches, joined, in modules of three blocks; the second operator is a barrier."""
    operators = (
        Operator("conv2d", 10, (), module="stem_conv", shapes=((1, 2),)),
        Operator("conv2d", 20, (0,), module="blocks.2.conv1", barrier=True),
        Operator("conv2d", 30, (0,), module="blocks.10.conv1"),
        Operator("add", 0, (1, 2)),
    )
    return OperatorGraph(operators, ((0,), (3,)))


def test_trace_shows_every_lane_and_nothing_twice(graph: OperatorGraph) -> None:
    runs = {f"P = {lanes}": best_schedule(graph, COSTS, lanes) for lanes in (1, 2)}
    events = json.loads(chrome_trace(graph, runs))["traceEvents"]
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == ["P = 1", "P = 2"]
    by_lane = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            by_lane[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert set(by_lane) == {(0, 0), (1, 0), (1, 1)}
    for spans in by_lane.values():
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(sorted(spans)))
    for process, run in enumerate(runs.values()):
        spent = sum(end - begin for (pid, _), spans in by_lane.items() if pid == process for begin, end in spans)
        assert spent == pytest.approx(1e6 * work(graph, COSTS)[-1])
        answers = [e["ts"] for e in events if e["ph"] == "i" and e["pid"] == process]
        assert answers == pytest.approx((1e6 * run.answers).tolist())


def test_best_schedule_is_the_one_whose_time_is_told(graph: OperatorGraph) -> None:
    for lanes in (1, 2, None):
        assert best_schedule(graph, COSTS, lanes).answers[-1] == lane_times(graph, COSTS, (lanes,))[0, -1]


def test_dot_names_operators_edges_answers_and_the_longest_chain(graph: OperatorGraph) -> None:
    lines = dot(graph, COSTS).splitlines()
    assert lines[0] == "digraph operators {"
    assert lines[-1] == "}"
    edges = {tuple(line.split("[")[0].strip(" ;").split(" -> ")) for line in lines if " -> " in line}
    assert edges == {("0", "1"), ("0", "2"), ("1", "3"), ("2", "3"), ("0", "answer0"), ("3", "answer1")}
    bold = {line.split()[0] for line in lines if "penwidth=3" in line and " -> " not in line}
    assert bold == set(map(str, critical_path(graph, COSTS))) == {"0", "2", "3"}
    assert '  2 [label="conv2d blocks.10.conv1\\n6.0 us\\n30 MACs", penwidth=3];' in lines
    assert any(line.startswith("  1 ") and "dashed" in line for line in lines)


def test_operators_are_coloured_by_block(graph: OperatorGraph) -> None:
    """An addition belongs to the block whose result it waited for last."""
    assert blocks_of(graph) == ["stem", "blocks.2", "blocks.10", "blocks.10"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_equal_schedules_give_equal_bytes(graph: OperatorGraph, suffix: str, tmp_path) -> None:
    runs = {f"P = {lanes}": best_schedule(graph, COSTS, lanes) for lanes in (1, 2)}
    drawn = [draw_schedules(graph, runs, "A title", tmp_path / f"{i}{suffix}").read_bytes() for i in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
