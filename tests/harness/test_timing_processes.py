"""Timing in several processes: what travels, what is put together, and what happens where it cannot."""

import multiprocessing
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from anytime_bench.errors import UserError
from anytime_bench.harness import timing_processes
from anytime_bench.harness.self_test import PlainResNet
from anytime_bench.harness.timing import TimedSamples, TimingSettings
from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.timing_processes import pooled, time_in_processes
from anytime_bench.harness.torch_settings import in_force, restored_settings
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.methods.plugins import load_method, load_plugin

IMAGES = torch.randn(7, 3, 8, 8)
SETTINGS = TimingSettings(budget_seconds=0.4, rounds=4, processes=2, threads=1, target=0.0)
PLUGIN = """
import torch
from torch import nn
from anytime_bench import AnytimeModel, Method, MethodCard

torch.set_default_dtype(torch.float64)

class Net(AnytimeModel):
    num_exits, ticks = 1, (1,)

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 3)

    def stream(self, images):
        yield self.head(images.flatten(1))

class OnNoPath(Method):
    card = MethodCard(title="On no path")

    def build(self, task):
        return Net()
"""


class DiesElsewhere(AnytimeModel):
    num_exits, ticks = 1, (1,)

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 3)

    def stream(self, images):
        if multiprocessing.parent_process() is not None:
            os._exit(7)
        yield self.head(images.flatten(1))


class Raises(DiesElsewhere):
    def stream(self, images):
        raise RuntimeError("no answer today")
        yield


@pytest.mark.slow
def test_processes_measure_one_after_the_other_and_make_one_measurement(tmp_path):
    """The model comes from a plugin file, which lies on no path, so its class travels by file."""
    (tmp_path / "on_no_path.py").write_text(PLUGIN)
    with restored_settings("the plugin"):
        load_plugin(str(tmp_path / "on_no_path.py"))
    model = load_method("on_no_path").build(None)
    seen = []
    timed = time_in_processes(
        model, PlainResNet(width=4), IMAGES, "cpu", SETTINGS, lambda share, what: seen.append((share, what))
    )
    assert timed.meta.processes == 2
    assert timed.meta.target == SETTINGS.target
    assert not timed.meta.notes
    # What the plugin sets as it is imported is put back there too.
    assert timed.meta.settings == in_force().model_copy(update={"threads": 1, "gradients": False})
    np.testing.assert_array_equal(np.unique(timed.samples["batch1_process"]), [0, 1])
    assert len(timed.samples["batch1_latency_twin"]) == len(timed.samples["batch1_process"]) >= 8
    summary = timed.summary()
    assert len(summary.latency.processes) == 2
    assert "process 2: the time of" in summary.headline.stopped_because
    assert {what for _, what in seen} == {"timing, batch 1, process 1", "timing, batch 1, process 2"}
    assert max(share for share, _ in seen) == 1.0


def test_a_model_that_cannot_travel_is_timed_here_and_says_so():
    model = PlainResNet(width=4)
    model.trick = lambda x: x
    timed = time_in_processes(model, PlainResNet(width=4), IMAGES, "cpu", SETTINGS)
    assert timed.meta.processes == 1
    (note,) = timed.meta.notes
    assert note.startswith("timed in this process alone: its model cannot be pickled")


def test_on_a_gpu_nvml_is_asked_before_a_model_touches_it(monkeypatch):
    order = []
    model = SimpleNamespace(to=lambda place: order.append("model.to"))
    job = timing_processes._Job({}, b"", np.zeros((1, 3, 4, 4), np.float32), "cuda:0", SETTINGS)
    pipe = SimpleNamespace(send=lambda message: order.append(message[0]), recv=lambda: job)
    timed = SimpleNamespace(samples={}, meta=None)
    monkeypatch.setattr(timing_processes.pickle, "loads", lambda payload: order.append("models") or (model, model))
    monkeypatch.setattr(timing_processes, "own_processes", lambda place: order.append(f"NVML of {place}"))
    monkeypatch.setattr(timing_processes, "time_exits", lambda *arguments: timed)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    timing_processes._serve(pipe)
    assert order == ["waits", "NVML of cuda:0", "models", "started", "model.to", "model.to", "done"]


def test_on_a_gpu_unused_memory_is_given_back_before_others_measure(monkeypatch):
    order = []

    class Started:
        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def wait(self):
            order.append("others begin")
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("freed"))
    with pytest.raises(KeyboardInterrupt):
        time_in_processes(PlainResNet(4), PlainResNet(4), IMAGES, "cuda", SETTINGS, started=Started())
    assert order == ["freed", "others begin"]


@pytest.mark.slow
def test_a_process_that_dies_or_raises_is_an_error_of_one_line():
    for model, message in ((DiesElsewhere(), r"died while it measured \(exit code 7\)"), (Raises(), "no answer today")):
        with pytest.raises(UserError, match=message) as error:
            time_in_processes(model, PlainResNet(width=4), IMAGES, "cpu", SETTINGS)
        assert "\n" not in str(error.value)


SCRIPT = """
import torch
import anytime_bench
from anytime_bench.harness.timing import TimingSettings
from anytime_bench.harness.timing_processes import is_timing_process, time_in_processes
from anytime_bench.harness.self_test import PlainResNet

print("the script runs")

class Own(PlainResNet):
    pass

def main(kind):
    settings = TimingSettings(budget_seconds=0.2, rounds=2, processes=2, threads=1, target=0.0)
    timed = time_in_processes(kind(width=4), PlainResNet(width=4), torch.randn(3, 3, 8, 8), "cpu", settings)
    print("processes", timed.meta.processes, *timed.meta.notes)

"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "again", "says"),
    [
        ("main(PlainResNet)", 0, "processes 2"),
        ("if __name__ == '__main__':\n    main(Own)", 2, "processes 2"),
        (
            "anytime_bench.run('sdn') if is_timing_process() else main(Own)",
            1,
            "the script calls anytime_bench.run outside",
        ),
    ],
    ids=["unguarded", "its own class", "unguarded with its own class"],
)
def test_a_script_is_run_again_only_for_classes_that_stand_in_it(tmp_path, end, again, says):
    (tmp_path / "script.py").write_text(SCRIPT + end)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script runs") == 1
    assert done.stderr.count("the script runs") == again
    assert says in done.stdout


def test_one_process_is_this_one(monkeypatch):
    monkeypatch.setattr(timing_processes, "_Process", lambda device: pytest.fail("a process was started"))
    settings = TimingSettings(budget_seconds=0.1, rounds=2, threads=1)
    assert time_in_processes(PlainResNet(4), PlainResNet(4), IMAGES, "cpu", settings).meta.processes == 1


def part(ratio: float, rounds: int, scatter: float | dict[int, float], seed: int) -> TimedSamples:
    """What a process may have measured; ``scatter`` of one batch size, or by batch size."""
    rng = np.random.default_rng(seed)
    by_size = scatter if isinstance(scatter, dict) else {1: scatter}
    samples = {}
    for size, wide in by_size.items():
        times = np.exp(rng.normal(0, wide, (3, rounds, 2))).astype(np.float32) * 1e-3
        samples |= {
            f"batch{size}_latency_reference": times[0],
            f"batch{size}_latency_twin": times[1],
            f"batch{size}_latency_run_through": (times[2] * ratio)[..., None],
        }
    watch = {"seconds": 2.0, "foreign_busy_cores": 0.1 * seed, "load_average": [1.0]}
    sizes = list(map(str, by_size))
    meta = TimingMeta(
        batch_sizes=list(by_size), stopped_because=dict.fromkeys(sizes, "a test"), clocks={"latency": "perf_counter"},
        answers_agree=1.0, stop={"latency": {"run_through": "real", "prefix": "real"}},
        disturbances={size: [f"noise {seed}"] for size in sizes}, watch=dict.fromkeys(sizes, watch),
        inferences=dict.fromkeys(sizes, 1), notes=["a note"],
    )  # fmt: skip
    return TimedSamples(samples, meta)


def test_what_was_noticed_in_each_process_is_kept():
    meta = pooled([part(1.0, 10, 0.0, 1), part(1.0, 20, 0.0, 2)]).meta
    assert meta.disturbances == {"1": ["process 1: noise 1", "process 2: noise 2"]}
    assert meta.watch == {"1": {"seconds": 4.0, "foreign_busy_cores": 0.2, "load_average": [1.0]}}
    assert meta.notes == ["a note"]


@pytest.mark.parametrize(
    ("scatter", "expected"), [(0.01, 3), (0.5, 6), ({1: 0.01, 64: 0.01}, 3), ({1: 0.01, 64: 0.5}, 6)]
)
def test_further_processes_follow_while_the_target_is_not_reached_and_time_is_left(monkeypatch, scatter, expected):
    jobs = []

    class Instant:
        def __init__(self, device):
            pass

        def wait(self):
            pass

        def result(self, job, progress):
            jobs.append(job.settings)
            return part(1.0, job.settings.rounds, scatter, len(jobs))

        def end(self):
            pass

    monkeypatch.setattr(timing_processes, "_Process", Instant)
    sizes = tuple(scatter) if isinstance(scatter, dict) else (1,)
    settings = TimingSettings(processes=3, rounds=90, budget_seconds=9.0, target=0.02, batch_sizes=sizes)
    timed = time_in_processes(PlainResNet(4), PlainResNet(4), IMAGES, "cpu", settings)
    assert timed.meta.processes == len(jobs) == expected
    assert {job.rounds for job in jobs} == {30}
    assert {round(job.target, 6) for job in jobs} == {round(0.02 * 3**0.5, 6)}
    assert jobs[0].budget_seconds == pytest.approx(3, rel=0.05)
    assert len({job.seed for job in jobs}) == expected
