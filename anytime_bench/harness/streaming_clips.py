"""Clips of noisy frames, a model's answers about them, and the times that these take.

C clips of F frames are played side by side. A clip shows one test image after another, each for ``hold`` frames, every
frame with a fresh draw of noise. Times are measured once, at batch 1 and interleaved round by round: the reference's
full answer, the model's exits one after the other, its full answer alone, and, for a model that follows a video with a
state of its own, a step on a new frame. When which frame is answered follows from them (``harness/streaming.py``), so
that clips are answered in batches, and streaming accuracy can be derived again from what is stored.

Shapes: images ``(N, D, H, W)``, normalised, on the model's device; frames ``(F, C, D, H, W)``. Units: seconds.
Errors: ``UserError`` for settings that cannot be played; a model's errors pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.corruptions import corrupt, named
from anytime_bench.errors import UserError
from anytime_bench.harness.clocks import answer_seconds, exit_seconds, seconds_of
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.streaming import follow
from anytime_bench.harness.streaming_summary import StreamingMeta, clock_of
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.tasks.task import TaskCard
from anytime_bench.training.data import Normalised

Progress = Callable[[float], None]

#: Rounds of timing, after two that only warm up, and the steps of watching before the ones that are timed.
ROUNDS, WARM_STEPS = 30, 4


@dataclass(frozen=True)
class StreamingSettings:
    """``frames`` per clip of noise ``kind``, which arrive every ``rates`` full answers of the reference.

    Images and noise follow from ``seed``; None is that of the model's training where it is known.
    """

    rates: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    kind: str = "occlusion"
    clips: int = 32
    frames: int = 32
    hold: int = 8
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.rates or any(not 0 < rate < float("inf") for rate in self.rates):
            raise UserError(f"frames at rates {list(self.rates)}: expected periods above 0, such as 0.5.")
        if min(self.clips, self.frames, self.hold) < 1:
            raise UserError(f"{self.clips} clips of {self.frames} frames, {self.hold} of an image: expected 1 or more.")
        if not named(self.kind):
            raise UserError(f"no noise is named '{self.kind}'.")


@dataclass(frozen=True)
class Clips:
    """``frames (F, C, D, H, W)`` and the class on view ``labels (F, C)``."""

    frames: Tensor
    labels: Tensor


def keeps_state(model: AnytimeModel) -> bool:
    """Whether the model follows a video with a state of its own."""
    return type(model).follow is not AnytimeModel.follow


def make_clips(images: Tensor | Normalised, labels: Tensor, task: TaskCard, settings: StreamingSettings) -> Clips:
    """Noisy clips of ``images``, drawn from the settings' seed."""
    seed = settings.seed or 0
    rng = np.random.default_rng([seed, 0xF4A3E])
    scenes = -(-settings.frames // settings.hold)
    chosen = torch.from_numpy(rng.integers(0, len(images), (scenes, settings.clips))).to(images.device)
    shown = chosen.repeat_interleave(settings.hold, 0)[: settings.frames]
    frames = [
        corrupt(images[row], settings.kind, seed=seed, indices=row, frame=number, mean=task.mean, std=task.std)
        for number, row in enumerate(shown)
    ]
    return Clips(torch.stack(frames), labels[shown])


def play_clips(
    model: AnytimeModel,
    reference: AnytimeModel,
    clips: Clips,
    settings: StreamingSettings,
    progress: Progress | None = None,
) -> tuple[dict[str, NDArray[Any]], StreamingMeta]:
    """Raw samples (see ``streaming_summary``) and how they came about; ``progress(share)`` now and then."""
    report = progress or (lambda share: None)
    frames = clips.frames
    with evaluating(model), evaluating(reference):
        watch = DisturbanceWatch(frames.device)
        samples: dict[str, NDArray[Any]] = _times(model, reference, frames[:, :1])
        reasons = watch.finish()
        report(0.3)
        samples["rates"] = np.array(settings.rates, dtype=np.float64)
        samples["labels"] = clips.labels.cpu().numpy().astype(np.uint16)
        samples["classes"] = torch.stack([_classes(model(frame)) for frame in frames], dim=1).numpy().astype(np.uint16)
        report(0.6)
        if "step" in samples:
            clock = clock_of(samples)
            for number, rate in enumerate(settings.rates):
                seen = [each.frame for each in follow("watch", clock, rate, len(frames))]
                answers = model.follow(frames[frame] for frame in seen)
                classes = [_classes(logits) for logits in islice(answers, len(seen))]
                empty = torch.empty((0, frames.shape[1]))
                samples[f"watched_{number}"] = (torch.stack(classes) if classes else empty).numpy().astype(np.uint16)
                report(0.6 + 0.4 * (number + 1) / len(settings.rates))
    meta = StreamingMeta(
        device=str(frames.device),
        threads=torch.get_num_threads(),
        seed=settings.seed or 0,
        kind=settings.kind,
        hold=settings.hold,
        reasons=reasons,
    )
    return samples, meta


def _times(model: AnytimeModel, reference: AnytimeModel, frames: Tensor) -> dict[str, NDArray[Any]]:
    """Times per round, of ``frames (F, 1, D, H, W)`` in turn."""
    rows: dict[str, list[Any]] = {"reference": [], "run_through": [], "full": []}
    state = model.follow(frames[number % len(frames)] for number in count()) if keeps_state(model) else None
    if state is not None:
        rows["step"] = []
        for _ in islice(state, WARM_STEPS):
            pass
    for number in range(ROUNDS + 2):
        frame = frames[number % len(frames)]
        rows["reference"].append(answer_seconds(reference, frame))
        rows["run_through"].append(exit_seconds(model, frame))
        rows["full"].append(answer_seconds(model, frame))
        if state is not None:
            rows["step"].append(seconds_of(partial(next, state), frame.device))
    return {name: np.array(values[2:], dtype=np.float32) for name, values in rows.items()}


def _classes(logits: Tensor) -> Tensor:
    return logits.argmax(-1).cpu()
