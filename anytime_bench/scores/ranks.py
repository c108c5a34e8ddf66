"""Who may have a rank, and the interval in which it lies.

Seeds are fixed before anything is trained: 0 to 4 (``PROTOCOL_SEEDS``). A row that lacks one is shown and has no rank,
so nobody gains a rank by leaving a bad seed out; further seeds do not count, so nobody gains one by adding good ones.

A row's rank lies between 1 + the rows that are better than it and the number of ranked rows - the rows that are worse.
As better and worse hold together with 95 % (``verdicts.holm``), so do all intervals of a board (Klein, Wright and
Wieczorek, Journal of the Royal Statistical Society A 183, 2020; Mohamad, Goeman and van Zwet, Biometrical Journal 64,
2022): rows that nothing tells apart share an interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.measured import MIN_PROCESSES
from anytime_bench.scores.variance import Spread
from anytime_bench.scores.verdicts import ALPHA, MARGIN, Difference, differences

PROTOCOL_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True, order=True)
class Rank:
    """The interval of a rank, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


def without_rank(seeds: Iterable[int], processes: int | None = None) -> str | None:
    """Why a row with these seeds, timed in ``processes``, is not ranked; None if it is. Counted axes have no processes.

    >>> without_rank([0, 1, 2, 3, 4]) is None
    True
    >>> without_rank([0, 1, 4])
    'seeds 2 and 3 are missing'
    >>> without_rank(range(5), processes=2)
    'timed in 2 processes, 3 are needed'
    """
    missing = [str(seed) for seed in PROTOCOL_SEEDS if seed not in set(seeds)]
    if missing:
        names = missing[0] if len(missing) == 1 else f"{', '.join(missing[:-1])} and {missing[-1]}"
        return f"seed {names} is missing" if len(missing) == 1 else f"seeds {names} are missing"
    if processes is not None and processes < MIN_PROCESSES:
        return f"timed in {processes} process{'' if processes == 1 else 'es'}, {MIN_PROCESSES} are needed"
    return None


def ranks(better: ArrayLike) -> list[Rank]:
    """Rank of each row from ``better (K, K)``: whether row i is better than row j.

    >>> [str(rank) for rank in ranks([[0, 0, 1], [0, 0, 1], [0, 0, 0]])]
    ['1-2', '1-2', '3']
    """
    table = np.asarray(better, dtype=bool)
    return [Rank(1 + int(above), len(table) - int(below))
            for above, below in zip(table.sum(axis=0), table.sum(axis=1), strict=True)]  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """What one score says of K rows: a rank each, and the difference of every pair, ``differences[i][j]`` being row i
    minus row j; None on the diagonal."""

    ranks: list[Rank]
    differences: list[list[Difference | None]]

    @property
    def better(self) -> NDArray[np.bool_]:
        """``(K, K)``: whether row i is better than row j."""
        return np.array(
            [[each is not None and each.verdict == "better" for each in row] for row in self.differences], dtype=bool
        ).reshape(len(self.differences), len(self.differences))


def standing(
    gaps: ArrayLike,
    spread: Spread,
    same: ArrayLike | None = None,
    planned: bool = True,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> Standing:
    """From ``gaps (K, K)``, row minus column, and their spread (``joint.JointMoments.gaps``); higher is better.

    ``same (K, K)`` marks rows that are one network (``verdicts.differences``); ``planned`` asks how many seeds would
    decide what is undecided.

    >>> gaps = np.array([[0.0, 0.1], [-0.1, 0.0]])
    >>> [str(rank) for rank in standing(gaps, Spread(np.full((2, 2), 1e-6), np.zeros((2, 2)), np.zeros((2, 2)))).ranks]
    ['1', '2']
    """
    values = np.asarray(gaps, dtype=np.float64)
    i, j = np.triu_indices(len(values), 1)
    one_network = None if same is None else np.asarray(same, dtype=bool)[i, j]
    pairs = differences(values[i, j], spread[i, j], margin=margin, alpha=alpha, same=one_network,
                        seeds=len(PROTOCOL_SEEDS) if planned else 0)  # fmt: skip
    table: list[list[Difference | None]] = [[None] * len(values) for _ in values]
    for first, second, pair in zip(i, j, pairs, strict=True):
        table[first][second], table[second][first] = pair, pair.reversed()
    result = Standing([], table)
    return Standing(ranks(result.better), table)
