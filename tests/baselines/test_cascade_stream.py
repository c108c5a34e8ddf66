"""The cascade's lazy executor: what it does not compute, frames, dropped samples, and refusals."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from support.cascades import gap, image, randomised
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import AnytimeModel
from baselines.cascade.model import CascadedResNet

SCHEDULES = pytest.mark.parametrize("schedule", ["parallel", "serial"])


def macs_per_exit(model: CascadedResNet, x: Tensor) -> list[int]:
    """MACs spent by each exit's own request."""
    stream, spent = model.stream(x), []
    for _ in range(model.num_exits):
        with FlopCounterMode(display=False) as counter:
            next(stream)
        spent.append(counter.get_total_flops() // 2)
    return spent


@torch.no_grad()
def test_work_is_done_when_asked_for_and_only_where_the_input_changed() -> None:
    x = torch.randn(1, 3, 32, 32)
    parallel = macs_per_exit(CascadedResNet(num_exits=11).eval(), x)
    serial = macs_per_exit(CascadedResNet(schedule="serial").eval(), x)
    with FlopCounterMode(display=False) as counter:
        CascadedResNet(schedule="serial").eval().answer(x, 8)
    plain = counter.get_total_flops() // 2
    assert round(plain / 1e6) == 140  # the paper's ResNet-18 with a max pool in its stem
    assert parallel[9:] == [0, 0]  # all settled
    assert parallel[0] < 0.03 * plain
    assert 4.3 < sum(parallel) / plain < 4.5  # 9 for the literal recursion
    assert sum(serial) < 1.05 * plain  # each residual branch once; shortcuts below it once per change


@SCHEDULES
def test_nothing_runs_before_the_first_answer_is_asked_for(schedule: str) -> None:
    with FlopCounterMode(display=False) as counter:
        CascadedResNet(width=4, schedule=schedule).stream(torch.randn(1, 3, 32, 32))
    assert counter.get_total_flops() == 0


@SCHEDULES
@pytest.mark.parametrize("delay", ["osd", "ews"])
@pytest.mark.parametrize("stem_delay", [False, True])
@torch.no_grad()
def test_kept_samples_go_on_as_if_alone(schedule: str, delay: str, stem_delay: bool) -> None:
    model = randomised(blocks=(1, 2, 1), schedule=schedule, delay=delay, stem_delay=stem_delay)
    x = image(model, batch=5)
    expected, stream = model(x), model.stream(x)
    kept = torch.arange(5)
    logits = next(stream)
    for k in range(1, model.num_exits):
        if k in (1, 3):
            keep = torch.ones(len(kept), dtype=torch.bool)
            keep[k - 1] = False
            logits, kept = stream.send(keep), kept[keep]
        else:
            logits = next(stream)
        assert gap(logits, expected[k, kept]) <= 1e-12
    with pytest.raises(StopIteration):
        next(stream)


@SCHEDULES
@torch.no_grad()
def test_an_answer_never_depends_on_later_frames(schedule: str) -> None:
    model = randomised(blocks=(1, 1, 1), schedule=schedule)
    frames = torch.randn(model.num_exits + 2, 2, 3, 16, 16, dtype=torch.float64)
    expected = list(model.watch(frames))
    assert len(expected) == model.num_exits
    for k in range(model.num_exits):
        changed = frames.clone()
        changed[k + 1 :] = torch.nan
        assert all(torch.equal(a, b) for a, b in zip(expected, islice(model.watch(changed), k + 1), strict=False))


@torch.no_grad()
def test_a_frame_arrives_through_the_shortcuts_at_its_own_step_and_through_blocks_later() -> None:
    model = randomised(blocks=(1, 1))
    frames = torch.randn(3, 2, 3, 16, 16, dtype=torch.float64)
    stale = frames.clone()
    stale[0] = stale[1]
    first, second = list(model.watch(frames)), list(model.watch(stale))
    assert gap(first[2], second[2]) > 1e-3  # block 1 saw frame 0, block 2 what it made of it
    assert gap(first[0], next(model.stream(frames[0]))) == 0


@SCHEDULES
@torch.no_grad()
def test_runs_do_not_share_state(schedule: str) -> None:
    model = randomised(blocks=(1, 1), schedule=schedule)
    x, y = image(model), image(model)
    alone = [list(model.stream(x)), list(model.stream(y))]
    together = list(zip(model.stream(x), model.stream(y), strict=True))
    for k, pair in enumerate(together):
        assert all(torch.equal(a, b[k]) for a, b in zip(pair, alone, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "random"}, "schedule is 'random', expected one of parallel, serial"),
        ({"delay": "none"}, "delay is 'none'"),
        ({"heads": "two"}, "heads is 'two'"),
        ({"block": "wide"}, "block is 'wide'"),
        ({"alpha": 1.0}, "alpha is 1, and such a delay never emits anything"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"width": 0}, "width holds 0"),
        ({"blocks": ()}, "blocks is empty"),
        ({"blocks": (2, 0)}, "blocks holds 0"),
        ({"num_exits": 0}, "num_exits is 0"),
    ],
)
def test_bad_options_are_refused_by_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadedResNet(**options)


@pytest.mark.parametrize("call", ["forward", "stream", "answer", "plain"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 32, 32), r"\(2, 1, 32, 32\).*\(B, 3, H, W\)"),
        ((3, 32, 32), r"\(3, 32, 32\)"),
        ((2, 3, 32, 15), "images are 32x15, too small for a total stride of 16"),
    ],
)
def test_bad_images_are_refused(call: str, shape: tuple[int, ...], message: str) -> None:
    model, x = CascadedResNet(width=2).eval(), torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        model.answer(x, 1) if call == "answer" else getattr(model, call)(x)


def test_too_few_frames_are_refused_before_any_work() -> None:
    model = CascadedResNet(width=2)
    with pytest.raises(ValueError, match=r"\(8, 2, 3, 32, 32\).*9 or more"):
        model.watch(torch.zeros(8, 2, 3, 32, 32))
    with pytest.raises(ValueError, match="too small"):
        model.watch(torch.zeros(9, 2, 3, 8, 8))


def test_an_exit_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="exit 9 was asked for"):
        CascadedResNet(width=2).answer(torch.zeros(1, 3, 32, 32), 9)


def test_training_on_one_value_per_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="no variance"):
        CascadedResNet(width=2, stem_pool=False).train()(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("heads", ["single", "multi"])
def test_a_video_is_watched_without_end_and_settles_at_full_depth_where_it_stands_still(heads: str) -> None:
    torch.manual_seed(0)
    model = CascadedResNet((1, 1, 1), width=4, num_classes=5, in_channels=1, stem_pool=False, heads=heads).eval()
    frames = torch.randn(6, 2, 1, 8, 8)
    held = [*frames, *[frames[-1]] * model.num_exits]
    with torch.no_grad():
        followed = list(model.follow(iter(held)))
        watched = list(model.watch(frames[: model.num_exits]))
        still = model.answer(frames[-1], model.num_exits - 1)
        afresh = list(AnytimeModel.follow(model, frames))
    assert len(followed) == len(held)
    assert all(torch.equal(a, b) for a, b in zip(followed, watched, strict=False)), "watch is where it begins"
    assert torch.allclose(followed[-1], still, atol=1e-5)
    assert not torch.allclose(followed[5], still, atol=1e-3), "the newest frame has not arrived at the end yet"
    assert torch.equal(afresh[-1], still), "without a state every frame is answered in full"
