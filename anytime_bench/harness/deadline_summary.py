"""From the raw draws of a deadline session to its numbers: a pure function, without torch, so that anyone can redo it.

Samples, for M draws, the modes of ``interruptible.MODES``, R pauses and E exits; seconds:

=========== ========= ============ =================================================================================
horizon     ()        float64      H from which deadlines were drawn: the reference's full answer before the session
kind        (M,)      uint8        0 uniform on [0, H], 1 log-uniform as the ALC counts, 2 jitter
image       (M,)      uint8-32     index in the test split
deadline    (M,)      float32      seconds from the request
exit        (3, M)    int8, int16  newest answer finished by then, -1 where there was none
prediction  (3, M)    uint16       its class
late        (3, M)    float16      how long the caller waited beyond the deadline
release     (3, M)    float16      from the deadline until the model was free again
reference   (R,)      float32      the reference's full answer, between the blocks of the session
run_through (R, E)    float32      the model's exits, uninterrupted, likewise
=========== ========= ============ =================================================================================

What the curve *promises* at a draw is the answer of the deepest exit whose cost is within the deadline, right or wrong
about the same image, and chance 1/C before the first exit. Costs are the record's ratios to the reference (of exits
one after the other for ask and run_ahead, alone for known; those of the session where the record holds no times), times
the reference's median of the session: so neither the drift of a machine's speed nor the draw of images and deadlines
is in the difference of *delivered* and *promised*. An interval of that difference adds half an observation to each
side (Agresti and Min 2005), because no difference in a few hundred draws is no proof that there is none.

Errors: ``ValueError`` naming an array that is missing or out of shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anytime_bench.scores.curve import settle
from anytime_bench.scores.intervals import accuracy_interval
from anytime_bench.scores.results import Estimate, Strict, rounded
from anytime_bench.trace.answers import Trace

Floats = NDArray[np.float64]
Mode = Literal["ask", "run_ahead", "known"]
Kind = Literal["uniform", "log_uniform", "jitter"]
Promise = Literal["kept", "broken", "undecided"]

MODES: tuple[Mode, ...] = ("ask", "run_ahead", "known")
KINDS: tuple[Kind, ...] = ("uniform", "log_uniform", "jitter")
UNIFORM, LOG_UNIFORM, JITTER = range(3)

#: Points of delivered accuracy over deadline, as equal parts of [0, H].
PARTS = 10
#: A promise is kept where delivered accuracy is at most this much below it, at 95 %.
MARGIN = 0.02
#: A horizon shorter than this is not large against what the host's scheduling adds.
SHORT_HORIZON = 0.02
#: A session in which the reference took this much longer than before it, or less, was disturbed.
DRIFT = 0.2


class DeadlineMeta(Strict):
    """How a session was run; ``reasons`` are those against comparing its figures, ``notes`` all else to know."""

    device: str
    threads: int
    seed: int
    jitter: str
    reasons: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class Quantiles(Strict):
    """Seconds over all draws of a row, those that were 0 included."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: NDArray[Any]) -> Quantiles:
        p50, p99 = np.percentile(seconds.astype(np.float64), [50, 99])
        return cls(p50=rounded(p50), p99=rounded(p99), max=rounded(seconds.max()))


class Delivered(Strict):
    """One mode under one kind of deadlines. Shares and accuracies in [0, 1].

    ``accuracy`` is what the user got, a blind guess where nothing was finished; under uniform deadlines it is the
    delivered AUC. ``promised`` is the curve's at the same draws, ``difference`` delivered less promised, paired.
    ``misses`` are draws without an answer, ``late`` those whose caller waited beyond the deadline.
    """

    mode: Mode
    kind: Kind
    draws: int
    accuracy: Estimate
    promised: float
    difference: Estimate
    misses: Estimate
    promised_misses: float
    late: Estimate
    lateness: Quantiles
    release: Quantiles

    @property
    def promise(self) -> Promise:
        """Whether the curve's promise is kept, within ``MARGIN``."""
        return promise(self.difference)

    @property
    def verdict(self) -> str:
        """The promise in words, in points of accuracy."""
        return verdict(self.difference)


class DeliveredPoint(Strict):
    """Delivered and promised accuracy over one part of [0, H]; ``deadline`` is the mean, in multiples of H."""

    deadline: float
    draws: int
    accuracy: Estimate
    promised: float


class DeadlineBlock(Strict):
    """What came of the deadlines. ``horizon`` in seconds; ``exits`` are the session's own costs in multiples of H.

    ``curve`` says whose costs promised: the record's timing, or the session's where the record holds no times.
    ``points`` are those of uniform deadlines, per mode. ``reasons`` speak against comparing.
    """

    meta: DeadlineMeta
    horizon: float
    curve: Literal["timing", "session"]
    exits: list[float]
    rows: list[Delivered]
    points: dict[Mode, list[DeliveredPoint]]
    reasons: list[str]
    notes: list[str]

    def row(self, mode: Mode = "ask", kind: Kind = "uniform") -> Delivered:
        """The figures of one mode and kind; raises ``KeyError`` where there were no such draws."""
        for row in self.rows:
            if (row.mode, row.kind) == (mode, kind):
                return row
        raise KeyError(f"no {kind} deadlines in mode {mode}")

    @property
    def comparable(self) -> bool:
        return not self.reasons


def promise(difference: Estimate) -> Promise:
    """Whether a promise is kept, from delivered less promised accuracy: within ``MARGIN``, at 95 %."""
    if difference.low >= -MARGIN:
        return "kept"
    return "broken" if difference.high < -MARGIN else "undecided"


def verdict(difference: Estimate) -> str:
    """The same in words, in points of accuracy.

    >>> verdict(Estimate(value=-0.05, low=-0.07, high=-0.03))
    'broken by 5.0 points [3.0, 7.0]'
    """
    low, value, high = (100 * share for share in (difference.low, difference.value, difference.high))
    if promise(difference) == "undecided":
        return f"undecided: {value:+.1f} points, between {low:+.1f} and {high:+.1f}"
    if promise(difference) == "kept":
        return f"kept: {value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    return f"broken by {-value:.1f} points [{-high:.1f}, {-low:.1f}]"


def summarise_deadlines(
    samples: Mapping[str, NDArray[Any]], meta: DeadlineMeta, test: Trace, ratios: Mapping[str, Sequence[float]]
) -> DeadlineBlock:
    """The block of a record from raw ``samples`` and its ``test`` trace.

    ``ratios`` are costs ``(E,)`` in multiples of the reference, ``run_through`` and ``prefix``, of the record's timing;
    empty where it was not timed.
    """
    _require_shapes(samples, test)
    reference = float(np.median(samples["reference"].astype(np.float64)))
    exits = np.median(samples["run_through"].astype(np.float64), axis=0) / reference
    run_through = ratios.get("run_through") or exits.tolist()
    prefix = ratios.get("prefix") or run_through
    delivered = _delivered(samples, test)
    promised = np.stack(
        [_promised(samples, test, (prefix if mode == "known" else run_through), reference) for mode in MODES]
    )
    right, expected = (_values(each, samples, test) for each in (delivered, promised))
    rows, points = [], {}
    for row, mode in enumerate(MODES):
        for number, kind in enumerate(KINDS):
            at = np.flatnonzero(samples["kind"] == number)
            if len(at):
                rows.append(_row(mode, kind, samples, row, at, right[row], expected[row], promised[row]))
        points[mode] = _points(samples, right[row], expected[row])
    horizon = float(samples["horizon"])
    return DeadlineBlock(
        meta=meta,
        horizon=rounded(horizon),
        curve="timing" if ratios.get("run_through") else "session",
        exits=[rounded(each) for each in exits],
        rows=rows,
        points=points,
        reasons=[*meta.reasons, *_drift(reference / horizon - 1)],
        notes=[*meta.notes, *_short(horizon)],
    )


def _delivered(samples: Mapping[str, NDArray[Any]], test: Trace) -> NDArray[np.int64]:
    """Delivered classes ``(3, M)``, -1 for none."""
    return np.where(samples["exit"] >= 0, samples["prediction"].astype(np.int64), -1)


def _promised(
    samples: Mapping[str, NDArray[Any]], test: Trace, ratios: Sequence[float], reference: float
) -> NDArray[np.int64]:
    """Classes that the curve promises ``(M,)``, -1 for none."""
    costs = settle(np.asarray(ratios, dtype=np.float64) * reference)
    newest = np.searchsorted(costs, samples["deadline"].astype(np.float64), side="right") - 1
    classes = test.predictions[newest, samples["image"]].astype(np.int64)
    return np.where(newest >= 0, classes, -1)


def _values(classes: NDArray[np.int64], samples: Mapping[str, NDArray[Any]], test: Trace) -> Floats:
    """1 for a right answer, 0 for a wrong one, chance for none."""
    right = classes == test.labels[samples["image"]].astype(np.int64)
    return np.where(classes < 0, 1 / test.num_classes, right.astype(np.float64))


def _row(
    mode: Mode,
    kind: Kind,
    samples: Mapping[str, NDArray[Any]],
    row: int,
    at: NDArray[np.intp],
    right: Floats,
    expected: Floats,
    promised: NDArray[np.int64],
) -> Delivered:
    late = samples["late"][row, at]
    return Delivered(
        mode=mode,
        kind=kind,
        draws=len(at),
        accuracy=_share(right[at]),
        promised=rounded(expected[at].mean()),
        difference=paired_difference(right[at] - expected[at]),
        misses=_share(samples["exit"][row, at] < 0),
        promised_misses=rounded((promised[at] < 0).mean()),
        late=_share(late > 0),
        lateness=Quantiles.of(late),
        release=Quantiles.of(samples["release"][row, at]),
    )


def _points(samples: Mapping[str, NDArray[Any]], right: Floats, expected: Floats) -> list[DeliveredPoint]:
    relative = samples["deadline"].astype(np.float64) / float(samples["horizon"])
    part = np.where(samples["kind"] == UNIFORM, np.minimum((relative * PARTS).astype(int), PARTS - 1), -1)
    groups = [np.flatnonzero(part == number) for number in range(PARTS)]
    return [
        DeliveredPoint(
            deadline=rounded(relative[at].mean()),
            draws=len(at),
            accuracy=_share(right[at]),
            promised=rounded(expected[at].mean()),
        )
        for at in groups
        if len(at)
    ]


def paired_difference(differences: Floats, level: float = 0.95) -> Estimate:
    """Mean of paired differences ``(M,)`` in [-1, 1], with the interval of Agresti and Min (2005).

    >>> paired_difference(np.zeros(400)).high > 0.003  # none in 400 may still be some
    True
    """
    count = len(differences) + 2
    centre = differences.sum() / count
    variance = (np.square(differences).sum() + 1) / count - centre**2
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(max(variance, 0.0) / count)
    mean = differences.mean()
    return Estimate.of(mean, (min(mean, centre - half), max(mean, centre + half)))


def _share(values: NDArray[Any]) -> Estimate:
    """Wilson's interval, which is too wide rather than too narrow where values lie between 0 and 1."""
    interval = accuracy_interval(values)
    return Estimate.of(interval.value, (interval.low, interval.high))


def _drift(share: float) -> list[str]:
    if abs(share) <= DRIFT:
        return []
    return [
        f"while deadlines were served the reference took {1 + share:.0%} of the time before: the machine was not idle"
    ]


def _short(horizon: float) -> list[str]:
    if horizon >= SHORT_HORIZON:
        return []
    return [
        f"H is {1e3 * horizon:.1f} ms, below the {1e3 * SHORT_HORIZON:.0f} ms from which waking a thread and starting "
        "an exit from Python are small against it: these figures are the host's as much as the model's"
    ]


def _require_shapes(samples: Mapping[str, NDArray[Any]], test: Trace) -> None:
    draws, pauses = (len(samples[name]) if name in samples else 0 for name in ("kind", "reference"))
    exits = test.num_exits
    expected = {
        "horizon": (), "kind": (draws,), "image": (draws,), "deadline": (draws,), "reference": (pauses,),
        "run_through": (pauses, exits),
        **dict.fromkeys(("exit", "prediction", "late", "release"), (len(MODES), draws)),
    }  # fmt: skip
    missing = [name for name in expected if name not in samples]
    if missing:
        raise ValueError(f"array '{missing[0]}' of the deadline samples is missing")
    for name, shape in expected.items():
        if samples[name].shape != shape or 0 in shape:
            was = samples[name].shape
            raise ValueError(f"array '{name}' of the deadline samples has shape {was}, expected {shape}")
    if int(samples["image"].max()) >= test.num_samples or int(samples["exit"].max()) >= exits:
        raise ValueError("the deadline samples name images or exits that the trace does not hold")
