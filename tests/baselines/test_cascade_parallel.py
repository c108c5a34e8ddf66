"""The parallel executor: on threads, on the streams of a CUDA of paper, and on a GPU where there is one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.cascades import gap, image, randomised
from support.paper_cuda import PaperCuda, Race, paper_cuda
from support.thread_lanes import ThreadLanes, run_ahead
from torch import Tensor

from anytime_bench.harness.torch_settings import tf32
from baselines.cascade import parallel
from baselines.cascade.fast import _gpu_kernel, add_relu
from baselines.cascade.model import CascadedResNet
from baselines.cascade.parallel import MAX_LANES, Inline, StreamLanes, lanes_for, side_streams
from baselines.cascade.stepwise import LazySteps

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = torch.device("cuda:0")
OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"stem_delay": True}, {"heads": "multi"}, {"schedule": "serial"}, {"delay": "ews"}]
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> PaperCuda:
    """Convolutions take ten units of paper time, everything else one, views nothing."""
    monkeypatch.setattr(parallel, "_side_streams", {})
    free = ("aten::view", "aten::t", "aten::detach", "aten::unsqueeze")
    return paper_cuda(monkeypatch, lambda name: 0.0 if name in free else 10.0 if "convolution" in name else 1.0)


def answers(model: CascadedResNet, run: LazySteps, frames: list[Tensor | None]) -> Iterator[Tensor]:
    for k, frame in enumerate(frames):
        yield run.logits(run.advance(frame)[-1], k)


def still(model: CascadedResNet, x: Tensor) -> list[Tensor | None]:
    return [x] + [None] * (model.num_exits - 1)


# ---------------------------------------------------------------- threads


@OPTIONS
@torch.no_grad()
def test_lanes_on_threads_give_the_same_answers(options: dict[str, Any]) -> None:
    model = randomised(blocks=(2, 1, 1), **options)
    x = image(model)
    frames = torch.randn(model.num_exits, *x.shape, dtype=x.dtype)
    with ThreadLanes(3) as lanes:
        assert gap(run_ahead(model, lanes, still(model, x)), model(x)) <= 1e-12
        assert gap(run_ahead(model, lanes, frames), torch.stack(list(model.watch(frames)))) <= 1e-12
        assert gap(torch.stack(list(answers(model, LazySteps(model, lanes), still(model, x)))), model(x)) <= 1e-12


def test_threads_start_what_is_ready_in_the_order_it_was_asked_for() -> None:
    log: list[str] = []

    def part(name: str, seconds: float = 0.0) -> Any:
        def work(*inputs: Tensor) -> Tensor:
            time.sleep(seconds)
            log.append(name)
            return torch.zeros(1)

        return work

    with ThreadLanes(1) as lanes:
        gate = lanes.run(0, part("gate", 0.05))
        late = lanes.run(1, part("late"), gate, gate)
        lanes.run(2, part("other"))
        lanes.take(lanes.run(1, part("last"), late))
    assert log == ["gate", "late", "other", "last"]


def test_a_part_that_fails_fails_whoever_takes_what_follows_from_it_and_nothing_else() -> None:
    def fail(*inputs: Tensor) -> Tensor:
        raise ValueError("no answer")

    with ThreadLanes(2) as lanes:
        broken = lanes.run(0, fail)
        follower, sound = (
            lanes.run(1, torch.zeros_like, broken),
            lanes.run(1, torch.zeros_like, lanes.give(torch.ones(2))),
        )
        assert lanes.take(sound).tolist() == [0, 0]
        for token in (broken, follower):
            with pytest.raises(ValueError, match="no answer"):
                lanes.take(token)


# ---------------------------------------------------------------- streams, on paper


@OPTIONS
@torch.no_grad()
def test_streams_never_read_what_may_not_be_there_and_give_the_same_answers(
    options: dict[str, Any], machine: PaperCuda
) -> None:
    model = randomised(blocks=(2, 1, 1), **options)
    x = image(model)
    expected, frames = model(x), torch.randn(model.num_exits, *x.shape, dtype=x.dtype)
    watched = torch.stack(list(model.watch(frames)))
    with machine:
        eager = list(answers(model, LazySteps(model, StreamLanes(6, GPU)), still(model, x)))
        moving = list(answers(model, LazySteps(model, StreamLanes(6, GPU)), list(frames)))
    assert gap(torch.stack(eager), expected) <= 1e-12
    assert gap(torch.stack(moving), watched) <= 1e-12
    assert machine.unannounced == 0


@OPTIONS
@torch.no_grad()
def test_a_capture_per_answer_and_one_for_all_are_both_possible(options: dict[str, Any], machine: PaperCuda) -> None:
    model = randomised(blocks=(2, 1, 1), **options)
    x = image(model)
    expected, segments = model(x), []
    with machine:
        run = None
        for _ in range(model.num_exits):
            with machine.captured():
                run = run or answers(model, LazySteps(model, StreamLanes(6, GPU)), still(model, x))
                segments.append(next(run))
        with machine.captured():
            whole = list(answers(model, LazySteps(model, StreamLanes(6, GPU)), still(model, x)))
    assert gap(torch.stack(segments), expected) <= 1e-12
    assert gap(torch.stack(whole), expected) <= 1e-12
    assert machine.unannounced == 0


@torch.no_grad()
def test_a_run_goes_on_across_the_borders_of_captures_and_after_dropping_samples(machine: PaperCuda) -> None:
    model = randomised(blocks=(1, 1, 1, 1))
    x = image(model, batch=3)
    expected = model(x)
    with machine:
        run = LazySteps(model, StreamLanes(6, GPU))
        eager = run.logits(run.advance(x)[-1], 0)
        with machine.captured():
            inside = run.logits(run.advance()[-1], 1)
        with machine.captured():  # which again knows nothing of the one before
            run.keep(torch.tensor([True, False, True]))
            kept = [run.logits(run.advance()[-1], k) for k in (2, 3)]
        last = run.logits(run.advance()[-1], 4)
    assert gap(eager, expected[0]) <= 1e-12
    assert gap(inside, expected[1]) <= 1e-12
    for k, logits in zip((2, 3, 4), (*kept, last), strict=True):
        assert gap(logits, expected[k, [0, 2]]) <= 1e-12


@torch.no_grad()
def test_the_paper_machine_sees_a_race_and_a_wait_across_captures(machine: PaperCuda) -> None:
    lanes, x = StreamLanes(2, GPU), torch.ones(3)
    with machine, machine.captured():
        lanes.begin()
        token = lanes.run(0, torch.neg, lanes.give(x))
        with pytest.raises(Race, match="may not be there"):
            torch.neg(token.value)
        lanes.take(token)
    with machine, machine.captured(), pytest.raises(Race, match="another capture"):
        torch.cuda.current_stream().wait_event(token.event)


@torch.no_grad()
def test_in_one_graph_the_cascade_takes_little_longer_than_the_serial_network(machine: PaperCuda) -> None:
    """On paper, with as many lanes as blocks: the wave runs down the blocks, and no step waits for the one before."""
    model = randomised(blocks=(2, 2, 2, 2), width=2, dtype=torch.float32)
    serial = randomised(blocks=(2, 2, 2, 2), width=2, schedule="serial", dtype=torch.float32)
    x = image(model, 32, batch=1)
    with machine:
        with machine.captured() as origin:
            serial.answer(x, 8)
            alone = origin.time
        with machine.captured() as origin:
            list(answers(model, LazySteps(model, StreamLanes(10, GPU)), still(model, x)))
            wave = origin.time
        steps = 0.0
        run = answers(model, LazySteps(model, StreamLanes(10, GPU)), still(model, x))
        for _ in range(9):
            with machine.captured() as origin:
                next(run)
                steps += origin.time
    assert wave < 1.25 * alone
    assert steps > 1.3 * alone, "a graph per answer waits for each answer, so its steps cannot overlap"


def test_lanes_are_allocated_once_are_distinct_and_spare_the_current_stream(machine: PaperCuda) -> None:
    first = side_streams(10, GPU)
    assert side_streams(10, GPU) == first
    assert len({stream.cuda_stream for stream in first}) == 10
    dealt = machine.dealt
    with machine.on(first[3]):
        again = side_streams(10, GPU)
    assert first[3] not in again
    assert len(again) == 10
    assert machine.dealt == dealt, "a run must not take new streams out of torch's 32"
    assert len(side_streams(50, GPU)) == MAX_LANES


def test_a_device_with_few_streams_still_has_distinct_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_side_streams", {})
    paper_cuda(monkeypatch, streams=3)
    assert [stream.cuda_stream for stream in side_streams(8, GPU)] == [1, 2, 3]


# ---------------------------------------------------------------- what is the same everywhere


def test_there_is_nothing_to_spread_on_a_cpu_or_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(lanes_for(torch.zeros(1), 8, spreads=True), Inline)
    paper_cuda(monkeypatch)
    monkeypatch.setattr(parallel, "_side_streams", {})
    on_gpu: Any = type("OnGpu", (), {"is_cuda": True, "device": GPU})()
    assert isinstance(lanes_for(on_gpu, 8, spreads=True), Inline), "a training step keeps its order"
    with torch.no_grad():
        assert isinstance(lanes_for(on_gpu, 8, spreads=True), StreamLanes)
        assert isinstance(lanes_for(on_gpu, 8, spreads=False), Inline)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_the_fused_sum_is_the_sum_and_its_relu(dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 3, 5, 5, dtype=dtype), torch.randn(2, 3, 5, 5, dtype=dtype)
    a[0, 0, 0, 0] = torch.nan
    assert torch.equal(add_relu(a, b).nan_to_num(7), torch.relu(a + b).nan_to_num(7))
    assert torch.equal(Inline().add_relu(a, b).nan_to_num(7), torch.relu(a + b).nan_to_num(7))
    assert _gpu_kernel().kernel_name == "add_relu"  # its text is one that torch can read


# ---------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("options", [{}, {"stem_delay": True}, {"heads": "multi"}, {"delay": "ews"}])
@torch.no_grad()
def test_streams_agree_with_the_layerwise_executor_on_a_gpu(options: dict[str, Any]) -> None:
    model = randomised(blocks=(2, 2, 1), **options).cuda()
    x = image(model).cuda()
    assert gap(torch.stack(list(model.stream(x))), model(x)) <= 1e-12
    single, y = model.float(), x.float()
    with tf32(False):
        assert gap(torch.stack(list(single.stream(y))), single(y)) <= 1e-5


@pytest.mark.gpu
@needs_gpu
@torch.no_grad()
def test_the_fused_sum_on_a_gpu() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2, 3, 5, 5, dtype=dtype).cuda(), torch.randn(2, 3, 5, 5, dtype=dtype).cuda()
        assert torch.equal(add_relu(a, b), torch.relu(a + b))


@pytest.mark.gpu
@needs_gpu
def test_training_on_a_gpu_gives_the_cpus_gradients() -> None:
    model = randomised(blocks=(1, 1)).train()
    x = image(model)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model = model.cuda()
    ours = torch.autograd.grad(model(x.cuda()).square().sum(), list(model.parameters()))
    assert all(gap(a.cpu(), b) <= 1e-9 for a, b in zip(ours, expected, strict=True))
