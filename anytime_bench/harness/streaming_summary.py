"""From what a model answers about clips, and the times it takes, to streaming accuracy: pure, without torch.

Samples, for C clips of F frames, R rounds, E exits and N rates; seconds:

=========== =============== =========================================================================================
reference   (R,)    float32 the reference's full answer
run_through (R, E)  float32 the model's exits, one after the other
full        (R,)    float32 its full answer alone
step        (R,)    float32 one step of watching on a new frame; absent for a model without state
rates       (N,)    float64 periods of the frames in multiples of the reference's full answer
labels      (F, C)  uint16  the class on view
classes     (E, F, C)       what every exit says of every frame, uint16
watched_n   (A, C)  uint16  what the steps of watching say at rate n, A of them by the clock above
=========== =============== =========================================================================================

Times enter as medians over rounds of the ratio to the reference, so that the drift of a machine's speed is not in them.
Intervals are over clips, for the weights at hand. Errors: ``ValueError`` naming an array that is missing or out of
shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anytime_bench.harness.streaming import Clock, Finished, Way, follow, streaming_accuracy, ways_of
from anytime_bench.scores.curve import settle
from anytime_bench.scores.intervals import mean_interval
from anytime_bench.scores.results import Estimate, Strict, rounded

Floats = NDArray[np.float64]
Samples = Mapping[str, NDArray[Any]]


class StreamingMeta(Strict):
    """How the clips were made and timed: ``hold`` frames in a row are noisy views of one image.

    ``seed`` draws images and noise; ``reasons`` are those against comparing the times.
    """

    device: str
    threads: int
    seed: int
    kind: str
    hold: int
    reasons: list[str] = Field(default_factory=list)


class Followed(Strict):
    """One way of following frames that arrive every ``rate`` full answers of the reference.

    ``ahead`` is the streaming accuracy less that of restart, paired over clips; ``answers`` are those per frame.
    """

    way: Way
    rate: float
    accuracy: Estimate
    ahead: Estimate
    answers: float


class StreamingBlock(Strict):
    """Streaming accuracy per way and rate. ``reference`` in seconds; ``full``, ``step`` and ``exits`` in multiples."""

    meta: StreamingMeta
    clips: int
    frames: int
    reference: float
    exits: list[float]
    full: float
    step: float | None = None
    rows: list[Followed]

    def row(self, way: Way, rate: float) -> Followed:
        """Raises ``KeyError`` where frames did not arrive at this rate, or were not followed this way."""
        for row in self.rows:
            if (row.way, row.rate) == (way, rate):
                return row
        raise KeyError(f"no way '{way}' at rate {rate:g}")


def clock_of(samples: Samples) -> Clock:
    """Times in multiples of the reference's full answer."""
    unit = samples["reference"].astype(np.float64)
    exits = np.median(samples["run_through"].astype(np.float64) / unit[:, None], axis=0)
    full, step = (
        float(np.median(samples[name].astype(np.float64) / unit)) if name in samples else None
        for name in ("full", "step")
    )
    assert full is not None  # by the check of shapes
    return Clock(tuple(settle(exits).tolist()), full, step)


def summarise_streaming(samples: Samples, meta: StreamingMeta, num_classes: int) -> StreamingBlock:
    """The block of a record from raw ``samples``."""
    _require_shapes(samples)
    clock, labels = clock_of(samples), samples["labels"]
    rows = []
    for number, rate in enumerate(samples["rates"].tolist()):
        right: dict[Way, Floats] = {}
        for way in ways_of(clock):
            answers = follow(way, clock, rate, len(labels))
            classes = _classes(samples, number, way, answers)
            right[way] = streaming_accuracy(answers, classes, labels, rate, 1 / num_classes)
            rows.append(
                Followed(
                    way=way,
                    rate=rounded(rate),
                    accuracy=_mean(right[way], 0.0),
                    ahead=_mean(right[way] - right["restart"], -1.0),
                    answers=rounded(len(answers) / len(labels)),
                )
            )
    return StreamingBlock(
        meta=meta,
        clips=labels.shape[1],
        frames=len(labels),
        reference=rounded(np.median(samples["reference"].astype(np.float64))),
        exits=[rounded(each) for each in clock.exits],
        full=rounded(clock.full),
        step=None if clock.step is None else rounded(clock.step),
        rows=rows,
    )


def _classes(samples: Samples, number: int, way: Way, answers: list[Finished]) -> NDArray[Any]:
    """The class of every answer ``(A, C)``."""
    if way != "watch":
        exits, frames = ([getattr(each, name) for each in answers] for name in ("exit", "frame"))
        chosen: NDArray[Any] = samples["classes"][exits, frames] if answers else samples["labels"][:0]
        return chosen
    watched: NDArray[Any] = samples[f"watched_{number}"]
    if len(watched) != len(answers):
        raise ValueError(f"array 'watched_{number}' of the clips holds {len(watched)} steps, expected {len(answers)}")
    return watched


def _mean(values: Floats, least: float) -> Estimate:
    interval = mean_interval(values[None])
    return Estimate.of(interval.value, (max(interval.low, least), min(interval.high, 1.0)))


def _require_shapes(samples: Samples) -> None:
    labels = samples.get("labels", np.empty((0, 0)))
    rounds = len(samples.get("reference", ()))
    exits = samples["run_through"].shape[-1] if "run_through" in samples else 0
    expected: dict[str, tuple[int, ...]] = {
        "reference": (rounds,), "run_through": (rounds, exits), "full": (rounds,), "labels": labels.shape,
        "rates": samples["rates"].shape if "rates" in samples else (), "classes": (exits, *labels.shape),
    }  # fmt: skip
    if "step" in samples:
        expected["step"] = (rounds,)
        expected |= {
            f"watched_{number}": (len(samples.get(f"watched_{number}", ())), labels.shape[-1])
            for number in range(len(samples.get("rates", ())))
        }
    missing = [name for name in expected if name not in samples]
    if missing:
        raise ValueError(f"array '{missing[0]}' of the clips is missing")
    for name, shape in expected.items():
        if samples[name].shape != shape or (0 in shape and not name.startswith("watched_")):
            raise ValueError(f"array '{name}' of the clips has shape {samples[name].shape}, expected {shape}")
