"""Better, worse, equivalent or undecided: what a difference between two rows allows one to say.

``holm`` corrects the p-values of all pairs of a board (Holm, Scandinavian Journal of Statistics 6, 1979): the chance of
any false "better" or "worse" on the board is at most ``ALPHA``, whatever the truth and however the pairs depend.
"Equivalent" means that two one-sided tests (Schuirmann 1987) put the difference within ``MARGIN``, each at ``ALPHA``;
it is a statement about its pair alone. What neither test settles is undecided, and ``seeds_to_decide`` says how many
seeds would settle it, if the difference and the variances are what they seem.

Differences are in the unit of the score: shares, of which 0.01 is one point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.variance import LEVEL, Spread, half_width, spread_of_difference, tail

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "undecided"]
OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse", "worse": "better", "equivalent": "equivalent", "undecided": "undecided",
}  # fmt: skip

ALPHA = 0.05
#: Differences of up to one point are of no consequence.
MARGIN = 0.01
#: Gaps below this are rounding: equal answers summed in another order.
ROUNDING = 1e-9
#: ``seeds_to_decide`` plans for this chance of a decision, and for no more seeds than ``MOST_SEEDS``.
POWER = 0.8
MOST_SEEDS = 100


@dataclass(frozen=True)
class Difference:
    """``value`` is A minus B with its own 95 % interval; ``p`` is corrected for all pairs; ``verdict`` is about A.

    ``seeds_needed`` would decide an undecided pair; None where it is decided, or where seeds alone would not do it.
    """

    value: float
    low: float
    high: float
    p: float
    verdict: Verdict
    seeds_needed: int | None = None

    def reversed(self) -> Difference:
        """B minus A."""
        return Difference(-self.value, -self.high, -self.low, self.p, OPPOSITE[self.verdict], self.seeds_needed)


def holm(p: ArrayLike) -> Floats:
    """Adjusted p-values: a hypothesis is rejected at level alpha where its adjusted p is at most alpha.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def apart(gaps: ArrayLike, spread: Spread, same: ArrayLike, alpha: float = ALPHA) -> tuple[NDArray[np.bool_], Floats]:
    """Which of P pairs are told apart, and their corrected p-values; ``same`` as in ``differences``.

    >>> apart([0.02, 0.001], Spread(np.full(2, 1e-5), np.zeros(2), np.zeros(2)), [False, False])[0].tolist()
    [True, False]
    """
    values, one_network = np.abs(np.asarray(gaps, dtype=np.float64)), np.asarray(same, dtype=bool)
    p = np.where(one_network, 1.0, np.minimum(2 * tail(values, spread), 1.0))
    adjusted = holm(np.where(values < ROUNDING, 1.0, p))
    return (adjusted <= alpha) & ~one_network, adjusted


def differences(
    gaps: ArrayLike,
    spread: Spread,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    same: ArrayLike | None = None,
    seeds: int = 0,
) -> list[Difference]:
    """Verdicts on pairs with ``gaps (P,)`` and their spread, corrected for all P of them.

    ``same (P,)`` marks pairs of one network under two names: equal weights, equal answers, equal counted costs. Only a
    clock can tell those apart, so neither is ever called better. ``seeds`` is how many stand behind each pair; 0 asks
    for no ``seeds_to_decide``.

    >>> spread = Spread(np.full(2, 1e-6), np.zeros(2), np.zeros(2))
    >>> [each.verdict for each in differences([0.02, 0.001], spread)]
    ['better', 'equivalent']
    """
    values = np.asarray(gaps, dtype=np.float64)
    values = np.where(np.abs(values) < ROUNDING, 0.0, values)
    one_network = np.zeros(len(values), dtype=bool) if same is None else np.asarray(same, dtype=bool)
    decided, adjusted = apart(values, spread, one_network, alpha)
    # The larger of the two one-sided p-values is the one against the nearer margin.
    equivalent = (tail(margin - np.abs(values), spread) <= alpha) & (np.abs(values) < margin)
    half = half_width(spread, LEVEL)
    needed: list[int | None] = [None] * len(values)
    if seeds > 1:
        still = max(1, len(values) - int(decided.sum()))
        for k in np.flatnonzero(~decided & ~equivalent & ~one_network):
            needed[k] = seeds_to_decide(values[k], spread[k], seeds, alpha / still, margin, alpha)
    return [
        Difference(
            float(values[k]),
            float(values[k] - half[k]),
            float(values[k] + half[k]),
            float(adjusted[k]),
            ("better" if values[k] > 0 else "worse") if decided[k] else "equivalent" if equivalent[k] else "undecided",
            needed[k],
        )
        for k in range(len(values))
    ]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    by_seed: bool = False,
    margin: float = MARGIN,
    higher_is_better: bool = True,
) -> Difference:
    """Mean of ``a (Sa, N)`` minus mean of ``b (Sb, N)`` on the same N images, a pair by itself.

    ``by_seed`` pairs seeds too: for rows with the same weights, or two rules on the same answers. ``seeds_needed``
    counts the seeds of each row.

    >>> paired_difference([[1, 1, 1, 0]], [[1, 1, 1, 0]]).verdict
    'equivalent'
    """
    first, second = (np.atleast_2d(np.asarray(table, dtype=np.float64)) for table in (a, b))
    spread = spread_of_difference(first, second, by_seed=by_seed)
    single = differences(
        [first.mean() - second.mean()],
        Spread(*(np.atleast_1d(part) for part in (spread.normal, spread.student, spread.df))),
        margin=margin,
        seeds=min(len(first), len(second)),
    )[0]
    return single if higher_is_better else replace(single, verdict=OPPOSITE[single.verdict])


def seeds_to_decide(
    gap: float, spread: Spread, seeds: int, level: float, margin: float = MARGIN, alpha: float = ALPHA
) -> int | None:
    """The least number of seeds with which a pair would be decided with chance ``POWER``, from what ``seeds`` gave.

    A true difference of ``gap`` is called better or worse at ``level`` (alpha over the pairs still open), or equivalent
    at ``alpha``. Further seeds, each with its timing, shrink the Student part; the images' part stays. None: not with
    ``MOST_SEEDS``.

    >>> seeds_to_decide(0.02, Spread(np.zeros(()), np.array(1e-4), np.array(4.0)), 5, level=0.01)
    18
    """
    counts = np.arange(seeds + 1, MOST_SEEDS + 1)
    student = float(spread.student) * seeds / counts
    df = float(spread.df) * (counts - 1) / (seeds - 1)

    def reach(beyond: float) -> Floats:
        # The half-width of an interval in closed form (Howe 1974): exact for either part alone.
        normal = float(spread.normal) * scipy.special.ndtri(beyond) ** 2
        return np.asarray(np.sqrt(normal + student * scipy.special.stdtrit(np.maximum(df, 1.0), beyond) ** 2))

    chance = reach(1 - POWER)
    decided = (abs(gap) >= reach(level / 2) + chance) | (margin - abs(gap) >= reach(alpha) + chance)
    return int(counts[np.argmax(decided)]) if decided.any() else None
