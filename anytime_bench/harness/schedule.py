"""When each answer of an operator graph is ready on P lanes: work, span, and what lies between. Pure functions.

For operators with costs c (seconds or MACs), over the operators that answers 0..k need::

    work   T_1    the sum of their costs
    span   T_inf  the cost of the longest chain among them
    T_P           when answers 0..k are ready under a greedy list schedule on at most P lanes

A greedy schedule never leaves a lane idle while an operator is ready; earlier answers go first, then the longest
chain that remains before the operator's own answer. It can get worse with one lane more (Graham, SIAM J. Appl. Math.
17, 1969), so T_P is, for each exit, the best of 1..P lanes. Hence span <= T_P <= work for each exit, T_P never rises
with P, and for the last exit T_P <= T_1 / P + T_inf (Graham; Brent, J. ACM 21, 1974).

An operator may also take several lanes (it is *moldable*), where its cost was measured on so many threads. Widths are
chosen per operator beforehand, in three ways, and the best of the resulting schedules counts for each exit: every
operator on one lane; every operator as fast as it goes; and the operators of the longest chain widened step by step
until that chain is no longer than the lanes are busy (Radulescu and van Gemund, ICPP 2001).

``edge_cost`` is charged where an operator waits for one that ran on another lane.

Shapes: costs ``(N,)``, or ``(W, N)`` for W widths; times ``(E,)``, never falling with the exit, because answer k counts
when answers 0..k are there. Errors: ``SpanError``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.harness.operator_graph import OperatorGraph, SpanError

Floats = NDArray[np.float64]

#: Where unlimited lanes are asked for and no finite number, schedules on 1 to this many lanes are tried too.
TRIED_LANES = 16


@dataclass(frozen=True)
class Schedule:
    """One run of a graph: ``start`` and ``finish (N,)``, nan for operators that no answer needs, the lanes that each
    operator takes, the number of lanes in use, and when answers 0..k are ready ``(E,)``."""

    start: Floats
    finish: Floats
    lanes: tuple[tuple[int, ...], ...]
    lanes_used: int
    answers: Floats


def work(graph: OperatorGraph, costs: ArrayLike) -> Floats:
    """Summed costs of the operators that answers 0..k need ``(..., E)``, for ``costs (..., N)``."""
    values = _checked_costs(graph, costs)
    first = np.array(graph.first_answer, dtype=int)
    return np.stack([values[..., first <= k].sum(-1) for k in range(graph.num_exits)], axis=-1)


def span(graph: OperatorGraph, costs: ArrayLike) -> Floats:
    """Cost of the longest chain of operators up to answers 0..k ``(..., E)``, for ``costs (..., N)``."""
    values = _checked_costs(graph, costs)
    finish = np.zeros((len(graph), *values.shape[:-1]))
    for index, operator in enumerate(graph.operators):
        finish[index] = values[..., index]
        if operator.after:
            finish[index] += finish[list(operator.after)].max(0)
    return _answer_times(graph, np.moveaxis(finish, 0, -1))


@dataclass(frozen=True)
class GrowthGap:
    """Between ``exits`` a measured cost grows ``factor`` times as fast as a declared one."""

    factor: float
    exits: tuple[int, int]


def growth_gap(declared: Sequence[float], *measured: ArrayLike) -> GrowthGap:
    """The two exits between which all of ``measured (E,)`` outgrow ``declared (E,)`` most; units do not matter.

    Factor 1 where none does.

    >>> growth_gap([1, 2, 3], [10, 20, 90])
    GrowthGap(factor=3.0, exits=(0, 2))
    """
    worst = GrowthGap(1.0, (0, 0))
    costs = [np.asarray(each, dtype=np.float64) for each in measured]
    for early, late in combinations(range(len(declared)), 2):
        growth = min(float(cost[late] / cost[early]) if cost[early] else math.inf for cost in costs)
        factor = growth / (declared[late] / declared[early])
        if factor > worst.factor:
            worst = GrowthGap(factor, (early, late))
    return worst


def critical_path(graph: OperatorGraph, costs: ArrayLike) -> tuple[int, ...]:
    """The operators of the longest chain up to the last answer, in order."""
    values = _checked_costs(graph, costs)
    finish = np.zeros(len(graph))
    for index, operator in enumerate(graph.operators):
        finish[index] = values[index] + max((finish[before] for before in operator.after), default=0.0)
    path: list[int] = []
    waiting: Sequence[int] = [index for answer in graph.answers for index in answer]
    while waiting:
        path.append(max(waiting, key=lambda index: finish[index]))
        waiting = graph.operators[path[-1]].after
    return tuple(reversed(path))


def lane_times(
    graph: OperatorGraph, costs: ArrayLike, lanes: Sequence[int | None], edge_cost: float = 0.0
) -> NDArray[np.float64]:
    """T_P: when answers 0..k are ready on at most P lanes, for several P, ``(P, E)``; None: as many as have work.

    ``costs (N,)`` gives every operator one lane; ``costs (W, N)`` lets it take 1..W, row w being its cost on w + 1.
    """
    values = np.atleast_2d(_checked_costs(graph, costs))
    if edge_cost < 0:
        raise SpanError(f"edge_cost is {edge_cost}, expected 0 or more")
    best = np.full(graph.num_exits, np.inf)
    times: dict[int, Floats] = {}
    for count, runs in _tried(graph, values, lanes, edge_cost):
        best = times[count] = np.minimum(best, np.min([run.answers for run in runs], axis=0))
    return np.array([times[max(tried for tried in times if count is None or tried <= count)] for count in lanes])


def edge_times(
    graph: OperatorGraph, costs: ArrayLike, lanes: Sequence[int | None], edge_costs: Sequence[float]
) -> NDArray[np.float64]:
    """T_P for several numbers of lanes and costs of an edge ``(C, P, E)``.

    A schedule made for dear edges runs no later where they are cheap, so cheaper edges never hurt.
    """
    order = sorted(range(len(edge_costs)), key=lambda place: -edge_costs[place])
    times = np.array([lane_times(graph, costs, lanes, edge_costs[place]) for place in order])
    return np.minimum.accumulate(times, axis=0)[np.argsort(order)]


def best_schedule(graph: OperatorGraph, costs: ArrayLike, lanes: int | None, edge_cost: float = 0.0) -> Schedule:
    """The one schedule on at most ``lanes`` lanes whose last answer is there first; of equals, the fewest lanes'."""
    values = np.atleast_2d(_checked_costs(graph, costs))
    runs = [run for _, tried in _tried(graph, values, (lanes,), edge_cost) for run in tried]
    return min(runs, key=lambda run: run.answers[-1])


def _tried(
    graph: OperatorGraph, costs: Floats, lanes: Sequence[int | None], edge_cost: float
) -> Iterator[tuple[int, list[Schedule]]]:
    """All schedules that count for ``lanes``, by the number of lanes they were made for.

    Once as many lanes as the widest operator takes have stayed unused, nothing waited for a lane, and the schedule of
    these widths is the same on any more.
    """
    finite = max((_checked_lanes(count) for count in lanes if count is not None), default=TRIED_LANES)
    settled: dict[bytes, Schedule] = {}
    for count in [*range(1, finite + 1)] + [max(finite, len(graph) * len(costs))] * (None in lanes):
        runs = []
        for widths in allotments(graph, costs, count):
            run = settled.get(widths.tobytes()) or greedy(graph, costs, count, edge_cost, widths)
            if run.lanes_used + int(widths.max(initial=1)) <= count:
                settled[widths.tobytes()] = run
            runs.append(run)
        yield count, runs


def allotments(graph: OperatorGraph, costs: Floats, lanes: int) -> list[NDArray[np.int64]]:
    """The ways to give each operator a number of lanes ``(N,)`` that are tried on ``lanes`` lanes; costs ``(W, N)``."""
    narrow = np.ones(len(graph), dtype=int)
    choices = costs[: min(len(costs), lanes)]
    if len(choices) == 1:
        return [narrow]
    fastest = choices.argmin(0) + 1
    columns, widths = np.arange(len(graph)), narrow.copy()
    while True:
        chosen = choices[widths - 1, columns]
        path = np.array(critical_path(graph, chosen), dtype=int)
        area = float((chosen * widths)[list(graph.needed)].sum())
        slow = path[widths[path] < fastest[path]]
        if chosen[path].sum() <= area / lanes or not len(slow):
            break
        widths[slow] = fastest[slow]
    different = {tuple(each.tolist()): each for each in (narrow, fastest, widths)}
    return list(different.values())


def greedy(
    graph: OperatorGraph, costs: Floats, lanes: int, edge_cost: float = 0.0, widths: NDArray[np.int64] | None = None
) -> Schedule:
    """One greedy list schedule on ``lanes`` lanes; costs ``(W, N)``, ``widths (N,)`` lanes per operator."""
    width = [1] * len(graph) if widths is None else widths.tolist()
    cost = [float(costs[width[i] - 1, i]) for i in range(len(graph))]
    after = [operator.after for operator in graph.operators]
    priority = _priorities(graph, cost)
    board = _Lanes(lanes, edge_cost, max(width, default=1))
    waiting = [len(before) for before in after]
    start, finish = np.full(len(graph), np.nan), np.full(len(graph), np.nan)
    ready = [(0.0, *priority[i], i) for i in graph.needed if not waiting[i]]
    heapq.heapify(ready)
    while ready:
        earliest, *_, index = heapq.heappop(ready)
        begin = board.earliest(after[index], width[index])
        if begin > earliest:  # a lane it counted on has been taken
            heapq.heappush(ready, (begin, *priority[index], index))
            continue
        start[index], finish[index] = begin, begin + cost[index]
        board.place(index, after[index], width[index], begin, begin + cost[index])
        for consumer in graph.consumers[index]:
            waiting[consumer] -= 1
            if not waiting[consumer]:
                begin = board.earliest(after[consumer], width[consumer])
                heapq.heappush(ready, (begin, *priority[consumer], consumer))
    taken = tuple(board.taken.get(index, ()) for index in range(len(graph)))
    return Schedule(start, finish, taken, board.used, _answer_times(graph, finish))


class _Lanes:
    """Until when each lane is busy, and what ran where. Up to ``limit``, ``widest`` unused lanes are at hand."""

    def __init__(self, limit: int, edge_cost: float, widest: int) -> None:
        self.limit, self.edge_cost, self.widest, self.used = limit, edge_cost, widest, 0
        self.free = [0.0] * min(limit, widest)
        self.taken: dict[int, tuple[int, ...]] = {}
        self._finish: dict[int, float] = {}

    def earliest(self, after: Sequence[int], width: int) -> float:
        """When an operator that waits for ``after`` can begin on ``width`` lanes."""
        if width > 1:
            return max(self._arrival(after), sorted(self.free)[width - 1])
        first_free = min(self.free)
        if not self.edge_cost or not after:
            return max(self._arrival(after), first_free)
        # A lane on which none of ``after`` ran can begin no earlier than the one that is free first.
        near = min(max(self._arrival(after, lane), self.free[lane]) for lane in {self.taken[i][0] for i in after})
        return min(near, max(self._arrival(after), first_free))

    def place(self, index: int, after: Sequence[int], width: int, begin: float, end: float) -> None:
        """Take lanes that can begin at ``begin``; of these, the ones that were busy longest."""
        able = [(-until, lane) for lane, until in enumerate(self.free) if until <= begin]
        if self.edge_cost and width == 1:
            able = [(until, lane) for until, lane in able if self._arrival(after, lane) <= begin]
        chosen = tuple(sorted(lane for _, lane in (sorted(able)[:width] if width > 1 else [min(able)])))
        for lane in chosen:
            self.free[lane] = end
        self.taken[index], self._finish[index] = chosen, end
        self.used = max(self.used, chosen[-1] + 1)
        while len(self.free) < min(self.limit, self.used + self.widest):
            self.free.append(0.0)

    def _arrival(self, after: Sequence[int], lane: int | None = None) -> float:
        """When the results of ``after`` are there for ``lane``; None is a lane on which none of them ran."""
        arrival = 0.0
        for before in after:
            at = self._finish[before]
            if self.edge_cost and (lane is None or self.taken[before][0] != lane):
                at += self.edge_cost
            arrival = max(arrival, at)
        return arrival


def _priorities(graph: OperatorGraph, cost: Sequence[float]) -> list[tuple[int, float]]:
    """(first answer that needs it, minus the longest chain from it to that answer) per operator; less goes first."""
    first = graph.first_answer
    chain = list(cost)
    for index in reversed(range(len(graph))):
        own = [chain[consumer] for consumer in graph.consumers[index] if first[consumer] == first[index]]
        chain[index] += max(own, default=0.0)
    return [(k, -length) for k, length in zip(first, chain, strict=True)]


def _answer_times(graph: OperatorGraph, finish: Floats) -> Floats:
    """When answers 0..k are ready ``(..., E)``, from the finish of every operator ``(..., N)``."""
    nothing = np.zeros(finish.shape[:-1])
    ready = [finish[..., list(answer)].max(-1) if answer else nothing for answer in graph.answers]
    return np.maximum.accumulate(np.stack(ready, axis=-1), axis=-1)


def _checked_costs(graph: OperatorGraph, costs: ArrayLike) -> Floats:
    values = np.asarray(costs, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != len(graph):
        raise SpanError(f"costs have shape {values.shape}, expected one per operator: (..., {len(graph)})")
    if not np.isfinite(values).all() or (values < 0).any():
        raise SpanError("costs hold a value that is negative or not finite, expected seconds or MACs of 0 or more")
    return values


def _checked_lanes(lanes: int) -> int:
    if isinstance(lanes, bool) or not isinstance(lanes, int) or lanes < 1:
        raise SpanError(f"lanes is {lanes!r}, expected a whole number of at least 1, or None for unlimited lanes")
    return lanes
