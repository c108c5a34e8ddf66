"""Work, span and greedy schedules of operator graphs: closed forms, and the bounds that hold for every graph."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.harness.operator_graph import Operator, OperatorGraph, SpanError
from anytime_bench.harness.schedule import (
    allotments,
    critical_path,
    greedy,
    growth_gap,
    lane_times,
    span,
    work,
)

LANES = (1, 2, 3, 4, 8, 16, None)


def schedule(made: OperatorGraph, costs: object, lanes: int | None, edge_cost: float = 0.0) -> np.ndarray:
    return lane_times(made, costs, (lanes,), edge_cost)[0]  # type: ignore[arg-type]


def graph(*after: tuple[int, ...], answers: tuple[tuple[int, ...], ...] | None = None) -> OperatorGraph:
    """Operators that wait for ``after``; one answer, the last operator, unless said otherwise."""
    operators = tuple(Operator(f"op{index}", after=before) for index, before in enumerate(after))
    return OperatorGraph(operators, answers or ((len(after) - 1,),))


def times(made: OperatorGraph, costs: list[float], edge_cost: float = 0.0) -> list[float]:
    """T_P of the last answer for P = 1, 2, 3, 4, 8, 16, inf."""
    return lane_times(made, costs, LANES, edge_cost)[:, -1].tolist()


# ---------------------------------------------------------------- graphs with known answers


def test_chain_gains_nothing_from_lanes() -> None:
    chain = graph((), (0,), (1,), (2,), answers=((1,), (3,)))
    assert work(chain, [1, 2, 3, 4]).tolist() == span(chain, [1, 2, 3, 4]).tolist() == [3, 10]
    assert lane_times(chain, [1, 2, 3, 4], LANES).tolist() == [[3, 10]] * len(LANES)
    assert critical_path(chain, [1, 2, 3, 4]) == (0, 1, 2, 3)


def test_two_independent_branches_run_side_by_side() -> None:
    branches = graph((), (0,), (), (2,), (1, 3))
    costs = [3, 4, 5, 6, 1]
    assert (work(branches, costs)[-1], span(branches, costs)[-1]) == (19, 12)
    assert times(branches, costs) == [19, 12, 12, 12, 12, 12, 12]
    assert critical_path(branches, costs) == (2, 3, 4)


def test_diamond() -> None:
    diamond = graph((), (0,), (0,), (0,), (1, 2, 3))
    assert times(diamond, [1, 5, 5, 5, 1]) == [17, 12, 7, 7, 7, 7, 7]


def test_one_huge_operator_hides_many_small_ones() -> None:
    """A tick that ends when its slowest block ends: 1 + 20 x 1 + 100, the small ones beside the huge one."""
    fan = graph((), *((0,) for _ in range(20)), (0,), tuple(range(1, 22)))
    costs = [1.0] + [1.0] * 20 + [100.0] + [1.0]
    assert times(fan, costs) == [122, 102, 102, 102, 102, 102, 102]


def test_earlier_answers_go_first() -> None:
    """The long operator of the second answer may not hold up the first on one lane, though it was issued first."""
    two = graph((), (), (0,), answers=((1,), (2,)))
    costs = [50, 1, 1]
    assert schedule(two, costs, 1).tolist() == [1, 52]
    assert schedule(two, costs, 2).tolist() == [1, 51]


def test_an_answer_counts_when_all_before_it_are_there() -> None:
    late_first = graph((), (), answers=((0,), (1,)))
    assert span(late_first, [9, 2]).tolist() == [9, 9]
    assert work(late_first, [9, 2]).tolist() == [9, 11]


def test_operators_that_no_answer_needs_cost_nothing() -> None:
    made = graph((), (0,), (0,), answers=((1,),))
    assert made.needed == (0, 1)
    assert work(made, [1, 2, 40])[-1] == times(made, [1, 2, 40])[-1] == 3


def test_a_constant_answer_is_there_at_once() -> None:
    made = graph((), answers=((), (0,)))
    assert work(made, [3]).tolist() == span(made, [3]).tolist() == schedule(made, [3], 2).tolist() == [0, 3]


def test_edges_between_lanes_are_charged() -> None:
    """Fork and join: one branch stays on its lane, the other moves; while its result is awaited nothing is lost."""
    fork = graph((), (0,), (0,), (1, 2))
    costs = [1, 10, 10, 1]
    for edge, expected in ((0, 12), (3, 15), (10, 22), (12, 22)):
        assert schedule(fork, costs, 2, edge).tolist() == [expected], edge
    assert schedule(fork, costs, 1, 12).tolist() == [22]


def test_more_lanes_never_hurt_though_greedy_schedules_can() -> None:
    """An anomaly of the kind Graham described, by search over random graphs: 18 on four lanes, 17 on three."""
    after = ((), (), (0, 1), (1,), (0,), (2, 4), (5,), (0, 4), (1,), (), (), (6, 9))
    sinks = tuple(index for index in range(12) if not any(index in before for before in after))
    made = graph(*after, answers=(sinks,))
    costs = [4.0, 1, 1, 1, 1, 4, 4, 1, 4, 3, 4, 4]
    by_lanes = [greedy(made, np.array([costs]), lanes).answers[-1] for lanes in (1, 2, 3, 4)]
    assert any(later > earlier for earlier, later in pairwise(by_lanes))
    assert all(later <= earlier for earlier, later in pairwise(times(made, costs)))


def test_moldable_operators_of_a_chain_take_every_lane() -> None:
    chain = graph((), (0,), (1,))
    assert times(chain, [[4, 4, 4], [3, 2, 5]]) == [12, 9, 9, 9, 9, 9, 9]  # the third is slower on two


def test_moldable_operators_stay_narrow_where_lanes_are_better_spent() -> None:
    """Two branches of 10, or 6 on two lanes each: side by side takes 10, one after the other 12."""
    branches = graph((), (), (0, 1))
    assert times(branches, [[10, 10, 1], [6, 6, 1]])[:2] == [21, 11]
    assert times(branches, [[10, 10, 1], [6, 6, 1]])[3] == 7  # four lanes: both at once, two lanes each


# ---------------------------------------------------------------- any graph


@st.composite
def graphs(draw: st.DrawFn) -> tuple[OperatorGraph, list[float]]:
    """Up to 14 operators with whole-number costs, so that sums are exact, and up to 4 answers."""
    count = draw(st.integers(1, 14))
    after = [draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set() for index in range(count)]
    answers = draw(st.lists(st.sets(st.integers(0, count - 1), min_size=1, max_size=2), min_size=1, max_size=4))
    costs = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    made = graph(*(tuple(sorted(before)) for before in after), answers=tuple(tuple(sorted(each)) for each in answers))
    return made, [float(cost) for cost in costs]


@given(graphs())
def test_span_is_the_longest_chain(case: tuple[OperatorGraph, list[float]]) -> None:
    made, costs = case

    def longest(index: int) -> float:
        return costs[index] + max((longest(before) for before in made.operators[index].after), default=0)

    expected = np.maximum.accumulate([max(map(longest, answer)) for answer in made.answers])
    assert span(made, costs).tolist() == expected.tolist()
    path = critical_path(made, costs)
    assert sum(costs[index] for index in path) == expected[-1]
    assert all(before in made.operators[index].after for before, index in pairwise(path))


@given(graphs(), st.integers(0, 5))
def test_bounds(case: tuple[OperatorGraph, list[float]], edge_cost: int) -> None:
    """span <= T_P <= work for every exit, never rising with P; Graham and Brent for the last exit."""
    made, costs = case
    by_lanes = lane_times(made, costs, LANES, edge_cost)
    assert (by_lanes[0] == work(made, costs)).all()
    assert (by_lanes >= span(made, costs)).all()
    assert (np.diff(by_lanes, axis=0) <= 0).all()
    assert (np.diff(by_lanes, axis=1) >= 0).all()
    if not edge_cost:
        assert (by_lanes[-1] == span(made, costs)).all()
        total, longest = work(made, costs)[-1], span(made, costs)[-1]
        for lanes, at in zip(LANES[:-1], by_lanes[:-1, -1], strict=True):
            assert total / lanes <= at <= total / lanes + longest * (1 - 1 / lanes) + 1e-9


@given(graphs(), st.integers(1, 4), st.integers(0, 3), st.data())
def test_a_schedule_is_one_that_lanes_can_run(
    case: tuple[OperatorGraph, list[float]], lanes: int, edge_cost: int, data: st.DataObject
) -> None:
    """Nothing starts before what it waits for, no lane does two things at once, and no width is ignored."""
    made, costs = case
    widths = np.array(data.draw(st.lists(st.integers(1, lanes), min_size=len(costs), max_size=len(costs))))
    run = greedy(made, np.array([costs] * lanes), lanes, edge_cost, widths)
    for index in made.needed:
        assert run.finish[index] == run.start[index] + costs[index]
        assert len(set(run.lanes[index])) == widths[index]
        assert max(run.lanes[index]) < lanes
        for before in made.operators[index].after:
            moved = run.lanes[before][0] != run.lanes[index][0]
            assert run.start[index] >= run.finish[before] + (edge_cost if moved else 0)
    for lane in range(lanes):
        held = sorted((run.start[i], run.finish[i]) for i in made.needed if lane in run.lanes[i])
        assert all(finish <= start for (_, finish), (start, _) in pairwise(held))
    assert np.isnan(np.delete(run.start, made.needed)).all()


@given(graphs(), st.integers(1, 4))
def test_no_lane_is_idle_while_an_operator_is_ready(case: tuple[OperatorGraph, list[float]], lanes: int) -> None:
    made, costs = case
    run = greedy(made, np.array([costs]), lanes)
    for index in made.needed:
        ready = max((run.finish[before] for before in made.operators[index].after), default=0.0)
        for moment in {ready, *(run.finish[i] for i in made.needed)}:
            if ready <= moment < run.start[index]:
                busy = sum(run.start[i] <= moment < run.finish[i] for i in made.needed)
                assert busy == lanes


@settings(max_examples=60)
@given(graphs(), st.data())
def test_moldable_operators_help_and_stay_within_the_area(
    case: tuple[OperatorGraph, list[float]], data: st.DataObject
) -> None:
    made, costs = case
    wider = [float(data.draw(st.integers(0, int(cost)))) for cost in costs]
    both = np.array([costs, wider])
    by_lanes = lane_times(made, both, LANES)
    assert (by_lanes <= lane_times(made, costs, LANES)).all()
    assert (by_lanes >= span(made, both.min(0))).all()
    assert (np.diff(by_lanes, axis=0) <= 0).all()
    least = work(made, np.minimum(both[0], 2 * both[1]))  # lane-seconds, the cheaper way
    for lanes, at in zip(LANES[:-1], by_lanes[:-1], strict=True):
        assert (at >= least / lanes - 1e-9).all()


@settings(max_examples=60)
@given(graphs(), st.integers(0, 3), st.data())
def test_a_schedule_that_lanes_do_not_limit_is_the_same_on_more_of_them(
    case: tuple[OperatorGraph, list[float]], edge_cost: int, data: st.DataObject
) -> None:
    """``lane_times`` makes such a schedule once; here each is made for every number of lanes."""
    made, costs = case
    both = np.array([costs, [float(data.draw(st.integers(0, int(cost)))) for cost in costs]])
    for form in (both[:1], both):
        best = [
            np.min(
                [greedy(made, form, lanes, edge_cost, each).answers for each in allotments(made, form, lanes)], axis=0
            )
            for lanes in range(1, 17)
        ]
        expected = np.minimum.accumulate(best)
        assert (lane_times(made, form, range(1, 17), edge_cost) == expected).all()


# ---------------------------------------------------------------- declared against measured


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=6), st.floats(0.1, 10))
def test_growth_ignores_units_and_is_the_worst_of_all_pairs(steps: list[tuple[float, float]], unit: float) -> None:
    declared, measured = np.cumsum(np.array(steps), axis=0).T
    gap = growth_gap(declared.tolist(), measured)
    pairs = [(measured[k] / measured[j]) / (declared[k] / declared[j]) for k in range(len(steps)) for j in range(k)]
    assert gap.factor == pytest.approx(max([1.0, *pairs]))
    assert growth_gap((unit * declared).tolist(), measured / unit).factor == pytest.approx(gap.factor)
    assert growth_gap(declared.tolist(), declared).factor == pytest.approx(1)
    # What outgrows the ticks in one cost alone is no fault: operators may be small, or large.
    assert growth_gap(declared.tolist(), measured, declared).factor == pytest.approx(1)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("lanes", [0, -1, 1.5, True])
def test_lanes_that_make_no_sense(lanes: object) -> None:
    with pytest.raises(SpanError, match=re.escape(f"lanes is {lanes!r}, expected a whole number of at least 1")):
        schedule(graph(()), [1], lanes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("costs", "says"),
    [([1.0, 2.0], r"costs have shape \(2,\), expected one per operator"), ([-1.0], "negative"), ([np.nan], "finite")],
)
def test_costs_that_make_no_sense(costs: list[float], says: str) -> None:
    with pytest.raises(SpanError, match=says):
        schedule(graph(()), costs, 1)


def test_a_negative_edge_cost() -> None:
    with pytest.raises(SpanError, match=r"edge_cost is -1, expected 0 or more"):
        schedule(graph(()), [1], 1, -1)


def test_graphs_that_are_none() -> None:
    with pytest.raises(SpanError, match=r"operator 0 waits for \(1,\)"):
        graph((1,), ())
    with pytest.raises(SpanError, match=r"answers are \(\(3,\),\)"):
        graph((), answers=((3,),))
