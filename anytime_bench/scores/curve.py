"""The anytime curve and what is read off it: areas, time to a share of the reference, the envelope of a board.

A row whose exits cost ``c_0 < c_1 < ...`` and have accuracies ``a_0, a_1, ...`` has the step function
``A(b) = a_k for c_k <= b < c_{k+1}``, and chance before ``c_0``: between two exits the latest answer stands. There
is no monotone envelope and no trapezoid: an exit that gets worse costs, and one that arrives late earns nothing early.

Costs are cumulative, in the unit of their axis (ticks, MACs, seconds), shape ``(E,)``, and must increase strictly;
measured times, which noise can reorder, go through ``settle`` first. Accuracies and chance are in [0, 1]. Errors are
``TraceError`` and name the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]

#: ALC counts budgets on u = log(1 + b/t0) / log(1 + H/t0), with t0 this share of the horizon.
ALC_ORIGIN = 1 / 20


def check_cost(cost: ArrayLike, name: str = "cost") -> Floats:
    """``cost (E,)`` as float64, or ``TraceError`` naming ``name`` if it is not finite, at least 0 and increasing."""
    values = np.asarray(cost, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise TraceError(f"{name}: expected one number per exit, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise TraceError(f"{name}: exit {int(np.argmin(np.isfinite(values)))} holds NaN or infinity")
    if values[0] < 0:
        raise TraceError(f"{name}: expected costs of at least 0, got {values[0]:g} at exit 0")
    falls = np.flatnonzero(np.diff(values) <= 0)
    if len(falls):
        k = int(falls[0])
        raise TraceError(f"{name}: costs must increase, got {values[k]:g} and then {values[k + 1]:g} at exit {k + 1}")
    return values


def settle(times: ArrayLike) -> Floats:
    """Measured times ``(E,)`` made increasing: the running maximum, ties one unit in the last place apart.

    Exit k+1 is answered after exit k, so a later exit that measured faster did so by noise; the running maximum
    charges it the slower time. Only measured axes may be settled: ticks and MACs that fall are a defect.

    >>> settle([1.0, 3.0, 2.5, 4.0]).round(9).tolist()
    [1.0, 3.0, 3.0, 4.0]
    """
    values = np.array(times, dtype=np.float64)
    for k in range(1, len(values)):
        values[k] = max(values[k], np.nextafter(values[k - 1], np.inf))
    return values


def accuracy_at(cost: ArrayLike, accuracy: ArrayLike, budget: ArrayLike, chance: float) -> Floats:
    """A(budget) for budgets of any shape: the accuracy of the last exit whose cost is within the budget.

    >>> accuracy_at([1, 2], [0.5, 0.75], [0.9, 1.0, 9.0], chance=0.25)
    array([0.25, 0.5 , 0.75])
    """
    costs, values = _pair(cost, accuracy)
    owned = np.searchsorted(costs, np.asarray(budget, dtype=np.float64), side="right")
    return np.concatenate([[chance], values])[owned]


def exit_shares(cost: ArrayLike, horizon: ArrayLike, *, log: bool = False) -> Floats:
    """Share of [0, horizon] in which each answer is the last one, ``(E+1,)``, the guess before exit 0 first; sums to 1.

    With ``log`` the shares are on ALC's scale. Every area below is this vector times the accuracies, hence linear in
    the correctness of each image. Of horizons ``(H,)``, ``(H, E+1)``.

    >>> exit_shares([1, 2], horizon=4).tolist()
    [0.25, 0.25, 0.5]
    """
    ends = np.asarray(horizon, dtype=np.float64)
    if not (np.isfinite(ends).all() and (ends > 0).all()):
        raise TraceError(f"horizon: expected a positive number, got {ends}")
    edges = np.concatenate([[0.0], check_cost(cost), [np.inf]])
    edges = np.minimum(edges, ends[..., None]) / ends[..., None]
    if log:
        edges = np.log1p(edges / ALC_ORIGIN) / np.log1p(1 / ALC_ORIGIN)
    return np.diff(edges)


def area(shares: ArrayLike, values: ArrayLike, chance: float) -> Floats:
    """Mean of the curve over deadlines: ``shares (E+1,)`` of ``exit_shares`` times chance and ``values (E, ...)``.

    The one place where an area is made. ``values`` are accuracies ``(E,)``, correctness of images ``(E, N)`` or
    resampled accuracies ``(E, R)``; the result has the shape of the rest.

    >>> float(area([0.25, 0.25, 0.5], [0.5, 0.75], chance=0.25))
    0.5625
    """
    weights, table = np.asarray(shares, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if table.ndim == 0 or len(table) != len(weights) - 1:
        raise TraceError(f"accuracy: expected one row for each of {len(weights) - 1} exits, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise TraceError(f"accuracy: exit {np.argwhere(~np.isfinite(table))[0][0]} holds NaN or infinity")
    # Exit by exit, not by a matrix product: the order of additions, and so every bit, is the same on every machine.
    total = np.full(table.shape[1:], weights[0] * chance)
    for share, row in zip(weights[1:], table, strict=True):
        total = total + share * row
    return total


def auc(cost: ArrayLike, accuracy: ArrayLike, horizon: float, chance: float, *, log: bool = False) -> Floats:
    """(1/H) times the integral of A from 0 to H: mean accuracy when the deadline is uniform on [0, H].

    ``accuracy (E, ...)`` may be correctness ``(E, N)``: the area is linear, so every image has its own. With ``log``
    it is the ALC, the same mean on u = log(1 + b/t0) / log(1 + H/t0), t0 = H/20, which weighs early deadlines more.

    >>> float(auc([1, 2], [0.5, 0.75], horizon=4, chance=0.25))
    0.5625
    >>> auc([1, 2], [[1, 0], [0, 1]], horizon=4, chance=0.25).tolist()
    [0.3125, 0.5625]
    >>> round(float(auc([1], [1.0], horizon=20, chance=0.0, log=True)), 6)  # 1 - log 2 / log 21
    0.77233
    """
    return area(exit_shares(cost, horizon, log=log), accuracy, chance)


def time_to(cost: ArrayLike, accuracy: ArrayLike, share: float, reference_accuracy: float) -> float | None:
    """Cost of the first exit with at least ``share`` of the reference's final accuracy; None if no exit has it.

    >>> time_to([1, 2, 3], [0.4, 0.8, 0.7], share=0.9, reference_accuracy=0.85)
    2.0
    >>> time_to([1, 2, 3], [0.4, 0.8, 0.7], share=0.99, reference_accuracy=0.85) is None
    True
    """
    costs, values = _pair(cost, accuracy)
    reached = np.flatnonzero(values >= share * reference_accuracy)
    return float(costs[reached[0]]) if len(reached) else None


@dataclass(frozen=True)
class Envelope:
    """The best answer of several rows at every budget up to ``horizon``, as steps; columns number the rows' exits.

    From ``starts[n]`` to the next start the answer of column ``owners[n]`` is the best one, -1 being the guess;
    ``events[n]`` is the column whose cost that start is, -1 for the start at 0.
    """

    starts: Floats
    owners: NDArray[np.intp]
    events: NDArray[np.intp]
    columns: int
    horizon: float

    @property
    def shares(self) -> Floats:
        """Share of [0, horizon] in which each answer is the best, ``(1 + columns,)``, the guess first; sums to 1."""
        lengths = np.diff(np.append(self.starts, self.horizon)) / self.horizon
        return np.asarray(np.bincount(self.owners + 1, lengths, minlength=self.columns + 1), dtype=np.float64)

    def slopes(self, accuracy: ArrayLike, chance: float) -> Floats:
        """How the area moves with the cost of each answer, ``(columns,)``, from accuracies ``(columns,)``."""
        values = np.concatenate([[chance], np.asarray(accuracy, dtype=np.float64)])[self.owners + 1]
        rises = np.diff(np.concatenate([[chance], values])) / self.horizon
        inner = self.events >= 0
        return -np.asarray(np.bincount(self.events[inner], rises[inner], minlength=self.columns), dtype=np.float64)


def envelope(board: Sequence[tuple[ArrayLike, ArrayLike]], horizon: float, chance: float) -> Envelope:
    """Of rows given as (cost, accuracy); of equal answers the first row's counts.

    A row's area less that of the envelope is its *regret* with the sign turned: the accuracy lost, on average over
    deadlines, against the best row at each. Single answers with their validation accuracies give the choice that a
    known deadline allows.

    >>> best = envelope([([2], [0.9]), ([1], [0.5])], horizon=4, chance=0.1)
    >>> best.shares.tolist()
    [0.25, 0.5, 0.25]
    >>> round(float(best.shares @ [0.1, 0.9, 0.5] - auc([2], [0.9], 4, 0.1)), 6)  # 0.4 behind during one quarter
    0.1
    >>> best.slopes([0.9, 0.5], 0.1).tolist()  # an exit that comes later by 1 leaves the earlier answer for 1 of 4
    [-0.1, -0.1]
    """
    if not (np.isfinite(horizon) and horizon > 0):
        raise TraceError(f"horizon: expected a positive number, got {horizon}")
    rows = [_pair(*row) for row in board]
    firsts = np.cumsum([0, *(len(costs) for costs, _ in rows)])
    costs = np.concatenate([costs for costs, _ in rows]) if rows else np.zeros(0)
    starts, columns = np.unique(costs[costs < horizon], return_index=True)
    events = np.flatnonzero(costs < horizon)[columns] if len(starts) else np.zeros(0, dtype=np.intp)
    starts, events = np.concatenate([[0.0], starts]), np.concatenate([[-1], events])
    best = np.full(len(starts), chance)
    owners = np.full(len(starts), -1, dtype=np.intp)
    for first, (own, accuracies) in zip(firsts, rows, strict=False):
        latest = np.searchsorted(own, starts, side="right")
        values = np.concatenate([[chance], accuracies])[latest]
        better = values > best
        best = np.where(better, values, best)
        owners = np.where(better, first + latest - 1, owners)
    return Envelope(starts, owners, events.astype(np.intp), int(firsts[-1]), horizon)


def _pair(cost: ArrayLike, accuracy: ArrayLike) -> tuple[Floats, Floats]:
    costs = check_cost(cost)
    values = np.asarray(accuracy, dtype=np.float64)
    if values.shape != costs.shape:
        raise TraceError(f"accuracy: expected one per cost, {costs.shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise TraceError(f"accuracy: exit {int(np.argmin(np.isfinite(values)))} holds NaN or infinity")
    return costs, values
