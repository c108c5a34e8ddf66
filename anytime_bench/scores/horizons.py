"""Areas over many horizons, and the range of horizons in which an order holds.

AUC@h asks for a mean over deadlines up to h times the reference's full answer, and h is a choice. Where a row's answer
arrives just past h it gets nothing for it, and just before it almost all; so every order is shown with the range of
horizons in which it holds, and prose states only those that hold from 0.5 to 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Horizons of the curve, in multiples of the reference's full answer.
GRID: tuple[float, ...] = tuple(0.5 + 0.25 * step for step in range(15))


def holds_in(holds: ArrayLike, grid: ArrayLike = GRID, at: float = 1.0) -> tuple[float, float] | None:
    """The widest unbroken range around ``at`` in which ``holds (H,)`` is true; None if it does not hold there.

    >>> holds_in([True, True, True, False], grid=[0.5, 1.0, 2.0, 4.0])
    (0.5, 2.0)
    >>> holds_in([True, False, True, True], grid=[0.5, 1.0, 2.0, 4.0]) is None
    True
    """
    true, points = np.asarray(holds, dtype=bool), np.asarray(grid, dtype=np.float64)
    start = int(np.argmin(np.abs(points - at)))
    if not true[start]:
        return None
    low = high = start
    while low > 0 and true[low - 1]:
        low -= 1
    while high + 1 < len(true) and true[high + 1]:
        high += 1
    return float(points[low]), float(points[high])
