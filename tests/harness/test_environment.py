"""What is read off the machine is JSON, and every fault injected into it becomes a finding that says what it does."""

import json
import sys
from types import ModuleType, SimpleNamespace

import psutil
import pytest
import torch

from anytime_bench.harness import clocks, disturbance, environment, gpu_state
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.energy import energy_counter
from anytime_bench.harness.environment import capture, findings, slug
from anytime_bench.harness.gpu_state import own_among, own_processes, read_gpu
from anytime_bench.harness.self_test import PlainResNet, SelfTest, self_test
from anytime_bench.harness.timing_session import Session


@pytest.fixture(scope="module")
def captured():
    return capture("cpu", import_torchvision=True)


def worst(environment_):
    return findings(environment_)[0]


def changed(captured, **sections):
    copy = json.loads(json.dumps(captured))
    copy["cpu"]["busy_share"] = 0.0
    copy["cpu"]["governor"] = None
    copy["threads"]["intra_op"] = 1
    for section, values in sections.items():
        copy[section] = {**(copy[section] or {}), **values} if isinstance(values, dict) else values
    return copy


def test_capture_is_json_and_names_the_device(captured):
    assert json.loads(json.dumps(captured)) == captured
    assert captured["device_class"] == "cpu"
    assert captured["libraries"]["torch"] in torch.__version__
    assert captured["threads"]["intra_op"] == torch.get_num_threads()


def test_slug_of_a_gpu():
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_every_finding_says_what_it_does(captured):
    assert all(finding.what and finding.effect for finding in findings(captured))


def test_torchvision_that_does_not_import_is_a_finding_not_a_crash(captured, monkeypatch):
    def refuse(name):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(environment, "import_module", refuse)
    broken = capture("cpu", import_torchvision=True)
    assert broken["builds"]["torchvision_error"] == "RuntimeError: operator torchvision::nms does not exist"
    assert worst(broken).level == "error"
    assert "install both from one index" in worst(broken).effect


GPU = {
    "name": "X", "driver": "1", "foreign_processes": [], "throttle_reasons": [], "mig": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "level", "what"),
    [
        ({"builds": {"one_index": False, "torchvision_error": None}}, "error", "different indexes"),
        ({"cpu": {"busy_share": 0.6, "governor": None}}, "warn", "60% busy"),
        ({"cpu": {"busy_share": 0.0, "governor": "powersave"}}, "warn", "governor is powersave"),
        ({"threads": {"intra_op": 999}}, "warn", "999 threads"),
        ({"device": "cuda", "cuda": {"devices": 0, "built_for": None}}, "error", "a CPU build"),
        ({"device": "cuda", "cuda": {"devices": 1}, "gpu": None}, "warn", "NVML"),
        ({"device": "cuda", "cuda": {"devices": 1}, "gpu": {**GPU, "foreign_processes": [7]}}, "warn", "pid 7"),
        (
            {"device": "cuda", "cuda": {"devices": 1}, "gpu": {**GPU, "throttle_reasons": ["sync boost"]}},
            "warn",
            "sync",
        ),
        ({"device": "cuda", "cuda": {"devices": 1}, "gpu": {**GPU, "mig": True}}, "warn", "MIG"),
        ({"device": "cuda", "cuda": {"devices": 1}, "gpu": GPU}, "ok", ""),
    ],
)
def test_injected_faults_are_found(captured, sections, level, what):
    finding = worst(changed(captured, **sections))
    assert finding.level == level
    assert what in finding.what


def test_there_is_no_gpu_state_on_a_cpu():
    assert read_gpu("cpu") is None


@pytest.mark.parametrize(
    ("before", "after", "pid", "touched", "family", "own"),
    [
        ({7}, {7, 31}, 31, False, set(), {31}),  # NVML knows this process by its own number
        ({7}, {7, 31}, 5, False, set(), {31}),  # in a container it has another one: the one that came is this one
        ({7}, {7}, 5, False, set(), set()),  # a lone stranger is no reason to take it for this process
        (set(), set(), 5, False, set(), set()),  # NVML shows no processes at all
        (set(), {31, 32}, 5, False, set(), set()),  # two came at once: there is no telling
        ({31}, {31}, 5, True, set(), {31}),  # asked late, when this process was there already, and nobody else
        ({7, 31}, {7, 31}, 5, True, set(), set()),
        ({7}, {7, 31}, 5, False, {7}, {31}),  # a timing process beside the one that started it
        ({7, 31}, {7, 31}, 5, True, {7}, {31}),  # asked late: beside its family, one is left
        ({7, 8, 31}, {7, 8, 31}, 5, True, {7}, set()),
    ],
)
def test_this_process_is_told_apart_from_strangers_on_the_gpu(before, after, pid, touched, family, own):
    assert own_among(frozenset(before), frozenset(after), pid, touched, frozenset(family)) == own


def test_to_ask_who_is_who_does_not_start_cuda_first(monkeypatch):
    """``current_device`` would, and this process could no longer be known by its coming."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("starts CUDA"))
    monkeypatch.setattr(gpu_state, "_own_pids", lambda index: frozenset({100 + index}))
    monkeypatch.setenv(gpu_state.FAMILY, "7")
    assert own_processes(torch.device("cuda")) == {7, 100}
    assert own_processes(torch.device("cuda:1")) == {7, 101}


class Nvml(ModuleType):
    """NVML of a machine whose only device has one UUID, under one of its prefixes; what it lacks, it does not know."""

    NVMLError, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = LookupError, 0, 1, 0

    def __init__(self, prefix):
        super().__init__("pynvml")
        self.prefix = prefix

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != f"{self.prefix}-1234":
            raise LookupError(uuid)
        return uuid

    def nvmlDeviceIsMigDeviceHandle(self, handle):
        return int(handle.startswith("MIG"))

    def nvmlDeviceGetMigMode(self, handle):
        if handle.startswith("MIG"):
            raise LookupError("not of a part")
        return [0, 0]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 5000


@pytest.mark.parametrize(("prefix", "part"), [("GPU", False), ("MIG", True)])
def test_a_part_of_a_gpu_is_known_as_one_and_its_counter_is_found(prefix, part, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(prefix))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    monkeypatch.setattr(gpu_state, "own_processes", lambda device: frozenset())
    state = read_gpu("cuda:0")
    assert state.mig is part
    assert energy_counter("cuda:0").read() == [5.0]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="9"))
    assert "no device of this UUID" in energy_counter("cuda:0").reason, "another GPU's joules are nobody's"


@pytest.fixture
def machine(monkeypatch):
    """Two cores whose counters the test moves: seconds busy, stolen, and of our own process."""
    counters = SimpleNamespace(busy=100.0, steal=0.0, own=10.0, clock=0.0)
    times = psutil.cpu_times()._replace(**dict.fromkeys(psutil.cpu_times()._fields, 0.0))

    monkeypatch.setattr(psutil, "cpu_times", lambda: times._replace(user=counters.busy, steal=counters.steal))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(disturbance, "perf_counter", lambda: counters.clock)
    monkeypatch.setattr(DisturbanceWatch, "_own_seconds", lambda self: counters.own)
    return counters


@pytest.mark.parametrize(
    ("busy", "own", "steal", "queue", "expected"),
    [
        (10.0, 10.0, 0.0, 0.0, None),
        (11.0, 10.0, 0.0, 0.0, None),
        (20.0, 10.0, 0.0, 0.0, "other processes kept 1.00 of 2 cores busy"),
        (10.0, 10.0, 5.0, 0.0, "hypervisor took 50%"),
        (10.0, 10.0, 0.0, 0.3, "runnable without a core 30% of the time"),
        (10.0, 10.0, 0.0, None, None),
    ],
)
def test_a_neighbour_is_noticed_and_named(machine, busy, own, steal, queue, expected):
    watch = DisturbanceWatch("cpu")
    machine.busy += busy
    machine.own += own
    machine.steal += steal
    machine.clock += 10.0
    reasons = watch.finish(queue)
    assert (not reasons) if expected is None else (len(reasons) == 1 and expected in reasons[0])


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "equal models measure as equal"), (0.02, "the latency ratio of two copies of one model is 1.02")],
)
def test_self_test_passes_equal_copies_and_no_others(monkeypatch, share, words):
    """On a clock that passes only as models work: a millisecond, or a ``share`` more in the twin's turns."""
    now, true_turn = SimpleNamespace(ns=0, step=1e6), Session._run_reference

    def turn(session, size, clock_name, clock, engines, role):
        now.step = 1e6 * (1 + share * role)
        return true_turn(session, size, clock_name, clock, engines, role)

    def stream(self, images):
        now.ns += round(now.step)
        yield images.flatten(1)[:, :10]

    monkeypatch.setattr(clocks, "perf_counter_ns", lambda: now.ns)
    monkeypatch.setattr(clocks.RunDelay, "__call__", lambda self: 0)
    monkeypatch.setattr(PlainResNet, "stream", stream)
    monkeypatch.setattr(Session, "_run_reference", turn)
    report = self_test("cpu", seconds=0.3)
    assert report.passed == (share == 0)
    assert report.verdict.startswith(words)
    assert SelfTest.model_validate_json(report.model_dump_json()) == report
