"""Scores under noise, recomputed from stored correctness: what is kept, the corruption error, who wins fairly.

The stored form of a noise evaluation is described in ``trace/noise.py``. Accuracy and kept share are in [0, 1] and
rounded to 8 decimals: a record holds thousands of numbers on noise, each a mean over a few hundred images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anytime_bench.scores.intervals import accuracy_interval, percentile_rows, resampled_means
from anytime_bench.scores.results import Estimate, NoiseBlock, NoiseRow, NoiseScores
from anytime_bench.scores.verdicts import MARGIN, Difference, paired_difference
from anytime_bench.trace.answers import TraceError
from anytime_bench.trace.noise import Array, Floats, NoiseRun, unpack

DECIMALS = 8


def noise_block(arrays: Mapping[str, Array]) -> NoiseBlock:
    """Everything a record says about noise, from the stored arrays.

    ``clean`` has one entry per policy; ``rows`` one per policy, kind and mode, over all severities together: each image
    counts once per severity. Pure: equal inputs give equal results.
    """
    clean: dict[str, NoiseRun] = {}
    groups: dict[tuple[str, str, str], list[NoiseRun]] = {}
    for run in unpack(arrays):
        if run.mode == "clean":
            clean[run.policy] = run
        else:
            groups.setdefault((run.policy, run.kind, run.mode), []).append(run)
    shares = {key: _per_image(runs) for key, runs in groups.items()}
    untouched = {policy: _per_image([run]) for policy, run in clean.items()}
    # One product for all rows: two thousand resamples for each alone took most of a record's verification.
    means = resampled_means([*shares.values(), *untouched.values()]).T
    ends = dict(zip((*shares, *untouched), percentile_rows(means), strict=True))
    kept = _kept_of_all(shares, untouched, dict(zip((*shares, *untouched), means, strict=True)))
    return NoiseBlock(
        images=int(arrays["noise_images"]),
        chance=1.0 / int(arrays["noise_classes"]),
        clean={policy: _scores([run], ends[policy]) for policy, run in clean.items()},
        rows=[
            NoiseRow(
                policy=policy,
                kind=kind,
                mode=mode,
                kept=kept.get((policy, kind, mode)),
                **dict(_scores(members, ends[policy, kind, mode])),
            )
            for (policy, kind, mode), members in groups.items()
        ],
    )


def _per_image(runs: list[NoiseRun]) -> Floats:
    """Share of the severities at which the last answer about each image is right, ``(N,)``."""
    return np.stack([run.final for run in runs]).mean(axis=0, dtype=np.float64)


def _scores(runs: list[NoiseRun], ends: Floats) -> NoiseScores:
    """The severities of one kind, taken together; ``ends`` are those of its interval."""
    first = runs[0]
    if len(runs) == 1:
        wilson = accuracy_interval(first.final)
        final = _estimate(wilson.value, wilson.low, wilson.high)
    else:
        final = _estimate(float(_per_image(runs).mean()), *ends)
    return NoiseScores(
        final_accuracy=final,
        accuracy=_rounded(np.stack([_means(run.correct) for run in runs]).mean(axis=0)),
        cost={axis: _rounded(values) for axis, values in first.costs.items()},
    )


def _means(correct: Array) -> Floats:
    """Accuracy of every answer, ``(A,)``, from correctness ``(A, N)``."""
    return np.count_nonzero(correct, axis=1) / correct.shape[1]


Group = tuple[str, str, str]


def _kept_of_all(
    shares: Mapping[Group, Floats], clean: Mapping[str, Floats], means: Mapping[Group | str, Floats]
) -> dict[Group, Estimate | None]:
    """``_kept`` of every group whose policy has a clean run; ``means`` are of groups and of policies."""
    kept: dict[Group, Estimate | None] = {}
    for policy, untouched in clean.items():
        mine = [group for group in shares if group[0] == policy]
        if mine:
            noisy, resampled = (np.stack([table[group] for group in mine]) for table in (shares, means))
            kept |= zip(mine, _kept(noisy, untouched, resampled, means[policy]), strict=True)
    return kept


def _kept(noisy: Floats, clean: Floats, noisy_means: Floats, clean_means: Floats) -> list[Estimate | None]:
    """Share of the clean accuracy that is left, from shares per image ``(K, N)`` and their resampled means ``(K, R)``;
    those of the clean images are ``(N,)`` and ``(R,)``."""
    if clean.sum() == 0:
        return [None] * len(noisy)
    usable = clean_means > 0
    ends = percentile_rows(noisy_means[:, usable] / clean_means[usable])
    return [_estimate(row.mean() / clean.mean(), *end) for row, end in zip(noisy, ends, strict=True)]


def _estimate(value: float, low: float, high: float) -> Estimate:
    value, low, high = _rounded(np.array([value, low, high]))
    return Estimate(value=value, low=low, high=high)


def _rounded(values: ArrayLike) -> list[float]:
    return [round(value, DECIMALS) for value in np.asarray(values, dtype=np.float64).tolist()]


@dataclass(frozen=True)
class FairRow:
    """``policy`` of one model minus ``against`` of another under one kind of noise, or under ``all``, at a moment."""

    kind: str
    moment: str
    mode: str
    policy: str
    against: str
    difference: Difference


def fair_comparison(
    cascade: Mapping[str, Array],
    serial: Mapping[str, Array],
    *,
    mode: str = "transient_1",
    policy: str = "watch",
    against: str = "pipelined_mean",
    margin: float = MARGIN,
) -> list[FairRow]:
    """Whether the stateful model beats the other one, image by image: one verdict per kind and one over all kinds.

    ``same_tick`` compares the answers owned when the stateful model is done; ``all_frames`` lets the other finish every
    frame that both have been sent. The difference is accuracy of ``policy`` minus accuracy of ``against``, paired over
    images, with a 95 % interval; severities of a kind are averaged per image.
    """
    ours, theirs = (_by_kind(unpack(arrays), mode, name) for arrays, name in ((cascade, policy), (serial, against)))
    chance = 1.0 / int(cascade["noise_classes"])
    kinds = [kind for kind in ours if kind in theirs]
    if not kinds:
        raise TraceError(f"noise: no kind was evaluated in mode '{mode}' with both '{policy}' and '{against}'")

    def pairs(kind: str, moment: str) -> tuple[Floats, Floats]:
        first = [ours[kind][severity] for severity in ours[kind] if severity in theirs[kind]]
        second = [theirs[kind][run.severity] for run in first]
        until = first[0].costs["ticks"][-1] if moment == "same_tick" else np.inf
        return (
            np.mean([run.at("ticks", until, chance) for run in first], axis=0),
            np.mean([run.at("ticks", until, chance) for run in second], axis=0),
        )

    rows = []
    for moment in ("same_tick", "all_frames"):
        per_kind = {kind: pairs(kind, moment) for kind in kinds}
        together = tuple(np.mean([pair[side] for pair in per_kind.values()], axis=0) for side in (0, 1))
        for kind, (a, b) in [*per_kind.items(), ("all", together)]:
            difference = paired_difference(a[None], b[None], margin=margin)
            rows.append(FairRow(kind, moment, mode, policy, against, difference))
    return rows


def _by_kind(runs: Sequence[NoiseRun], mode: str, policy: str) -> dict[str, dict[int, NoiseRun]]:
    by_kind: dict[str, dict[int, NoiseRun]] = {}
    for run in runs:
        if run.mode == mode and run.policy == policy:
            by_kind.setdefault(run.kind, {})[run.severity] = run
    return by_kind
