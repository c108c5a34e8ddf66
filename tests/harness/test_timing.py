"""The timing loop against models whose times are known exactly: here the clock is the models' own, so nothing waits."""

from itertools import groupby

import numpy as np
import pytest
import torch
from support.timed_models import Worker

from anytime_bench.harness import clocks, timing, timing_session
from anytime_bench.harness.eager import EngineError
from anytime_bench.harness.rounds import Effort
from anytime_bench.harness.self_test import PlainResNet
from anytime_bench.harness.timing import TimingSettings, in_precision, time_exits
from anytime_bench.harness.timing_block import Timing
from baselines.cascade.model import CascadedResNet

IMAGES = torch.randn(37, 1, 4, 4, generator=torch.Generator().manual_seed(3))


class WorksAhead(Worker):
    """Not a generator: all its work is done before the first answer is asked for."""

    def stream(self, images):
        return iter(list(super().stream(images)))


class YieldsLate(Worker):
    """Computes all exits and only then yields the first."""

    def stream(self, images):
        yield from list(super().stream(images))


class Wavering(Worker):
    """Answers something else the second time it sees an image."""

    calls = 0

    def stream(self, images):
        for logits in super().stream(images):
            self.calls += 1
            yield logits.roll(self.calls, dims=1)


class Tuner(Worker):
    """Sets what holds for the whole process while it answers."""

    def stream(self, images):
        torch.backends.cudnn.benchmark = True
        yield from super().stream(images)


def measure(model, reference, **options):
    return time_exits(model, reference, IMAGES, "cpu", TimingSettings(**{"budget_seconds": 0.2, **options}))


def test_settings_in_force_are_stated_and_a_change_of_them_is_told_and_put_back(fake_time, capsys):
    calm = measure(Worker(fake_time), Worker(fake_time), threads=1)
    assert calm.meta.settings.model_dump() == {
        "threads": 1, "default_dtype": "float32", "gradients": False, "float32_products": "highest",
        "deterministic": False, "cudnn_benchmark": False, "cudnn_deterministic": False,
    }  # fmt: skip
    tuned = measure(Tuner(fake_time), Worker(fake_time), threads=1)
    # A busy machine has reasons of its own.
    reasons = [[why for why in each.summary().headline.reasons if "settings" in why] for each in (calm, tuned)]
    assert reasons == [[], ["a model changed settings of torch while it was timed: cudnn_benchmark to True"]]
    assert tuned.meta.settings == calm.meta.settings
    assert not torch.backends.cudnn.benchmark
    assert "set cudnn.benchmark to True; it is False again" in capsys.readouterr().err


def times(summary, kind="run_through"):
    return [row.p50 for row in getattr(summary.latency, kind)]


def test_known_work_is_timed_exactly(fake_time):
    summary = measure(Worker(fake_time), Worker(fake_time, (2.0, 3.0, 5.0))).summary()
    np.testing.assert_allclose(times(summary), [1e-3, 3e-3, 7e-3], rtol=1e-6)
    np.testing.assert_allclose(times(summary, "prefix"), [1e-3, 3e-3, 7e-3], rtol=1e-6)
    assert summary.latency.reference_full.p50 == pytest.approx(10e-3)
    assert [row.value for row in summary.latency.ratio_to_reference] == pytest.approx([0.1, 0.3, 0.7])
    assert summary.latency.throughput == pytest.approx([1000, 1000 / 3, 1000 / 7])
    assert summary.headline.rounds == 30
    assert summary.headline.stopped_because == "every ratio's interval is narrower than 2.0% after 30 rounds"
    assert summary.latency.stop == "real"
    assert summary.clock("device_time") is None


@pytest.mark.parametrize("cheat", [WorksAhead, YieldsLate])
def test_work_done_ahead_is_exposed(fake_time, cheat):
    summary = measure(cheat(fake_time), Worker(fake_time)).summary()
    np.testing.assert_allclose(times(summary), [7e-3] * 3, rtol=1e-6)
    assert any("stopping early saves nothing" in note for note in summary.notes)
    assert not measure(Worker(fake_time), Worker(fake_time)).summary().notes


def test_time_that_varies_is_kept_sample_by_sample(fake_time):
    class Alternating(Worker):
        runs = 0

        def stream(self, images):
            self.runs += 1
            self.steps = (1.0, 1.0, 1.0) if self.runs % 2 else (2.0, 2.0, 2.0)
            return super().stream(images)

    timing = measure(Alternating(fake_time), Worker(fake_time))
    seen = np.unique(timing.samples["batch1_latency_run_through"][..., 0])
    # Unmeasured ones lie between the measured inferences, not always as many.
    np.testing.assert_allclose(seen, [1e-3, 2e-3], rtol=1e-6)


@pytest.mark.parametrize(("spent", "expected"), [(1.0, 9.0), (7.0, 3.0), (70.0, 3.0)])
def test_time_that_the_headline_leaves_goes_to_further_batch_sizes(fake_time, monkeypatch, spent, expected):
    """It may take longer than its share, but never theirs."""
    efforts, now = [], iter([0.0, spent, spent, spent])

    def measured(self, size, effort, *rest):
        efforts.append(effort.seconds)
        return run(self, size, Effort(2, 0.01, 0.0), *rest)

    run = timing_session.Session.measure
    monkeypatch.setattr(timing_session.Session, "measure", measured)
    monkeypatch.setattr(timing, "perf_counter", lambda: next(now))
    measure(Worker(fake_time), Worker(fake_time), budget_seconds=10.0, batch_sizes=(1, 8))
    assert efforts == pytest.approx([7.0, expected])


def test_where_an_exit_alone_is_timed_its_whole_network_runs_three_times_in_two_turns(fake_time):
    """Late layers run in few of the tasks: left to that they are colder than the reference's, and slower."""
    log = []

    class Logged(Worker):
        def stream(self, images):
            log.append([self, 0])
            for logits in super().stream(images):
                log[-1][1] += 1
                yield logits

    model, reference = Logged(fake_time), Logged(fake_time)
    timing = measure(model, reference, rounds=30, budget_seconds=0.01)
    turns = [(own, tuple(exits for _, exits in runs)) for own, runs in groupby(log, lambda run: run[0] is model)]
    turns = turns[: 2 * 4 * 30]
    methods = [exits for own, exits in turns if own]
    assert set(methods) == {(1, 1, 3), (2, 2, 3), (3, 1, 1, 3), (3, 2, 2, 3), (3, 3)}, "the last also as a run-through"
    alone = [len(exits) for exits in methods if len(exits) > 2]
    assert abs(alone.count(4) - alone.count(3)) <= 1
    assert {exits for own, exits in turns if not own} == {(3, 3, 3, 3)}, "two of the reference, two of its copy"
    assert timing.meta.answers_agree == 1.0


def test_answers_while_timing_are_those_of_the_accuracy_pass(fake_time):
    model = Worker(fake_time)
    timing = measure(model, Worker(fake_time), batch_sizes=(1, 8))
    with torch.inference_mode():
        expected = model(IMAGES).argmax(2).numpy()  # (E, N)
    for size in (1, 8):
        image, predictions = timing.samples[f"batch{size}_image"], timing.samples[f"batch{size}_predictions"]
        np.testing.assert_array_equal(predictions, expected[:, image].transpose(1, 0, 2))
    assert timing.meta.answers_agree == 1.0
    assert len(np.unique(timing.samples["batch1_image"])) > 10, "the same few images would invite a cache"


def test_answers_that_change_while_timing_are_not_comparable(fake_time):
    summary = measure(Wavering(fake_time), Worker(fake_time)).summary()
    assert not summary.comparable
    assert any("agree with an untimed pass" in reason for reason in summary.headline.reasons)


def test_models_and_random_state_are_left_alone(fake_time):
    model, reference = Worker(fake_time).train(), Worker(fake_time).train()
    model.heads[0].eval()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    threads = torch.get_num_threads()
    measure(model, reference, threads=2)
    assert model.training
    assert reference.training
    assert not model.heads[0].training
    assert torch.get_num_threads() == threads
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_bf16_and_flushed_cache_are_named():
    seen = []
    model = PlainResNet(width=4)
    settings = TimingSettings(budget_seconds=0.01, rounds=2, precision="bf16", cache="flushed")
    timing = time_exits(
        model, PlainResNet(width=4), torch.randn(5, 3, 8, 8), "cpu", settings,
        lambda share, what: seen.append((share, what)),
    )  # fmt: skip
    summary = timing.summary()
    assert (summary.meta.precision, summary.meta.cache) == ("bf16", "flushed")
    assert next(model.parameters()).dtype == torch.float32
    assert not summary.comparable, "two rounds compare nothing"
    assert [what for _, what in seen] == ["timing, batch 1"] * len(seen)
    assert seen[-1][0] == 1.0


def test_bf16_rounds_weights_and_spares_running_statistics():
    model = CascadedResNet(width=4, blocks=(1, 1))
    copied = in_precision(model, "bf16")
    kinds = {name: value.dtype for name, value in copied.state_dict().items()}
    assert kinds["stem.conv.weight"] == kinds["heads.0.weight"] == torch.bfloat16
    assert {kinds[name] for name in kinds if "norm" in name} == {torch.float32}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        answers, exact = torch.stack(list(copied.eval().stream(images.bfloat16()))), model.eval()(images)
    assert answers.dtype == torch.bfloat16
    torch.testing.assert_close(answers.float(), exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


def test_an_execution_that_this_engine_cannot_run_is_left_out_and_named(fake_time, monkeypatch):
    class Offers(Worker):
        def executions(self):
            return {"sound": self.stream, "broken": self.stream}

    made = timing_session.make_engine
    calls = []

    def refuse(name, model, images, stream=None, prefixes=()):
        calls.append(name)
        if len(calls) == 2:
            raise EngineError("no")
        return made(name, model, images, stream, prefixes)

    monkeypatch.setattr(timing_session, "make_engine", refuse)
    summary = measure(Offers(fake_time), Worker(fake_time)).summary()
    assert list(summary.latency.executions) == ["sound"]
    assert summary.notes == ["execution broken is not timed: no"]
    assert len(calls) == 2, "one engine per execution, whatever the number of clocks"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "graph"}, "need a CUDA device"),
        ({"engine": "fast"}, "expected one of auto, eager, compile, graph"),
        ({"precision": "fp16"}, "expected one of fp32, bf16"),
        ({"cache": "cold"}, "expected one of warm, flushed"),
        ({"batch_sizes": (0,)}, "at least 1"),
        ({"rounds": 0}, "above 0"),
    ],
)
def test_requests_that_cannot_be_measured(fake_time, options, message):
    with pytest.raises(ValueError, match=message):
        measure(Worker(fake_time), Worker(fake_time), **options)


def test_summary_is_json(fake_time):
    summary = measure(Worker(fake_time), Worker(fake_time), batch_sizes=(1, 4)).summary()
    assert Timing.model_validate_json(summary.model_dump_json()) == summary
    assert list(summary.batches) == ["1", "4"]
    assert summary.batches["4"].clocks["latency"].throughput[-1] == pytest.approx(4 / 7e-3)


def test_queue_wait_is_seen_and_left_out_of_ratios_only(monkeypatch, fake_time):
    waited = {"ns": 0}
    monkeypatch.setattr(clocks.RunDelay, "__call__", lambda self: waited["ns"])

    class Preempted(Worker):
        def stream(self, images):
            for logits in super().stream(images):
                fake_time.work(5)
                waited["ns"] += 5_000_000
                yield logits

    summary = measure(Preempted(fake_time), Worker(fake_time)).summary()
    np.testing.assert_allclose(times(summary), [6e-3, 13e-3, 22e-3], rtol=1e-6)
    assert [row.value for row in summary.latency.ratio_to_reference] == pytest.approx([1 / 7, 3 / 7, 1])
    assert any("without a core" in reason for reason in summary.headline.reasons)


class Displaced(Worker):
    """A copy of it takes a share more: where it lies in memory, say."""

    def __init__(self, time, steps, share):
        super().__init__(time, steps)
        self.share = share

    def __deepcopy__(self, memo):
        return Displaced(self.time, tuple(step * (1 + self.share) for step in self.steps), 0.0)


def test_copies_that_lie_elsewhere_are_still_equal_and_both_are_the_reference(fake_time):
    summary = measure(Worker(fake_time), Displaced(fake_time, (2.0, 3.0, 5.0), share=0.04)).summary()
    a_a = summary.latency.a_a
    assert a_a.value == pytest.approx(1.0)
    assert a_a.low == pytest.approx(a_a.high)
    assert not any("copies" in reason for reason in summary.headline.reasons)
    assert summary.latency.ratio_to_reference[2].value == pytest.approx(0.7 / 1.04**0.5)


def test_more_threads_are_timed_beside_where_they_are_faster(fake_time, monkeypatch):
    class Parallel(Worker):
        def stream(self, images):
            self.steps = tuple(step / torch.get_num_threads() for step in (1.0, 2.0, 4.0))
            return super().stream(images)

    monkeypatch.setattr(timing_session, "cores_at_hand", lambda: 4)
    model, reference = Parallel(fake_time), Worker(fake_time)
    summary = measure(model, reference, beside=("threads",), threads=1).summary()
    assert summary.meta.best_threads == 4
    assert [row.value for row in summary.latency.executions["threads_4"].ratio_to_reference] == pytest.approx(
        [1 / 28, 3 / 28, 7 / 28]
    )
    assert [row.value for row in summary.latency.ratio_to_reference] == pytest.approx([1 / 7, 3 / 7, 1])
    serial = measure(Worker(fake_time), reference, beside=("threads",), threads=1).summary()
    assert serial.meta.best_threads == 1
    assert not serial.latency.executions


def test_fixed_cost_is_told_from_cost_per_image(fake_time):
    class Batched(Worker):
        def stream(self, images):
            self.steps = (1.0, 1.0, 1.0 + 0.5 * len(images))
            return super().stream(images)

    summary = measure(Batched(fake_time), Worker(fake_time), batch_sizes=(1, 8), macs=(10, 20, 2000)).summary()
    dispatch = summary.dispatch
    assert dispatch.seconds == pytest.approx(3e-3)
    assert dispatch.seconds_per_image == pytest.approx(0.5e-3)
    assert dispatch.seconds_per_mac == pytest.approx(0.5e-3 / 2000)
    assert dispatch.share == pytest.approx(3 / 3.5)
    assert measure(Batched(fake_time), Worker(fake_time)).summary().dispatch is None
