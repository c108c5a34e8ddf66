"""Compiled models: what is compiled, the same answers, and the compiled reference beside."""

import pytest
import torch

from anytime_bench.harness import clocks
from anytime_bench.harness.eager import Compiled, directly_called
from anytime_bench.harness.self_test import PlainResNet
from anytime_bench.harness.timing import TimingSettings, time_exits


def test_only_modules_called_by_the_stream_itself_are_compiled():
    model = PlainResNet(width=4)
    called = directly_called(model, torch.randn(1, 3, 8, 8))
    assert called == [model.stem, *model.blocks, model.head]


@pytest.mark.slow
def test_compiled_engine_gives_the_same_answers():
    model, images = PlainResNet(width=4).eval(), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        engine = Compiled(model, images)
        engine.run_through(clocks.HostClock(torch.device("cpu")))
        torch.testing.assert_close(engine.answers[0], model(images)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_is_compared_with_the_compiled_reference():
    model, reference, images = PlainResNet(width=4), PlainResNet(width=4), torch.randn(5, 3, 8, 8)
    settings = TimingSettings(budget_seconds=0.3, rounds=4, beside=("compile",), threads=1)
    summary = time_exits(model, reference, images, "cpu", settings).summary()
    compiled = summary.latency.executions["compile"]
    assert not summary.notes
    assert compiled.reference_full.p50 > 0
    assert 0.5 < compiled.ratio_to_reference[0].value < 2
