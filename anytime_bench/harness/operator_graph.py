"""Operators and which of them wait for which: what parallel time is computed from. Plain data, without torch.

As arrays of a record's ``.npz``, for N operators:

=========== ========== =============================================================================
macs        (N,)       MACs of each operator
edges       (M, 2)     ``(operator, an operator it waits for)``
answers     (A, 2)     ``(exit, an operator behind its answer)``
kinds       (K,)       the names of operators that occur
kind        (N,)       which of them each operator is
num_exits   ()         E
=========== ========== =============================================================================

Errors: ``SpanError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class SpanError(ValueError):
    """A model or a request that has no parallel time; the message says what was given and what was expected."""


@dataclass(frozen=True)
class Operator:
    """One operator: its name without ``aten::``, its MACs and the operators it waits for, ascending.

    ``barrier``: its result steers Python. ``module`` is the path of the module whose parameter or buffer it reads, ""
    where it reads none. ``shapes`` are those of the tensors it returned.
    """

    name: str
    macs: int = 0
    after: tuple[int, ...] = ()
    barrier: bool = False
    module: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class OperatorGraph:
    """N operators in the order in which they were issued, and the operators behind each of E answers.

    The order is topological: an operator waits for earlier ones only. ``answers[k]`` is empty where an answer is a
    constant of the model.
    """

    operators: tuple[Operator, ...]
    answers: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for index, operator in enumerate(self.operators):
            if any(not 0 <= before < index for before in operator.after):
                raise SpanError(f"operator {index} waits for {operator.after}, expected operators issued before it")
        if not self.answers or any(not 0 <= i < len(self.operators) for answer in self.answers for i in answer):
            raise SpanError(f"answers are {self.answers}, expected one or more, of operators below {len(self)}")

    def __len__(self) -> int:
        return len(self.operators)

    @property
    def num_exits(self) -> int:
        return len(self.answers)

    @property
    def macs(self) -> tuple[int, ...]:
        """MACs of each operator ``(N,)``."""
        return tuple(operator.macs for operator in self.operators)

    @cached_property
    def first_answer(self) -> tuple[int, ...]:
        """The first answer that needs each operator ``(N,)``; E where none does."""
        first = [self.num_exits] * len(self)
        for k in reversed(range(self.num_exits)):
            for index in self.answers[k]:
                first[index] = k
        for index in reversed(range(len(self))):
            for before in self.operators[index].after:
                first[before] = min(first[before], first[index])
        return tuple(first)

    @cached_property
    def needed(self) -> tuple[int, ...]:
        """The operators that some answer needs, ascending."""
        return tuple(index for index, k in enumerate(self.first_answer) if k < self.num_exits)

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """Per operator, the needed operators that wait for it."""
        lists: list[list[int]] = [[] for _ in self.operators]
        for index in self.needed:
            for before in self.operators[index].after:
                lists[before].append(index)
        return tuple(map(tuple, lists))


def graph_to_arrays(graph: OperatorGraph) -> Arrays:
    """The arrays named above; modules, shapes and barriers' names are not kept."""
    kinds, kind = np.unique([operator.name for operator in graph.operators], return_inverse=True)
    edges = [(index, before) for index, operator in enumerate(graph.operators) for before in operator.after]
    answers = [(k, index) for k, answer in enumerate(graph.answers) for index in answer]
    return {
        "macs": np.array(graph.macs, dtype=np.int64),
        "edges": np.array(edges, dtype=np.int32).reshape(-1, 2),
        "answers": np.array(answers, dtype=np.int32).reshape(-1, 2),
        "kinds": np.array(kinds, dtype=np.str_),
        "kind": np.array(kind, dtype=np.int16),
        "num_exits": np.array(graph.num_exits, dtype=np.int16),
    }


def graph_from_arrays(arrays: Mapping[str, NDArray[Any]]) -> OperatorGraph:
    """The graph that ``graph_to_arrays`` wrote. Raises ``SpanError`` naming an array that is missing or no graph."""
    for name in ("macs", "edges", "answers", "kinds", "kind", "num_exits"):
        if name not in arrays:
            raise SpanError(f"array '{name}' of the operator graph is missing")
    for name in ("macs", "edges", "answers", "kind", "num_exits"):
        if arrays[name].dtype.kind not in "iu":
            raise SpanError(f"array '{name}' of the operator graph holds {arrays[name].dtype}, expected whole numbers")
    if arrays["num_exits"].shape != ():
        raise SpanError(f"array 'num_exits' has shape {arrays['num_exits'].shape}, expected a single number")
    macs, kind, kinds = arrays["macs"].tolist(), arrays["kind"].tolist(), arrays["kinds"].tolist()
    if len(macs) != len(kind) or not all(0 <= which < len(kinds) for which in kind):
        raise SpanError(f"arrays 'macs', 'kind' and 'kinds' disagree: {len(macs)} operators, kinds of {len(kind)}")
    after: list[list[int]] = [[] for _ in macs]
    answers: list[list[int]] = [[] for _ in range(int(arrays["num_exits"]))]
    for name, lists in (("edges", after), ("answers", answers)):
        for index, before in arrays[name].tolist():
            if not 0 <= index < len(lists):
                raise SpanError(f"array '{name}' names {index}, expected a number below {len(lists)}")
            lists[index].append(before)
    operators = (
        Operator(kinds[which], count, tuple(before)) for which, count, before in zip(kind, macs, after, strict=True)
    )
    return OperatorGraph(tuple(operators), tuple(map(tuple, answers)))
