"""The CUDA paths: on a device where there is one; their order of calls against stand-ins where there is none."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from anytime_bench.harness import clocks, engines
from anytime_bench.harness.clocks import EventClock, HostClock
from anytime_bench.harness.engines import Graphs, make_engine
from anytime_bench.harness.self_test import PlainResNet, self_test
from anytime_bench.harness.timing import time_exits
from anytime_bench.methods.contract import AnytimeModel

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CPU = torch.device("cpu")


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
    log, time = [], {"ms": 0.0}

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
        def wait_stream(self, other):
            pass

    @contextmanager
    def graph(target, pool=None):
        before = len(log)
        yield
        target.captured = [entry for entry in log[before:] if isinstance(entry, str)]

    @contextmanager
    def stream(target):
        yield

    fakes = {
        "Event": Event, "CUDAGraph": Graph, "Stream": Stream, "graph": graph, "stream": stream,
        "graph_pool_handle": lambda: (0, 0), "current_stream": Stream, "synchronize": lambda device=None: None,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return log


def test_graphs_capture_one_segment_per_exit_one_graph_per_prefix_and_one_full_graph(stand_ins):
    engine = Graphs(Counted(stand_ins), torch.zeros(1, 1, 2, 2))
    del stand_ins[:]
    times, _ = engine.run_through(HostClock(CPU))
    assert stand_ins == [("replay", (f"work {k}",)) for k in range(3)]
    assert len(times) == 3
    assert [float(answer[0, 0]) for answer in engine.answers] == [0, 1, 2]
    del stand_ins[:]
    for k in range(3):
        engine.prefix(k, EventClock(CPU))
    assert stand_ins == [("replay", tuple(f"work {i}" for i in range(k + 1))) for k in range(3)]
    del stand_ins[:]
    times, _ = engine.run_through(EventClock(CPU))
    assert stand_ins == [("replay", ("work 0", "work 1", "work 2"))]
    np.testing.assert_allclose(times, [1e-3, 2e-3, 3e-3])


def test_event_clock_counts_from_its_start(stand_ins):
    clock = EventClock(CPU)
    clock.start()
    clock.mark()
    clock.mark()
    np.testing.assert_allclose(clock.read(), [1e-3, 2e-3])


def test_a_model_that_cannot_be_captured_runs_eagerly_and_says_so(stand_ins, monkeypatch):
    def refuse(self):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(engines.Graphs, "_capture_segments", refuse)
    engine, notes = make_engine("graph", Counted([]), torch.zeros(1, 1, 2, 2))
    assert engine.name == "eager"
    assert notes == [
        "engine graph gave way to eager: CUDA graph capture failed: RuntimeError: operation not permitted when stream "
        "is capturing"
    ]


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
    summary = time_exits(Busy(), Busy(), images, device="cuda", engine=engine, budget_seconds=3).summary()
    for block in (summary, summary["device_time"]):
        p50 = [row["p50"] for row in block["run_through"]]
        np.testing.assert_allclose(p50, np.array([1, 2, 3]) * p50[-1] / 3, rtol=0.05)


@pytest.mark.gpu
@needs_cuda
def test_answers_of_graphs_are_those_of_the_model():
    model = PlainResNet().cuda()
    images = torch.randn(20, 3, 32, 32, device="cuda")
    timing = time_exits(model, PlainResNet().cuda(), images, device="cuda", engine="graph", budget_seconds=2)
    assert timing.meta["engine"] == "graph"
    assert timing.meta["answers_agree"] == 1.0


@pytest.mark.gpu
@needs_cuda
def test_equal_models_measure_as_equal_on_a_gpu():
    assert all(entry["contains_one"] for entry in self_test("cuda", 5)["clocks"].values())


def test_without_a_device_the_host_clock_needs_none():
    clock = clocks.HostClock(CPU)
    clock.start()
    clock.mark()
    assert clock.read().shape == (1,)
