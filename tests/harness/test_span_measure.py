"""Measuring parallel time: answers unchanged, nothing left behind, and numbers that follow from the samples alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from anytime_bench import AnytimeModel
from anytime_bench.harness import span
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.operator_graph import (
    Operator,
    OperatorGraph,
    SpanError,
    graph_from_arrays,
    graph_to_arrays,
)
from anytime_bench.harness.operator_recording import record
from anytime_bench.harness.operator_times import dispatches, time_operators
from anytime_bench.harness.span import measure_span, threads_to_try
from anytime_bench.harness.span_summary import EDGE_COSTS, LANES, SpanMeta, operator_seconds, summarise_span

META = SpanMeta(device="cpu", seed=0, reasons=())


class Net(AnytimeModel):
    """Three exits, two of them views of one product, with parameters in every layer."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.norm = nn.BatchNorm2d(2)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        x = images
        for layer in self.layers:
            x = self.norm(layer(x)).relu_()
            yield x.flatten(2).sum(2)


class Waits(Net):
    """Gives its last answer alone in a fraction of the time of all of them."""

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for logits in super().stream(images):
            time.sleep(0.005)
            yield logits

    def answer(self, images: Tensor, k: int) -> Tensor:
        return list(super().stream(images))[k]


class Depends(Net):
    """Runs one operator more for images that are bright."""

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        if images.mean().item() > 0:
            images = images.sqrt()
        yield from super().stream(images)


class Selects(Net):
    """Goes on with as many pixels as are bright."""

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        bright = images[images > 0].sum()
        for logits in super().stream(images):
            yield logits + bright


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- measuring


def test_the_stopwatch_changes_no_answer() -> None:
    model = Net()
    with evaluating(model):
        plain = torch.stack(list(model.stream(images())))
        timed = time_operators(model, images(), record(model, images()))
    assert torch.equal(torch.stack(timed.answers), plain)
    assert timed.seconds.shape == timed.inside.shape == (len(record(model, images()).graph),)
    assert (timed.inside > 0).all()
    assert (timed.seconds >= timed.inside).all()


def test_calls_per_operator_count_the_views_before_it() -> None:
    recording = record(Net(), images())
    calls = dict(zip((o.name for o in recording.graph.operators), dispatches(recording).tolist(), strict=False))
    assert (calls["relu_"], calls["sum"]) == (1, 2)  # flatten before sum
    assert dispatches(recording).sum() == len(recording.calls)


def test_a_measurement_leaves_everything_as_it_was() -> None:
    model, reference = Net().train(), Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    shares: list[float] = []
    measured = measure_span(
        model, reference, images(), budget_seconds=0.05, progress=lambda share, what: shares.append(share)
    )
    assert torch.get_num_threads() == threads
    assert model.training
    assert reference.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(0 < share <= 1 for share in shares)
    # More threads may be left out where they are slower.
    tried = threads_to_try(torch.device("cpu"))
    assert measured.samples["threads"].tolist() in [list(tried[:count]) for count in range(1, len(tried) + 1)]


def test_the_unit_is_the_full_answer_of_the_reference_not_its_run_through() -> None:
    measured = measure_span(Net(), Waits(), images(), budget_seconds=0.05, threads=(1,))
    unit = measured.summary().reference_seconds.value
    assert unit == np.median(measured.samples["reference_answer"])
    assert unit < 0.5 * np.median(measured.samples["reference"][0])


def test_counted_span_repeats_bit_for_bit() -> None:
    """Two measurements differ in seconds alone: graph and MACs are the same arrays."""
    first, second = (measure_span(Net(), Net(), images(), budget_seconds=0.05, threads=(1,)).samples for _ in range(2))
    for name in graph_to_arrays(record(Net(), images()).graph):
        assert first[name].tobytes() == second[name].tobytes(), name
    assert summarise_span(first, META).span_macs == summarise_span(second, META).span_macs


def test_batches_beyond_one_image_and_the_number_of_images() -> None:
    measured = measure_span(Net(), Net(), images(4), budget_seconds=0.05, threads=(1,), batch_size=6)
    assert measured.summary().batch_size == 6
    assert measured.graph.operators[0].shapes[0][0] == 6


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            Depends(),
            r"aten\.(sqrt|conv\w*)\S* of shape .* and aten\.(sqrt|conv\w*)\S* of shape .*: the stream must run",
        ),
        (Selects(), r"aten\.index\.Tensor of shape \(\d+,\) in one recording and aten\.index\.Tensor of shape"),
    ],
)
def test_operators_that_depend_on_the_image(model: AnytimeModel, says: str) -> None:
    with pytest.raises(SpanError, match=says):
        measure_span(model, Net(), torch.cat([images(1).abs(), images(1), -images(1).abs()]), budget_seconds=0.05)


class Failing(Net):
    def stream(self, images: Tensor) -> Iterator[Tensor]:
        raise RuntimeError("lost")
        yield images


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": Failing()}, "stream raised after 0 answers: .*RuntimeError: lost"),
        ({"images": torch.zeros(0, 2, 4, 4)}, r"images have shape \(0, 2, 4, 4\)"),
        ({"budget_seconds": 0.0}, "budget_seconds is 0.0 and batch_size 1"),
        ({"batch_size": 0}, "batch_size 0, expected both above 0"),
        ({"threads": (2,)}, r"threads is \(2,\), expected 1 and then larger"),
        ({"threads": ()}, r"threads is \(\), expected 1"),
    ],
)
def test_requests_that_cannot_be_measured(changes: dict[str, Any], says: str) -> None:
    request = {"model": Net(), "reference": Net(), "images": images(), **changes}
    with pytest.raises(SpanError, match=says):
        measure_span(request.pop("model"), request.pop("reference"), request.pop("images"), **request)


# ---------------------------------------------------------------- from samples to numbers


def graph() -> OperatorGraph:
    """A fork: operator 0, then 1 and 2 side by side, joined by 3; answers after 0 and after 3."""
    after = ((), (0,), (0,), (1, 2))
    operators = tuple(Operator("ab"[index % 2], macs=10 * (index + 1), after=after[index]) for index in range(4))
    return OperatorGraph(operators, ((0,), (3,)))


def samples(rounds: int = 5) -> dict[str, np.ndarray]:
    """Costs of 1, 4, 6, 2 units on one thread and 1, 2, 3, 2 on two, a stopwatch of 0.5 a call, a reference of 20."""
    one, two = np.array([1.0, 4, 6, 2]), np.array([1.0, 2, 3, 2])
    calls = np.array([1, 2, 1, 1])
    seconds = np.array([one + 0.5 * calls, two + 0.5 * calls])
    return {
        **graph_to_arrays(graph()),
        "calls": calls,
        "threads": np.array([1, 2]),
        "batch_size": np.array(1),
        "seconds": np.repeat(seconds[:, None], rounds, axis=1),
        "inside": np.array([0.75 * one, 0.75 * two]),
        "latency": np.repeat([[12.5], [8.0]], rounds, axis=1),
        "reference": np.repeat([[20.0], [24.0]], rounds, axis=1),
        "reference_calls": np.array(8),
    }


def test_numbers_of_known_samples() -> None:
    block = summarise_span(samples(), META)
    assert block.stopwatch_seconds == 0.5
    assert operator_seconds(samples()).tolist() == [[1, 4, 6, 2], [1, 2, 3, 2]]
    assert block.span_macs == (10, 10 + 30 + 40)
    assert [each.value for each in block.work] == [1 / 20, 13 / 20]
    assert [each.value for each in block.span] == [1 / 20, 9 / 20]
    assert block.critical_path == {"a": 7 / 9, "b": 2 / 9}
    assert block.model_error.value == pytest.approx(13 / 12.5 - 1)
    assert block.dispatch_share == pytest.approx(0.25)
    assert [(row.threads, row.latency.value, row.work.value) for row in block.threads] == [
        (1, 12.5 / 20, 13 / 20), (2, 8 / 20, 8 / 20),
    ]  # fmt: skip
    last = {(row.edge_us, row.lanes): row.ready[-1] * 20 for row in block.lanes}
    assert last.keys() == {(edge, lanes or "inf") for edge in EDGE_COSTS for lanes in LANES}
    # One lane: 1 + 4 + 6 + 2. Two: both branches on both lanes, 1 + 2 + 3 + 2. Four: both at once, 1 + 3 + 2.
    assert [last[0, lanes] for lanes in (1, 2, 4, "inf")] == pytest.approx([13, 8, 6, 6])


def test_times_are_multiples_of_the_full_answer_and_of_the_run_through_where_that_is_unknown() -> None:
    run_through = summarise_span(samples(), META)
    answer = summarise_span(samples() | {"reference_answer": np.full(5, 10.0)}, META)
    assert (run_through.reference_seconds.value, answer.reference_seconds.value) == (20, 10)
    assert answer.span[-1].value == 2 * run_through.span[-1].value
    assert answer.lanes[0].ready == tuple(2 * ready for ready in run_through.lanes[0].ready)
    assert answer.stopwatch_seconds == run_through.stopwatch_seconds


def test_real_lanes_stand_beside_the_model_of_them() -> None:
    assert summarise_span(samples(), META).real_lanes is None
    made = samples() | {"lanes": np.array([[10.0, 10, 10], [6.0, 6, 6]])}
    lanes = summarise_span(made, META).real_lanes
    assert lanes is not None
    assert (lanes.alone.value, lanes.together.value) == (0.5, 0.3)
    assert lanes.gain.value == pytest.approx(10 / 6)
    assert lanes.modelled == pytest.approx(13 / 9)


def test_equal_rounds_leave_no_interval_and_scattered_ones_do() -> None:
    equal = summarise_span(samples(), META).span[-1]
    assert equal.low == equal.value == equal.high
    made = samples(9)
    made["seconds"] = made["seconds"] * np.linspace(0.9, 1.1, 9)[None, :, None]
    scattered = summarise_span(made, META).span[-1]
    assert scattered.low < scattered.value < scattered.high


def test_an_operator_never_costs_less_than_its_call() -> None:
    """A stopwatch dearer on the reference than here would leave operators of no cost at all."""
    made = samples()
    made["reference"][1] = 100.0  # 10 a call
    assert operator_seconds(made)[0].tolist() == (0.75 * np.array([1, 4, 6, 2])).tolist()


def test_numbers_between_measured_threads_are_used_like_the_smaller() -> None:
    made = samples()
    made["threads"] = np.array([1, 4])
    costs = operator_seconds(made)
    assert costs.shape == (4, 4)
    assert (costs[1] == costs[0]).all()
    assert (costs[2] == costs[0]).all()
    assert costs[3].tolist() == [1, 2, 3, 2]


@pytest.mark.parametrize("name", ["seconds", "calls", "edges", "threads", "reference_calls"])
def test_a_missing_array_is_named(name: str) -> None:
    made = samples()
    del made[name]
    with pytest.raises(SpanError, match=f"array '{name}' of the .* is missing"):
        summarise_span(made, META)


def test_an_array_out_of_shape_is_named() -> None:
    made = samples() | {"seconds": np.ones((2, 5, 3))}
    with pytest.raises(SpanError, match=r"array 'seconds' .* shape \(2, 5, 3\), expected \(2, 5, 4\)"):
        summarise_span(made, META)


@given(st.data())
def test_a_graph_survives_its_arrays(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    operators = tuple(
        Operator(
            data.draw(st.sampled_from(["conv2d", "add_", "mylib::op"])),
            data.draw(st.integers(0, 10**12)),
            tuple(sorted(data.draw(st.sets(st.integers(0, index - 1))))) if index else (),
        )
        for index in range(count)
    )
    answers = data.draw(st.lists(st.sets(st.integers(0, count - 1)), min_size=1, max_size=3))
    made = OperatorGraph(operators, tuple(tuple(sorted(answer)) for answer in answers))
    assert graph_from_arrays(graph_to_arrays(made)) == made


def test_the_second_gpu_is_the_current_one_while_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python nobody has made it current, and streams and events that name no device mean the first."""
    entered: list[Any] = []

    class There(Tensor):
        device = torch.device("cuda:1")

    class Session:
        def __init__(self, *arguments: Any) -> None:
            raise SpanError(f"within {entered}")

    class On:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            entered.append(str(self.device))

        def __exit__(self, *exception: object) -> None:
            entered.pop()

    monkeypatch.setattr(torch.cuda, "device", On)
    monkeypatch.setattr(span, "_Session", Session)
    with pytest.raises(SpanError, match="within \\['cuda:1'\\]"):
        measure_span(Net(), Net(), torch.zeros(1, 2, 4, 4).as_subclass(There))
    assert not entered
