"""What noise leaves of each row, from the stored correctness under noise; all rows of a board on the same images.

*Left* is chance-corrected and paired, ``(a - chance) / (clean - chance)`` on the same images: 1 is unharmed, 0 a guess.
Its interval is the delta method's: the ratio is linear in per-image values near its estimate, and their variance over
images and seeds is ``scores.variance``'s. A row near chance has nothing to lose, so its share is not given.

mCE (Hendrycks and Dietterich, ICLR 2019): mean over kinds of error / the reference's error on the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.leaderboard.row_parts import MovingNoise, Noise, NoiseCell, share
from anytime_bench.records.record import Estimate
from anytime_bench.scores.variance import from_sums, half_width, spread_of_difference
from anytime_bench.trace.noise import unpack

Floats = NDArray[np.float64]

#: Under persistent noise every frame is the same one, so these are one answer on one noisy image.
HEADLINE_POLICIES = ("onset", "watch")
#: A row is near chance where its clean accuracy is below chance plus this share of what lies above chance.
NEAR_CHANCE = 0.1


@dataclass(frozen=True)
class NoiseTables:
    """Final correctness of one row, seeds by images ``(S, N)``, severities averaged: clean per policy, noisy per
    (mode, policy, kind). ``seeds`` are the numbers of the row's seeds that were examined."""

    clean: dict[str, Floats]
    noisy: dict[tuple[str, str, str], Floats]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, by_seed: Sequence[Mapping[str, NDArray[Any]]]) -> NoiseTables | None:
        """From the ``noise_*`` arrays of each seed; seeds without any do not count, None where no seed has some."""
        cells: list[dict[tuple[str, str, str], Floats]] = []
        seeds = tuple(number for number, arrays in enumerate(by_seed) if "noise_correct" in arrays)
        for number in seeds:
            finals: dict[tuple[str, str, str], list[NDArray[np.bool_]]] = {}
            for run in unpack(by_seed[number]):
                finals.setdefault((run.mode, run.policy, run.kind), []).append(run.final)
            cells.append({place: np.mean(members, axis=0, dtype=np.float64) for place, members in finals.items()})
        if not cells:
            return None
        shared = [place for place in cells[0] if all(place in seed for seed in cells)]
        stacked = {place: np.stack([seed[place] for seed in cells]) for place in shared}
        return cls(
            {policy: table for (mode, policy, _), table in stacked.items() if mode == "clean"},
            {place: table for place, table in stacked.items() if place[0] != "clean"},
            seeds,
        )

    def of_mode(self, mode: str, policy: str) -> dict[str, Floats]:
        """By kind."""
        return {kind: table for (m, p, kind), table in self.noisy.items() if (m, p) == (mode, policy)}

    @property
    def headline(self) -> str:
        """The policy that stands for a single answer; empty where none was followed."""
        policies = {policy for mode, policy, _ in self.noisy if mode == "persistent"}
        return next((policy for policy in HEADLINE_POLICIES if policy in policies and policy in self.clean), "")


def board_noise(
    tables: Sequence[NoiseTables | None], reference: NoiseTables | None, chance: float, paired: Sequence[bool] = ()
) -> list[Noise | None]:
    """One entry per row, None where no seed of it was examined; ``reference`` is that of the reference's own row.

    ``paired`` says of each row whether its seeds are the reference's trainings; without it only that row itself is.
    """
    same = paired or [table is reference for table in tables]
    return [_noise(table, chance, reference, one) if table else None for table, one in zip(tables, same, strict=True)]


def _noise(tables: NoiseTables, chance: float, reference: NoiseTables | None, paired: bool) -> Noise:
    policy = tables.headline
    kinds = tables.of_mode("persistent", policy)
    clean = tables.clean.get(policy, next(iter(tables.clean.values())))
    level = float(clean.mean())
    near = level < chance + NEAR_CHANCE * (1 - chance)
    accuracy = _estimates(list(kinds.values()))
    left = _left([*kinds.values()], [clean] * len(kinds), chance)
    mean = _left([np.mean(list(kinds.values()), axis=0)], [clean], chance) if kinds else []
    return Noise(
        images=clean.shape[1],
        near_chance=f"near chance: {100 * level:.1f} % without noise, {100 * chance:.1f} % by guessing" if near else "",
        persistent={
            kind: NoiseCell(accuracy=acc, left=None if near else part)
            for kind, acc, part in zip(kinds, accuracy, left, strict=True)
        },
        mean=mean[0] if kinds and not near else None,
        mce=_mce(kinds, reference.of_mode("persistent", reference.headline), paired and tables.seeds == reference.seeds)
        if reference
        else None,
        moving=[] if near else _moving(tables, chance),
    )


def _moving(tables: NoiseTables, chance: float) -> list[MovingNoise]:
    """Mean over kinds per policy and mode of changing frames."""
    places = list(dict.fromkeys((p, m) for m, p, _ in tables.noisy if m != "persistent" and p in tables.clean))
    means = [np.mean(list(tables.of_mode(mode, policy).values()), axis=0) for policy, mode in places]
    left = _left(means, [tables.clean[policy] for policy, _ in places], chance)
    by_policy: dict[str, dict[str, Estimate]] = {}
    for (policy, mode), estimate in zip(places, left, strict=True):
        by_policy.setdefault(policy, {})[mode] = estimate
    return [MovingNoise(policy=policy, modes=modes) for policy, modes in by_policy.items()]


def _left(noisy: Sequence[Floats], clean: Sequence[Floats], chance: float) -> list[Estimate]:
    if not noisy:
        return []
    above = np.array([float(table.mean()) - chance for table in clean])
    values = np.array([float(table.mean()) - chance for table in noisy]) / np.where(above > 0, above, np.inf)
    parts = zip(noisy, clean, values, above, strict=True)
    return _estimates([(a - v * c) / max(scale, 1e-9) for a, c, v, scale in parts], values)


def _estimates(tables: Sequence[Floats], values: Floats | None = None) -> list[Estimate]:
    """Means of tables ``(S, N)`` with intervals; ``values`` are the centres where the tables are influences."""
    if not tables:
        return []
    stacked = np.stack(tables)  # (C, S, N)
    by_seed, per_image = stacked.mean(axis=2), stacked.mean(axis=1)
    between = ((per_image - per_image.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    within = ((stacked - by_seed[..., None]) ** 2).sum(axis=(1, 2))
    half = half_width(from_sums(by_seed.T, between, within, stacked.shape[2]))
    centres = by_seed.mean(axis=1) if values is None else values
    return [Estimate(value=share(v), low=share(v - h), high=share(v + h)) for v, h in zip(centres, half, strict=True)]


def _mce(kinds: dict[str, Floats], reference: dict[str, Floats], by_seed: bool) -> Estimate | None:
    shared = [kind for kind in kinds if kind in reference and reference[kind].mean() < 1]
    if not shared:
        return None
    errors = [1 - kinds[kind] for kind in shared]
    against = [1 - reference[kind] for kind in shared]
    ratios = [float(e.mean() / r.mean()) for e, r in zip(errors, against, strict=True)]
    value = float(np.mean(ratios))
    ours = np.mean([e / r.mean() for e, r in zip(errors, against, strict=True)], axis=0)
    theirs = np.mean([q * r / r.mean() for q, r in zip(ratios, against, strict=True)], axis=0)
    half = float(half_width(spread_of_difference(ours, theirs, by_seed=by_seed)))
    return Estimate(value=share(value), low=share(value - half), high=share(value + half))
