"""How far a mean over seeds and images would move: its variance by source, and tails and intervals that follow from it.

A score is a mean over a table ``(S, N)`` of seeds by test images, ``value = mean + seed + image + rest``: both are
samples, of the trainings and of the images one might have drawn (two crossed random effects; Searle, Casella and
McCulloch, Variance Components, 1992, chapter 4). With the mean squares of that table

    variance of the mean = [max(MS_seed, MS_rest) + max(MS_image - MS_rest, 0)] / (S N)

The second part comes from hundreds of images and is normal. The first comes from a few seeds and is Student's t with
S - 1 degrees of freedom; on a measured axis a few timing processes join it (``Spread.plus``). The sum of both, a normal
and an independent Student variable, is the Behrens-Fisher law: given the chi variable x of the t, the sum is normal
with variance ``v_normal + v_student df / x^2``, so one integral over x gives every tail probability. Nothing is
resampled, so the far tails that Holm's correction asks for are as exact as the near ones, and equal inputs give equal
numbers on every machine.

Values are in the unit of the score, variances in its square; arrays of any shape, one entry per score.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from anytime_bench.trace.answers import TraceError

Floats = NDArray[np.float64]

LEVEL = 0.95
#: Nodes and half-width of the integral over the chi variable, whose standard deviation is below 0.71 for every df.
NODES, REACH = 96, 7.5
LEGENDRE = np.polynomial.legendre.leggauss(NODES)
#: Newton steps for a quantile from a start that is right at both ends: 12 digits for two and more degrees of freedom.
STEPS = 4


@dataclass(frozen=True)
class Spread:
    """Variance of estimates by source: ``normal`` (images), ``student`` (seeds, timing) with ``df`` degrees of freedom.

    Where nothing is known of the second source (one seed), ``student`` and ``df`` are 0: the statement is then about
    the weights at hand and not about the method.
    """

    normal: Floats
    student: Floats
    df: Floats

    @property
    def variance(self) -> Floats:
        return self.normal + self.student

    def __getitem__(self, index: Any) -> Spread:
        return Spread(self.normal[index], self.student[index], self.df[index])

    def plus(self, variance: ArrayLike, df: ArrayLike) -> Spread:
        """With a further independent source of ``variance`` known from ``df`` + 1 observations (Satterthwaite 1946).

        >>> both = Spread(np.zeros(1), np.ones(1), np.array([4.0])).plus([1.0], [4.0])
        >>> both.student.tolist(), both.df.tolist()
        ([2.0], [8.0])
        """
        added, freedom = np.broadcast_arrays(np.asarray(variance, float), np.asarray(df, float))
        total = self.student + added
        with np.errstate(divide="ignore", invalid="ignore"):
            doubt = np.where(self.student > 0, self.student**2 / self.df, 0.0)
            doubt = doubt + np.where(added > 0, added**2 / freedom, 0.0)
            joint = np.where(doubt > 0, total**2 / doubt, np.maximum(self.df, freedom))
        return Spread(self.normal, total, joint)


def spread_of(table: ArrayLike) -> Spread:
    """Of the mean of ``table (S, N)``, seeds by images; scalar arrays.

    >>> spread = spread_of([[0.0, 1.0] * 50, [0.0, 1.0] * 50])
    >>> round(float(spread.normal), 6), float(spread.student), float(spread.df)
    (0.002525, 0.0, 1.0)
    """
    values = checked_table(table, "table")
    images = values.shape[1]
    per_image = values.mean(axis=0)
    centred = values - values.mean(axis=1, keepdims=True)
    between = float(((per_image - per_image.mean()) ** 2).sum())
    return from_sums(values.mean(axis=1), between, float((centred**2).sum()), images)


def spread_of_difference(a: ArrayLike, b: ArrayLike, *, by_seed: bool = False) -> Spread:
    """Of mean(a) - mean(b) for ``a (Sa, N)`` and ``b (Sb, N)`` on the same images.

    ``by_seed`` pairs the seeds too, which must then be as many: for rows that share their weights.

    >>> same = [[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]]
    >>> float(spread_of_difference(same, same, by_seed=True).variance)
    0.0
    """
    first, second = checked_table(a, "a"), checked_table(b, "b")
    if first.shape[1] != second.shape[1]:
        raise TraceError(f"a, b: unequal sample counts, {first.shape[1]} and {second.shape[1]} images")
    if by_seed:
        if len(first) != len(second):
            raise TraceError(f"a, b: {len(first)} and {len(second)} seeds cannot be paired")
        return spread_of(first - second)
    own = [spread_of(first), spread_of(second)]
    of_images = float((first.mean(axis=0) - second.mean(axis=0)).var(ddof=1 if first.shape[1] > 1 else 0))
    # What the two tables' own images and seeds do to each seed alone is in the student parts already.
    rest = sum(_rest(table) for table in (first, second))
    normal = np.asarray(max(of_images - rest, 0.0) / first.shape[1])
    return Spread(normal, own[0].student, own[0].df).plus(own[1].student, own[1].df)


def _rest(table: Floats) -> float:
    """Variance over images of the mean over seeds of what is neither seed nor image; 0 with one seed."""
    seeds, images = table.shape
    if seeds == 1 or images == 1:
        return 0.0
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum()) / (seeds - 1) / (images - 1) / seeds


def from_sums(by_seed: ArrayLike, between: ArrayLike, within: ArrayLike, images: int) -> Spread:
    """The same from three sums: means ``by_seed (S, ...)``, and two sums of squares ``(...)`` over ``images`` images.

    ``between`` is that of the per-image means over seeds about their mean; ``within`` that of every seed's values about
    that seed's mean, over all seeds and images.
    """
    means = np.asarray(by_seed, dtype=np.float64)
    seeds, shape = len(means), means.shape[1:]
    image_squares, all_squares = np.asarray(between, float), np.asarray(within, float)
    if seeds == 1 or images == 1:
        normal = np.maximum(image_squares, 0) / max(1, images - 1) / images
        if seeds == 1:
            return Spread(np.broadcast_to(normal, shape), np.zeros(shape), np.zeros(shape))
        return Spread(np.zeros(shape), means.var(axis=0, ddof=1) / seeds, np.full(shape, seeds - 1.0))
    of_images = np.maximum(seeds * image_squares, 0) / (images - 1)
    of_rest = np.maximum(all_squares - seeds * image_squares, 0) / ((seeds - 1) * (images - 1))
    of_seeds = images * means.var(axis=0, ddof=1)
    count = seeds * images
    # Seeds that happen to agree better than the images they were tested on allow are no more certain than those.
    return Spread(
        np.maximum(of_images - of_rest, 0) / count,
        np.maximum(of_seeds, of_rest) / count,
        np.full(shape, seeds - 1.0),
    )


def tail(gap: ArrayLike, spread: Spread) -> Floats:
    """One-sided p-value: the chance that an estimate whose truth is 0 exceeds ``gap``, an array like the spread's.

    >>> student = Spread(np.zeros(1), np.ones(1), np.array([4.0]))
    >>> tail([2.776], student).round(4).tolist()  # 2.776 is the 97.5 % point of Student's t with 4
    [0.025]
    """
    return _tail_and_density(np.asarray(gap, dtype=np.float64), spread)[0]


def half_width(spread: Spread, level: ArrayLike = LEVEL) -> Floats:
    """Half the width of the central interval of coverage ``level``, an array like the spread's.

    >>> half_width(Spread(np.ones(1), np.zeros(1), np.zeros(1))).round(2).tolist()
    [1.96]
    """
    if np.ndim(level) == 0 and not np.any(spread.student):
        # One seed says nothing about seeds: the estimate is normal, and there is no tail to search.
        return np.sqrt(spread.normal) * NormalDist().inv_cdf((1 + float(np.asarray(level))) / 2)
    beyond = np.broadcast_to((1 - np.asarray(level, dtype=np.float64)) / 2, np.shape(spread.normal))
    scale = np.sqrt(spread.variance)
    units = Spread(*_shares(spread), spread.df)
    t = scipy.special.stdtrit(np.maximum(spread.df, 1.0), beyond)
    half = np.sqrt(units.normal * scipy.special.ndtri(beyond) ** 2 + units.student * t**2)
    # Newton on the logarithm of the tail, which is nearly a line there.
    for _ in range(STEPS):
        above, density = _tail_and_density(half, units)
        half = half + np.log(above / beyond) * above / density
    return np.where(scale > 0, half * scale, 0.0)


def _shares(spread: Spread) -> tuple[Floats, Floats]:
    total = spread.variance
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, spread.normal / safe, 1.0), np.where(total > 0, spread.student / safe, 0.0)


def _tail_and_density(gap: Floats, spread: Spread) -> tuple[Floats, Floats]:
    df = np.maximum(spread.df, 1.0)[..., None]
    nodes, weights = LEGENDRE
    low = np.maximum(np.sqrt(df) - REACH, 0.0)
    x = low + (np.sqrt(df) + REACH - low) * (nodes + 1) / 2
    log_density = (df - 1) * np.log(x) - x**2 / 2
    mass = weights * np.exp(log_density - log_density.max(axis=-1, keepdims=True))
    mass = mass / mass.sum(axis=-1, keepdims=True)
    # One over the conditional standard deviation; the student part alone has none at x = 0.
    certain = spread.variance == 0
    inverse = x / np.sqrt(np.where(certain, 1.0, spread.normal)[..., None] * x**2 + spread.student[..., None] * df)
    z = gap[..., None] * inverse
    beyond = (mass * scipy.special.ndtr(-z)).sum(axis=-1)
    density = (mass * inverse * np.exp(-(z**2) / 2)).sum(axis=-1) / np.sqrt(2 * np.pi)
    return np.where(certain, np.where(gap > 0, 0.0, np.where(gap < 0, 1.0, 0.5)), beyond), density


def checked_table(values: ArrayLike, name: str) -> Floats:
    """``values`` as ``(seeds, images)``, or ``TraceError`` naming ``name``."""
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise TraceError(f"{name}: expected (seeds, images) with at least one of each, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise TraceError(f"{name}: holds NaN or infinity")
    return table
