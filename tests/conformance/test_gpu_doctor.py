"""``doctor --gpu``, tried on the CPU: what it finds, what a fault does to it, and what it says without a GPU."""

import json

import numpy as np
import pytest
import torch

from anytime_bench.conformance import gpu_correctness, gpu_doctor, gpu_speed
from anytime_bench.conformance.gpu_doctor import Scope, doctor_gpu, examine
from anytime_bench.conformance.gpu_lines import Line, failed, judged, table
from anytime_bench.harness.self_test import PlainResNet
from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.timing_summary import summarise
from baselines.cascade.model import CascadedResNet

CPU = torch.device("cpu")
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def cascade(schedule="parallel"):
    torch.manual_seed(0)
    # Narrower than eight channels, torch 2.15 writes past its memory in the backward pass on a CPU without AVX-512.
    return CascadedResNet(blocks=(1, 1), width=8, schedule=schedule).eval()


def by_what(lines):
    return {line.what: line for line in lines}


def test_answers_are_compared_in_both_precisions_and_across_devices():
    lines = by_what(gpu_correctness.answers_agree("x", cascade(), cascade("serial"), IMAGES, CPU))
    assert set(lines) == {
        "x: forward and stream, float64", "x: forward and eager, float64", "x: GPU and CPU, float64",
        "x: forward and stream, float32", "x: forward and eager, float32",
    }  # fmt: skip
    assert all(line.verdict == "holds" and line.correctness for line in lines.values())


def test_a_stream_that_answers_otherwise_fails_the_examination():
    class Wrong(CascadedResNet):
        def stream(self, images):
            for logits in super().stream(images):
                yield logits + 1e-6

    lines = list(
        gpu_correctness.answers_agree("x", Wrong(blocks=(1, 1), width=4).eval(), cascade("serial"), IMAGES, CPU)
    )
    assert by_what(lines)["x: forward and stream, float64"].verdict == "FAILS"
    assert failed(lines)
    assert not failed([Line("latency", "slow", "9 ms", verdict="FAILS")])


def test_statistics_are_moved_off_their_start_so_that_steps_differ():
    model = gpu_correctness.unsettled(cascade())
    rows = model.blocks[1].norm1.running_mean
    assert not torch.equal(rows[0], rows[1])


def test_corruptions_and_early_stop_agree_with_themselves():
    lines = list(gpu_correctness.corruption_bits(torch.rand(3, 3, 32, 32), CPU, "focus,fog"))
    assert [(line.what, line.measured) for line in lines] == [
        ("focus", "equal bits"), ("fog, severity 1", "equal bits"), ("fog, severity 5", "equal bits"),
    ]  # fmt: skip
    stops = list(gpu_correctness.stops_alike("x", cascade(), IMAGES, CPU, sizes=(1, 4)))
    assert [line.verdict for line in stops] == ["holds", "holds"]


def test_the_engine_is_judged_by_what_the_device_should_have():
    line = gpu_correctness.engine_line("x", cascade(), cascade("serial"), IMAGES[:1])
    assert (line.measured, line.expected, line.verdict) == ("engine: eager", "eager", "holds")
    assert not line.correctness


def test_training_is_compared_with_what_a_model_computes_densely():
    model = cascade()
    lines = list(gpu_speed.training_steps("x", model, CPU, (3, 16, 16), batch=4, rounds=1))
    kinds = [line.what.split(",")[0] for line in lines]
    assert kinds == ["x: dense recursion", "x: forward", *["x: dense recursion", "x: training"] * 2]
    assert all(line.predicted for line in lines if "training" in line.what)
    assert not model.training
    assert not list(gpu_speed.training_steps("x", cascade("serial"), CPU, (3, 16, 16), 4, 1))


@pytest.mark.parametrize("fast", [False, True])
def test_a_step_without_tf32_leaves_cudnn_on_and_its_backward_pass_is_inside(fast):
    seen = []

    def settings(gradient=None):
        switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        seen.append((torch.backends.cudnn.enabled, *switches))

    weight = torch.nn.Parameter(torch.ones(5, 4, 3))
    weight.register_hook(settings)
    model = torch.nn.Module()
    model.weight = weight

    def answers():
        settings()
        return weight * 2

    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    gpu_speed._step(model, answers, torch.tensor([0, 1, 2, 0]), CPU, optimiser, fast=fast)()
    assert seen == [(True, fast, fast)] * 2
    assert not torch.equal(weight, torch.ones(5, 4, 3)), "the optimiser has made its step"
    assert before == (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision)


def test_a_part_ends_with_the_line_in_which_time_is_over(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(gpu_doctor, "perf_counter", lambda: next(clock))

    def part():
        for number in range(5):
            yield Line("a", f"line {number}", "measured")

    whats = [line.what for line in gpu_doctor._within("a", 1.5, 2.5, [("x", part), ("y", part)])]
    assert whats == ["line 0", "line 1", "line 2", "x: the rest", "y"]


@pytest.mark.parametrize(("slower", "verdict"), [(1.3, "holds"), (1.7, "FAILS")])
def test_lanes_are_judged_by_all_answers_in_one_graph_not_by_the_last_one_alone(slower, verdict):
    """A cascade's ``answer(images, last)`` is a plain pass: its ratio of 1 says nothing of lanes."""
    lines = by_what(gpu_speed._lanes("x", SideBySide(), timing_of(slower)))
    one_graph = lines["x: all exits in one graph, device"]
    assert one_graph.verdict == verdict
    assert one_graph.values["value"] == pytest.approx(slower, rel=1e-4)
    assert lines["x: last exit, a graph per exit, latency"].verdict == "measured"
    assert all(line.predicted for what, line in lines.items() if "one lane" not in what)
    assert not list(gpu_speed._lanes("x", PlainResNet(), timing_of(slower))), "it has no lanes"


class SideBySide(PlainResNet):
    """Offers what a model with lanes offers on a GPU."""

    def executions(self):
        return {"one_lane": self.stream}


def timing_of(slower):
    """A GPU's timing: the reference takes 1 ms, all answers together ``slower``, the last one alone 1 ms."""
    one, exits = np.full((40, 5), 1e-3, np.float32), np.linspace(0.5, 1.0, 3, dtype=np.float32)
    samples = {}
    for clock in ("latency", "device_time"):
        samples[f"batch1_{clock}_reference"] = one
        samples[f"batch1_{clock}_run_through"] = slower * one[..., None] * exits
        samples[f"batch1_{clock}_prefix"] = one[..., None] * exits
    clocks = dict.fromkeys(("latency", "device_time"), "a test")
    stop = {clock: {"run_through": "real", "prefix": "real"} for clock in clocks}
    meta = TimingMeta(batch_sizes=[1], stopped_because={"1": "a test"}, clocks=clocks, stop=stop, engine="graph")
    return summarise(samples, meta)


@pytest.mark.slow
def test_the_whole_examination_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_doctor, "_sections", quick_sections)
    names, overrides = ("cascaded_td", "no_such_method"), ("options.width=8",)
    scope = Scope(CPU, minutes=1.0, names=names, overrides=overrides, training_batch=8)
    said = []
    assert doctor_gpu(scope, tmp_path, said.append)
    text, stored = (tmp_path / "gpu_doctor.md").read_text(), json.loads((tmp_path / "gpu_doctor.json").read_text())
    assert said[-1] == text
    assert text.splitlines()[2] == "| section | what | measured | expected | predicted | verdict |"
    sections = {line["section"] for line in stored["lines"]}
    assert {"environment", "answers", "engine", "latency", "training"} <= sections
    assert not stored["failed"]
    skipped = [line for line in stored["lines"] if line["verdict"] == "skipped"]
    assert any("no_such_method" in line["what"] for line in skipped)
    broken = [line for line in stored["lines"] if line["what"] == "broken"]
    assert "ValueError: no" in broken[0]["measured"]


def quick_sections(scope, models, reference):
    """The true sections, the slow ones cut short, one that breaks, and one that comes too late."""

    def breaks():
        raise ValueError("no")
        yield

    for title, _, parts in gpu_doctor_sections(scope, models, reference):
        if title in ("answers", "engine", "training"):
            yield title, 10.0, parts
    yield "latency", 10.0, [("broken", breaks)]
    yield "late", -1.0, [("too late", breaks)]


gpu_doctor_sections = gpu_doctor._sections


def test_what_comes_too_late_is_skipped_by_name(monkeypatch):
    monkeypatch.setattr(gpu_doctor, "_sections", quick_sections)
    lines, _, _ = examine(Scope(CPU, names=("serial_ce",), overrides=("options.width=8",)))
    (late,) = [line for line in lines if line.section == "late"]
    assert (late.what, late.verdict) == ("too late", "skipped")
    assert "--minutes" in late.measured


def test_a_table_has_one_line_per_finding():
    lines = [judged("a", "b|c", "one\ntwo", "x", True), Line("a", "d", "e", predicted="p")]
    text = table("A GPU", lines, 3.2)
    assert "| a | b/c | one two | x |  | holds |" in text
    assert "| a | d | e |  | p | measured |" in text
    assert "1 hold, 0 fail, 0 skipped; 3 s in all" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_one_line(capsys):
    from typer.testing import CliRunner

    from anytime_bench.cli.main import app

    result = CliRunner().invoke(app, ["doctor", "--gpu"])
    assert result.exit_code != 0
    assert "no CUDA device" in str(result.exception or result.output)
    assert "\n" not in str(result.exception or "")
