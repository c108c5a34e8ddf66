"""The CUDA paths: on a device where there is one; their order of calls against stand-ins where there is none."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anytime_bench import load_method
from anytime_bench.harness import clocks
from anytime_bench.harness.clocks import EventClock, HostClock
from anytime_bench.harness.cuda_graphs import Graphs
from anytime_bench.harness.eager import EngineError
from anytime_bench.harness.engines import engine_verdict, make_engine, matched_engines
from anytime_bench.harness.rounds import Effort
from anytime_bench.harness.self_test import PlainResNet, self_test
from anytime_bench.harness.timing import TimingSettings, time_exits
from anytime_bench.harness.timing_session import Session, rounding_slack
from anytime_bench.harness.torch_settings import tf32
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.tasks.task import TaskCard

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CPU = torch.device("cpu")
GRAPH = TimingSettings(engine="graph", budget_seconds=2)


class Counted(AnytimeModel):
    """Three exits; says when each segment of its work is done."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, log):
        super().__init__()
        self.log = log

    def stream(self, images):
        for k in range(3):
            self.log.append(f"work {k}")
            yield images.flatten(1) + k


@pytest.fixture
def stand_ins(monkeypatch):
    """A CUDA of paper: graphs record which segments they captured, events count milliseconds as they are recorded."""
    log, time, current = [], {"ms": 0.0}, []

    class Event:
        def __init__(self, enable_timing=False, external=False):
            self.at = None

        def record(self):
            time["ms"] += 1.0
            self.at = time["ms"]

        def elapsed_time(self, other):
            return other.at - self.at

    class Graph:
        def replay(self):
            log.append(("replay", tuple(self.captured)))

    class Stream:
        def __init__(self, device=None):
            self.device = device

        def wait_stream(self, other):
            pass

    default = Stream()

    @contextmanager
    def on(stream):
        current.append(stream)
        yield
        current.pop()  # not after an error, as in torch 2.11

    @contextmanager
    def graph(target, pool=None, stream=None):
        log.append("capture")
        before = len(log)
        with on(stream):
            yield
        target.captured = [entry for entry in log[before:] if isinstance(entry, str)]

    fakes = {
        "Event": Event, "CUDAGraph": Graph, "Stream": Stream, "graph": graph, "stream": on,
        "graph_pool_handle": lambda: (0, 0), "current_stream": lambda device=None: current[-1] if current else default,
        "set_stream": lambda stream: current.clear() if stream is default else current.append(stream),
        "device": lambda device: nullcontext(), "synchronize": lambda device=None: None,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return log


def captures(log):
    return log.count("capture")


def test_graphs_capture_one_segment_per_exit_one_full_graph_and_prefixes_on_demand(stand_ins):
    engine = Graphs(Counted(stand_ins), torch.zeros(1, 1, 2, 2))
    assert captures(stand_ins) == 4
    del stand_ins[:]
    times, _ = engine.run_through(HostClock(CPU))
    assert stand_ins == [("replay", (f"work {k}",)) for k in range(3)]
    assert len(times) == 3
    assert [float(answer[0, 0]) for answer in engine.answers] == [0, 1, 2]
    del stand_ins[:]
    times, _ = engine.run_through(EventClock(CPU))
    assert stand_ins == [("replay", ("work 0", "work 1", "work 2"))]
    np.testing.assert_allclose(times, [1e-3, 2e-3, 3e-3])
    del stand_ins[:]
    engine.prepare([1])
    assert captures(stand_ins) == 1
    for k in (1, 2, 1):
        engine.prefix(k, EventClock(CPU))
    assert captures(stand_ins) == 2
    replays = [entry for entry in stand_ins if isinstance(entry, tuple)]
    assert replays == [("replay", tuple(f"work {i}" for i in range(k + 1))) for k in (1, 2, 1)]


def test_event_clock_counts_from_its_start(stand_ins):
    clock = EventClock(CPU)
    clock.start()
    clock.mark()
    clock.mark()
    np.testing.assert_allclose(clock.read(), [1e-3, 2e-3])


class Uncapturable(Counted):
    """Works, but not while a graph is captured."""

    def stream(self, images):
        for logits in super().stream(images):
            if self.log.count("capture"):
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            yield logits


IMAGES = torch.zeros(1, 1, 2, 2)
WHY = "CUDA graph capture failed: RuntimeError: operation not permitted when stream is capturing"


def test_a_failed_capture_leaves_the_current_stream_as_it_was(stand_ins):
    before = torch.cuda.current_stream()
    with pytest.raises(EngineError, match="not permitted"):
        Graphs(Uncapturable(stand_ins), IMAGES)
    assert torch.cuda.current_stream() is before


@pytest.mark.parametrize("who", ["method", "reference"])
def test_where_one_cannot_be_captured_both_run_eagerly_and_are_not_comparable(stand_ins, who):
    models = {"method": Counted(stand_ins), "reference": Counted(stand_ins), who: Uncapturable(stand_ins)}
    matched = matched_engines("graph", models["method"], [models["reference"]] * 2, IMAGES, range(3))
    assert [engine.name for engine in (matched.method, *matched.references)] == ["eager"] * 3
    assert matched.notes == [f"engine graph gave way to eager for the {who}: {WHY}"]
    (reason,) = matched.reasons
    assert f"the {who} cannot be run by engine graph" in reason


def test_where_neither_can_be_captured_they_are_still_alike(stand_ins):
    matched = matched_engines("graph", Uncapturable(stand_ins), [Uncapturable(stand_ins)], IMAGES)
    assert matched.name == "eager"
    assert len(matched.notes) == 2
    assert not matched.reasons


def test_the_verdict_is_one_line_for_the_plan(stand_ins):
    assert engine_verdict("graph", Counted(stand_ins), Counted(stand_ins), IMAGES) == "engine: graph"
    line = engine_verdict("graph", Uncapturable(stand_ins), Counted(stand_ins), IMAGES)
    assert line.startswith("engine: eager; engine graph gave way to eager for the method")
    assert "not comparable" in line
    assert "\n" not in line


def test_everything_on_the_second_device_is_made_and_captured_on_it(stand_ins, monkeypatch):
    """Streams, events and captures belong to the current device, whatever device the images are on."""
    second, entered, seen = torch.device("cuda:1"), [], []

    class There(torch.Tensor):
        device = second

    @contextmanager
    def on(device):
        entered.append(device)
        yield
        entered.pop()

    def noting(name, made):
        def call(*arguments, **keywords):
            seen.append((name, entered[-1] if entered else None))
            return made(*arguments, **keywords)

        return call

    monkeypatch.setattr(torch.cuda, "device", on)
    for name in ("Stream", "Event", "graph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, noting(name, getattr(torch.cuda, name)))
    engine = Graphs(Counted(stand_ins), IMAGES.as_subclass(There))
    engine.prepare([2])
    assert {name for name, _ in seen} == {"Stream", "Event", "graph", "graph_pool_handle"}
    assert {device for _, device in seen} == {second}
    assert not entered


class Offering(Counted):
    def executions(self):
        return {"again": self.stream}


def test_an_execution_is_captured_once_for_both_clocks_and_without_prefixes(stand_ins):
    session = Session(Offering(stand_ins), Counted(stand_ins), IMAGES.repeat(9, 1, 1, 1), CPU, "graph", None, (), None)
    session.events = EventClock(CPU)
    session.measure(1, Effort(2, 0.01, 0.5), 0, lambda share: None, lambda: None)
    segments_and_all, prefixes, copies = 4, 3, 2
    assert captures(stand_ins) == segments_and_all + prefixes + copies * (segments_and_all + 1) + segments_and_all


@pytest.mark.parametrize(
    ("dtype", "on_gpu", "allowed", "slack"),
    [
        (torch.float32, True, True, 2e-3),
        (torch.float32, True, False, 1e-4),
        (torch.float32, False, True, 1e-4),
        (torch.bfloat16, True, False, 2e-2),
    ],
)
def test_answers_may_differ_by_what_the_precision_of_convolutions_rounds(dtype, on_gpu, allowed, slack):
    with tf32(allowed):
        assert rounding_slack(SimpleNamespace(dtype=dtype, is_cuda=on_gpu)) == slack


def test_a_compiled_model_has_no_further_executions():
    model = PlainResNet(width=4)
    with pytest.raises(EngineError, match="bound to it"):
        make_engine("compile", model, torch.zeros(1, 3, 8, 8), model.stream)


class Busy(AnytimeModel):
    """Each exit keeps the GPU busy for a known number of clock cycles."""

    num_exits, ticks = 3, (1, 2, 3)
    cycles = 2_000_000

    def stream(self, images):
        for _ in range(3):
            torch.cuda._sleep(self.cycles)
            yield images.flatten(1)[:, :10]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_busy_kernels_take_equal_shares(engine):
    images = torch.randn(8, 3, 8, 8, device="cuda")
    summary = time_exits(Busy(), Busy(), images, "cuda", TimingSettings(engine=engine, budget_seconds=3)).summary()
    for block in (summary.latency, summary.clock("device_time")):
        p50 = [row.p50 for row in block.run_through]
        np.testing.assert_allclose(p50, np.array([1, 2, 3]) * p50[-1] / 3, rtol=0.05)


@pytest.mark.gpu
@needs_cuda
def test_answers_of_graphs_are_those_of_the_model():
    model = PlainResNet().cuda()
    images = torch.randn(20, 3, 32, 32, device="cuda")
    with tf32(False):
        timing = time_exits(
            model, PlainResNet().cuda(), images, "cuda", TimingSettings(engine="graph", budget_seconds=2)
        )
    assert timing.meta.engine == "graph"
    assert timing.meta.answers_agree == 1.0


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("name", ["cascaded_td", "cascaded_td_multihead", "cascaded_ce", "cascaded_vit", "serial_ce"])
def test_every_cascade_runs_as_graphs(name):
    """A parallel cascade forks streams in every step; each of its segments must be a capture of its own."""
    card = TaskCard("thumbnails", "t", tuple("abcdefghij"), (3, 32, 32), {}, (0.0,) * 3, (1.0,) * 3)
    model = load_method(name).build(card).cuda()
    reference = load_method("serial_ce").build(card).cuda()
    images = torch.randn(20, 3, 32, 32, device="cuda")
    with tf32(False):
        summary = time_exits(
            model, reference, images, "cuda", TimingSettings(engine="graph", budget_seconds=2)
        ).summary()
    assert summary.meta.engine == "graph"
    assert not summary.notes
    assert summary.meta.answers_agree == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_device_is_measured_on_its_own_streams():
    model = PlainResNet().to("cuda:1")
    timing = time_exits(
        model, PlainResNet().to("cuda:1"), torch.randn(9, 3, 32, 32), "cuda:1", TimingSettings(budget_seconds=1)
    )
    assert timing.meta.engine == "graph"
    assert timing.summary().headline.clocks["device_time"].run_through[0].p50 > 0
    assert torch.cuda.current_device() == 0


@pytest.mark.gpu
@needs_cuda
def test_equal_models_measure_as_equal_on_a_gpu():
    """Three in a row whose 95 % interval lies beside 1 happen to a sound harness once in eight thousand times."""
    assert any(
        all(ratio.contains_one for ratio in self_test("cuda", 4, seed=seed).clocks.values()) for seed in range(3)
    )


def test_without_a_device_the_host_clock_needs_none():
    clock = clocks.HostClock(CPU)
    clock.start()
    clock.mark()
    assert clock.read().shape == (1,)
