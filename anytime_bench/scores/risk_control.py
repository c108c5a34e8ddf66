"""Risk-controlled stopping: the lowest confidence threshold whose risk is below epsilon with probability 1 - delta.

After Jazbec et al., *Fast yet Safe: Early-Exiting with Risk Control*, NeurIPS 2024 (arXiv 2405.20915). Losses of
leaving at a threshold, per image, both 0 or 1:

- consistency: the early answer differs from the last exit's answer;
- performance gap: the early answer is wrong and the last one is right. The signed gap (early error minus last error)
  is clipped at 0 as in the paper's experiments, so this risk is never below the loss of accuracy.

The upper confidence bound is the betting bound of Waudby-Smith and Ramdas (JRSS B 2024) with the predictable bets of
Bates et al. (JACM 2021, proposition 5). Thresholds are walked from the safest down and the walk ends at the first one
whose bound reaches epsilon; if none passes, every image runs to the last exit, whose risk is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anytime_bench.scores.curve import check_cost
from anytime_bench.scores.stopping import exits_by_threshold
from anytime_bench.trace.answers import Trace, TraceError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

EPSILONS = (0.01, 0.02, 0.05)
DELTA = 0.1
SPLITS = 100
#: Calibration images per random split: the published experiments use up to 1,000.
CALIBRATION = 1000
#: Safest first. Infinity, above which nobody leaves early, is not in the grid: it is where the walk starts from.
THRESHOLDS: Floats = np.linspace(1, 0, 51)


@dataclass(frozen=True)
class Bets:
    """The bets of the bound on losses ``(..., n)``, made from each image's predecessors alone."""

    losses: Floats
    stakes: Floats

    @classmethod
    def on(cls, losses: ArrayLike, delta: float) -> Bets:
        x = np.asarray(losses, dtype=np.float64)
        n = x.shape[-1]
        count = np.arange(1, n + 1)
        mean = (0.5 + np.cumsum(x, axis=-1)) / (1 + count)
        variance = (0.25 + np.cumsum((x - mean) ** 2, axis=-1)) / (1 + count)
        before = np.concatenate([np.full((*x.shape[:-1], 1), 0.25), variance[..., :-1]], axis=-1)
        return cls(x, np.minimum(1.0, np.sqrt(2 * np.log(1 / delta) / (n * before))))

    def below(self, epsilon: float, delta: float) -> Flags:
        """Whether the upper confidence bound of the mean at level 1 - delta is below ``epsilon``, ``(...)``.

        The bound is where the best wealth of a gambler who bets against "the mean is epsilon" reaches 1/delta, so
        comparing the wealth with 1/delta decides without finding the bound.
        """
        # Beyond 1/delta it does not matter how much is won.
        with np.errstate(over="ignore"):
            wealth = np.cumprod(1 - self.stakes * (self.losses - epsilon), axis=-1)
        return wealth.max(axis=-1) > 1 / delta


def upper_bound(losses: ArrayLike, delta: float = DELTA) -> float:
    """Upper confidence bound of the mean of ``losses (n,)`` in [0, 1], to 1e-9.

    >>> upper_bound([0.0] * 100) < 0.05 < upper_bound([0.0, 1.0] * 50)
    True
    """
    bets = Bets.on(losses, delta)
    low, high = 0.0, 1.0
    if not bets.below(1.0, delta):
        return 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if bets.below(middle, delta) else (middle, high)
    return high


def losses_by_threshold(trace: Trace, risk: str, thresholds: ArrayLike = THRESHOLDS) -> tuple[Flags, NDArray[np.intp]]:
    """Loss ``(T, N)`` and exit ``(T, N)`` of each image at each threshold; ``risk`` is ``gap`` or ``consistency``."""
    if risk not in ("gap", "consistency"):
        raise ValueError(f"risk: expected 'gap' or 'consistency', got {risk!r}")
    exits = np.stack([exits_by_threshold(trace.confidence, float(q)) for q in np.asarray(thresholds)])
    changed = trace.predictions != trace.predictions[-1]
    bad = changed if risk == "consistency" else changed & trace.correct[-1]
    return np.take_along_axis(bad, exits, axis=0), exits


def safe_threshold(losses: Flags, epsilon: float, delta: float = DELTA) -> int:
    """Index of the last threshold the walk accepts on calibration losses ``(T, n)``, safest first; -1 if none."""
    return int(_walk(losses[:, None], (epsilon,), delta)[0, 0])


def risk_control(
    test: Trace, val: Trace, cost: ArrayLike, *, delta: float = DELTA, splits: int = SPLITS, seed: int = 0
) -> list[dict[str, float | str | None]]:
    """One row per risk and epsilon: what the threshold fitted on validation does on test, and how often the rule fails.

    ``violation_rate`` is the share of ``splits`` random splits of validation and test images pooled, with up to
    1,000 images (at most half) to calibrate on, in which the risk on the rest exceeds epsilon. It should not exceed
    delta by more than chance: the splits are finitely many, and so are the images the risk is measured on.
    ``threshold`` is None where no threshold is safe and every image runs to the end.
    """
    costs = check_cost(cost)
    if val.num_samples == 0:
        raise TraceError("val_labels: the validation split is empty, so no threshold can be fitted")
    if val.num_exits != test.num_exits or len(costs) != test.num_exits:
        raise TraceError(f"cost, val: expected {test.num_exits} exits, got {len(costs)} and {val.num_exits}")
    rows: list[dict[str, float | str | None]] = []
    for risk in ("gap", "consistency"):
        val_losses, _ = losses_by_threshold(val, risk)
        test_losses, test_exits = losses_by_threshold(test, risk)
        pooled = np.concatenate([val_losses, test_losses], axis=1)
        rates = violation_rates(pooled, EPSILONS, delta, splits, seed)
        safe = _walk(val_losses[:, None], EPSILONS, delta)[:, 0]
        for epsilon, rate, chosen in zip(EPSILONS, rates, safe, strict=True):
            leave = test_exits[chosen] if chosen >= 0 else np.full(test.num_samples, test.num_exits - 1)
            rows.append(
                {
                    "risk": risk,
                    "epsilon": epsilon,
                    "delta": delta,
                    "threshold": float(THRESHOLDS[chosen]) if chosen >= 0 else None,
                    "test_risk": float(test_losses[chosen].mean()) if chosen >= 0 else 0.0,
                    "accuracy": float(test.correct[leave, np.arange(test.num_samples)].mean()),
                    "cost": float(costs[leave].mean()),
                    "violation_rate": rate,
                }
            )
    return rows


def violation_rates(
    losses: Flags, epsilons: tuple[float, ...], delta: float = DELTA, splits: int = SPLITS, seed: int = 0
) -> list[float]:
    """Share of random splits of ``losses (T, N)`` in which the rest's risk exceeds epsilon, one per epsilon."""
    images = losses.shape[1]
    size = min(CALIBRATION, images // 2)
    if size == 0:
        return [0.0] * len(epsilons)
    rng = np.random.default_rng([seed, 0x5AFE])
    chosen = np.stack([rng.permutation(images)[:size] for _ in range(splits)])  # (splits, n)
    total = losses.sum(axis=1)
    calibration = losses[:, chosen]  # (T, splits, n)
    rest = (total[:, None] - calibration.sum(axis=2)) / (images - size)
    index = _walk(calibration, epsilons, delta)  # (epsilons, splits)
    risk = np.where(index >= 0, rest[np.maximum(index, 0), np.arange(splits)], 0.0)
    return [float(rate) for rate in (risk > np.array(epsilons)[:, None]).mean(axis=1)]


def _walk(losses: Flags, epsilons: tuple[float, ...], delta: float) -> NDArray[np.intp]:
    """Last accepted threshold ``(epsilons, splits)`` for losses ``(T, splits, n)``; -1 if none."""
    accepted = np.full((len(epsilons), losses.shape[1]), -1)
    walking = np.ones(accepted.shape, dtype=bool)
    for t, row in enumerate(losses):
        # The bets do not depend on epsilon, so they are made once for all that still walk.
        splits = np.flatnonzero(walking.any(axis=0))
        if len(splits) == 0:
            break
        bets = Bets.on(row[splits], delta)
        for e, epsilon in enumerate(epsilons):
            if walking[e].any():
                walking[e, splits] &= bets.below(epsilon, delta)
                accepted[e, walking[e]] = t
    return accepted
