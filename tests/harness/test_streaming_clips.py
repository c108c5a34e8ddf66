"""Clips, their times on known sleeps, and the block that is made of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pytest
import torch
from support.sleeping_models import Sleeper
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.harness import streaming_clips
from anytime_bench.harness.streaming import WAYS
from anytime_bench.harness.streaming_clips import Clips, StreamingSettings, make_clips, play_clips
from anytime_bench.harness.streaming_summary import StreamingBlock, clock_of, summarise_streaming
from anytime_bench.tasks.loading import load_task

SLEEP = 0.01
SETTINGS = StreamingSettings(rates=(0.5, 2.0), clips=3, frames=6, hold=2)


class Reader(Sleeper):
    """Names the class that a frame's pixels are; watching, that of the frame before."""

    num_exits, ticks = 2, (1, 2)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for _ in range(self.num_exits):
            if len(images) == 1:
                time.sleep(self.sleep)
            yield read(images)

    def follow(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        before: Tensor | None = None
        for frame in frames:
            if len(frame) == 1:
                time.sleep(self.sleep)
            yield read(frame if before is None else before)
            before = frame


def read(images: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 4).float()


@pytest.fixture(scope="module")
def clips() -> Clips:
    labels = torch.arange(6).repeat_interleave(1)[:, None].repeat(1, 3) % 4
    return Clips(labels[:, :, None, None, None].expand(6, 3, 1, 2, 2).float(), labels)


@pytest.fixture(scope="module")
def block(clips: Clips) -> StreamingBlock:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming_clips, "ROUNDS", 9)
        samples, meta = play_clips(Reader(SLEEP), Sleeper(SLEEP), clips, SETTINGS)
    made = summarise_streaming(samples, meta, 4)
    assert made == summarise_streaming(samples, meta, 4)
    for name in ("reference", "full", "labels", "rates", "classes", "watched_1"):
        with pytest.raises(ValueError, match=f"'{name}' of the clips is missing"):
            summarise_streaming({key: array for key, array in samples.items() if key != name}, meta, 4)
    with pytest.raises(ValueError, match="holds 1 steps"):
        summarise_streaming({**samples, "watched_0": samples["watched_0"][:1]}, meta, 4)
    assert clock_of(samples).step == pytest.approx(made.step)
    return made


def test_times_are_those_of_the_sleeps_in_multiples_of_the_reference(block: StreamingBlock) -> None:
    # Four sleeps are a full answer of the reference; medians of nine rounds stand a busy machine.
    assert block.exits == pytest.approx([0.25, 0.5], rel=0.3)
    assert block.full == pytest.approx(0.5, rel=0.3)
    assert block.step == pytest.approx(0.25, rel=0.3)


def test_a_model_that_reads_the_frame_is_right_but_late_and_one_that_reads_the_frame_before_is_not(
    block: StreamingBlock,
) -> None:
    assert {row.way for row in block.rows} == set(WAYS)
    slow = block.row("restart", 2.0)
    assert slow.accuracy.value == pytest.approx(1 - block.full / 2 + 0.25 * block.full / 12, abs=1e-6)
    asked = block.row("ask", 2.0)
    assert asked.accuracy.value == pytest.approx(1 - block.exits[0] / 2 + 0.25 * block.exits[0] / 12, abs=1e-6)
    assert asked.ahead.value == pytest.approx(asked.accuracy.value - slow.accuracy.value)
    assert block.row("watch", 2.0).accuracy.value > 0.5, "it has a frame for several steps"
    assert block.row("watch", 0.5).accuracy.value < block.row("ask", 0.5).accuracy.value


def test_without_a_state_nothing_is_watched(clips: Clips) -> None:
    class Forgetful(Reader):
        follow = Sleeper.follow

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming_clips, "ROUNDS", 2)
        samples, meta = play_clips(Forgetful(0.001), Sleeper(0.001), clips, SETTINGS)
    made = summarise_streaming(samples, meta, 4)
    assert made.step is None
    assert {row.way for row in made.rows} == {"restart", "ask", "pipelined"}


def test_clips_are_noisy_views_of_held_images_and_repeat() -> None:
    task = load_task("digits")
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
    settings = StreamingSettings(clips=4, frames=5, hold=2)
    first, second = (make_clips(images, labels, task.card, settings) for _ in range(2))
    assert torch.equal(first.frames, second.frames)
    assert first.frames.shape == (5, 4, 1, 8, 8)
    assert torch.equal(first.labels[0], first.labels[1])
    assert not torch.equal(first.labels[1], first.labels[2])
    assert not torch.equal(first.frames[0], first.frames[1]), "noise is drawn afresh per frame"


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"rates": (0.0,)}, "periods above 0"), ({"clips": 0}, "1 or more"), ({"kind": "no"}, "'no'")],
)
def test_settings_that_cannot_be_played_are_one_line(changed: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        StreamingSettings(**changed)
