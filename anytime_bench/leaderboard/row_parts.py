"""The parts of a board's row as typed models, and how their numbers are rounded.

Shares (accuracies, areas, what noise leaves) are in [0, 1]; costs are multiples of the reference's full answer, so the
horizon of AUC@h is h on every axis. Numbers are rounded when a board is assembled, once, so that all formats agree and
bytes stay equal where another BLAS adds in another order: ``share`` to 5 decimals, ``digits`` to 6 significant ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from anytime_bench.harness.streaming import Way
from anytime_bench.scores.ranks import Rank
from anytime_bench.scores.results import Estimate

#: Shares of a count of images often end on a half of the last decimal; sums in another order would round them apart.
OFF_TIES = 1e-9


def share(value: float) -> float:
    return round(float(value) + OFF_TIES, 5)


def digits(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")


def mean_share(values: Sequence[float]) -> float:
    return share(float(np.mean(values)))


def mean_digits(values: Sequence[float]) -> float:
    return digits(float(np.mean(values)))


def digits_or_none(value: float | None) -> float | None:
    """The same; None for what was not measured or is not finite."""
    return None if value is None or not math.isfinite(value) else digits(value)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reach(Model):
    """Cost at which an accuracy is reached, and the least and the most that may be; None is never."""

    value: float | None
    low: float | None
    high: float | None


class AxisScores(Model):
    """One row on one cost axis. ``cost (E,)`` is the mean over timing processes, ``cost_by_seed`` is ``(S, E)``."""

    auc_1: Estimate
    auc_2: Estimate
    #: AUC@h at each of the board's ``horizons``.
    curve: list[Estimate]
    place: Rank | None
    unranked: str
    #: None where fewer than two rows have comparable costs.
    regret: Estimate | None
    #: By percent of the reference's final accuracy: 50, 90, 95 and 99. Empty where that accuracy is not known.
    time_to: dict[str, Reach]
    #: The best single exit and the exits worth asking for, chosen on validation; gains are in AUC@1 over the first and
    #: over asking for every exit.
    fixed_exit: int
    gain_over_fixed_exit: Estimate
    exit_set: list[int]
    exit_set_auc_1: Estimate
    gain_of_exit_set: Estimate
    #: AUC@1 less that of the static nets (rows with one exit), the best that fits a known deadline; None without two.
    gain_over_static: Estimate | None
    cost: list[float]
    cost_by_seed: list[list[float]]


class StoppingCurve(Model):
    """A stopping rule fitted on the validation split and simulated on the test split: accuracy over mean MACs."""

    cost: list[float]
    accuracy: list[float]


class BudgetLine(Model):
    """Accuracy of one stopping rule on one cost axis at each budget, in percent of the reference's full cost."""

    rule: str
    title: str
    axis: str
    accuracy: dict[str, Estimate | None]
    #: Share of the time of a real stop by this rule that goes into deciding; None where it was not measured.
    deciding: float | None


class RealStop(Model):
    """What stopping did on the clock, at one batch size, by one rule; means over seeds."""

    batch: int
    rule: str
    #: Whether images that are done leave the batch; otherwise the batch waits for its last one.
    real: bool
    images: int
    #: Share of the row's own full time that stopping saved at this batch size, and time over the reference's full one;
    #: None where the row's times are not comparable.
    saved: Estimate | None
    times_reference: float | None
    #: Whether the full runs were timed in turn with those that stopped; otherwise in a session of their own.
    beside: bool
    #: Share of the time that went into deciding.
    deciding: float
    accuracy: float
    #: Accuracy less that of the last exit on the same images; None where the record does not hold the latter.
    change: Estimate | None
    mean_exit: float


class Throughput(Model):
    """Full answers per second at a larger batch, and how many times the reference's that is, measured beside it."""

    batch: int
    per_second: float
    times_reference: float


class Execution(Model):
    """The last exit at batch 1, in seconds: as timed, what of it is fixed, compiled, and on ``best_threads`` intra-op
    threads (of the seeds). Ratios are to the reference's full answer, the compiled one's to the compiled reference's;
    None is not measured."""

    plain_seconds: float | None
    fixed_seconds: float | None
    seconds_per_mac: float | None
    fixed_share: float | None
    compiled_seconds: float | None
    compiled_ratio: float | None
    best_threads: list[int]
    best_threads_seconds: float | None
    best_threads_ratio: float | None


class Promise(Model):
    """Exit k against the reference's full answer: MACs saved, time saved at batch 1, and the share of the first that
    arrives as the second. Each exit is asked for alone (``answer(images, k)``)."""

    macs_saved: float
    time_saved: Estimate
    arrives: float | None


class Behaviour(Model):
    """What going on after the first right answer does; see ``scores.per_sample``. MACs are the cost."""

    overthinking: Estimate
    wasted: Estimate
    flips: Estimate
    #: Images whose true class loses more than 0.1 of probability from one exit to a later one.
    falls: Estimate
    #: Per exit, the share of its errors that an earlier exit had right; None where it makes none.
    improvable: list[float | None]


class Quality(Model):
    """One exit's confidence, means over seeds; see ``scores.confidence``. ``top5`` is None for up to 5 classes.

    ``set_size``, ``coverage`` and ``consistency`` are of prediction sets, None in records that are older than these.
    """

    top5: float | None
    nll: float
    brier: float
    ece: float
    auroc: float | None
    augrc: float | None
    set_size: float | None = None
    coverage: float | None = None
    consistency: float | None = None


class Seconds(Model):
    """Percentiles of the time until an exit answers, every earlier answer given; means over seeds."""

    p50: float
    p90: float
    p99: float


class NoiseCell(Model):
    """One kind of noise: accuracy of the last answer, and what is left of the clean accuracy above chance."""

    accuracy: Estimate
    left: Estimate | None


class MovingNoise(Model):
    """One way of following changing frames: what is left per mode, mean over kinds."""

    policy: str
    modes: dict[str, Estimate]


class Noise(Model):
    """Under persistent noise by kind, with the policy that a single answer follows; under changing frames by policy."""

    images: int
    persistent: dict[str, NoiseCell]
    #: Mean of what is left over kinds; None near chance.
    mean: Estimate | None
    #: Mean over kinds of error / the reference's error on the same kind; None without the reference's own row.
    mce: Estimate | None
    #: Why nothing is said of what is left; empty where it is.
    near_chance: str = ""
    moving: list[MovingNoise]


class LaneScore(Model):
    """AUC@1 on at most ``lanes`` lanes (``inf``: unlimited), an edge between lanes costing ``edge_us``."""

    lanes: str
    edge_us: int
    auc_1: Estimate


class BreakEven(Model):
    """From how many lanes on a row is never behind ``rival``, which is ahead on one lane; or ``never``."""

    rival: str
    edge_us: int
    lanes: str


class Parallel(Model):
    """Parallel time of a row, means over its records; see ``leaderboard.lanes``."""

    #: T_1 over T_inf of the last exit.
    parallelism: float
    #: T_1 over the measured run-through, less 1, and the share of T_1 that goes into issuing operators.
    model_error: float
    dispatch: float
    #: How many times as fast two real lanes are as one, and what T_1 / T_2 says; None where that was not measured.
    two_lanes: float | None
    two_lanes_modelled: float | None
    lanes: list[LaneScore]
    break_even: list[BreakEven]
    #: The reasons against comparing with other rows.
    disturbed: list[str]


class ServedPoint(Model):
    """Accuracy over one part of [0, H]; ``deadline`` in multiples of H."""

    deadline: float
    delivered: Estimate
    promised: float


class Served(Model):
    """One way of serving uniform deadlines in [0, H]; ``late`` and ``free`` are seconds after the deadline.

    ``delivered`` is the delivered AUC, ``difference`` what it is ahead of the curve at the same draws.
    """

    mode: str
    delivered: Estimate
    promised: float
    difference: Estimate
    verdict: str
    misses: float
    late_p50: float
    late_p99: float
    late_max: float
    free_p99: float
    points: list[ServedPoint]


class Interrupted(Model):
    """A row interrupted for real, means over the records that were; ``horizon`` in seconds.

    ``disturbed`` are the reasons against comparing with other rows.
    """

    horizon: float
    draws: int
    disturbed: list[str]
    modes: list[Served]


class Streamed(Model):
    """Streaming accuracy of one way at one rate; ``ahead`` of restart, paired over clips. See ``harness.streaming``."""

    way: Way
    rate: float
    accuracy: Estimate
    ahead: Estimate
    answers: float
    disturbed: bool
