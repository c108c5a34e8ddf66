"""The order and the end of timing rounds: each task once a pass, the references after each, until the time ends."""

import numpy as np
import pytest

from anytime_bench.harness.rounds import INFERENCES, Effort, Group, Task, run_rounds
from anytime_bench.harness.timing_summary import ratios_of


def test_a_pass_runs_every_task_once_and_the_copies_of_the_reference_after_each():
    log = []

    def run(name):
        return lambda: log.append(name) or {f"batch1_latency_{name}": np.array([1.0])}

    group = Group([Task(run("run_through")), Task(run("x")), Task(run("y"))], [run("reference"), run("twin")])
    result = run_rounds([group], 1, Effort(30, 0.01, 0.02), seed=0)
    passes = [log[i : i + 9] for i in range(0, len(log), 9)]
    for each in passes:
        assert set(each[::3]) == {"run_through", "x", "y"}
        assert (each[1::3], each[2::3]) in ((["reference"] * 3, ["twin"] * 3), (["twin"] * 3, ["reference"] * 3))
    firsts = [each[1] for each in passes]
    assert {abs(firsts[i:].count("twin") - firsts[i:].count("reference")) for i in range(3, len(firsts))} == {0, 1}
    assert len({tuple(each[::3]) for each in passes}) == 6, "in an order that changes"
    rounds = len(result.samples["batch1_latency_run_through"])
    assert rounds >= 30
    assert result.samples["batch1_latency_twin"].shape == (rounds, 3 * result.inferences)


def test_rounds_end_at_the_budget_when_noise_persists():
    rng = np.random.default_rng(0)

    def run(name):
        return lambda: {f"batch1_latency_{name}": rng.uniform(0.5, 1.5, 1)}

    group = Group([Task(run("run_through"))], [run("reference")])
    result = run_rounds([group], 1, Effort(30, 0.05, 0.02, 100.0), seed=0)
    assert result.stopped_because.startswith("the time of 0.05 s ended after")


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.1, 0.4])
def test_a_round_has_an_odd_number_of_inferences(seconds):
    group = Group([Task(lambda: {"batch1_latency_run_through": np.array([1.0])})], [
        lambda: {"batch1_latency_reference": np.array([1.0])}
    ])  # fmt: skip
    result = run_rounds([group], 1, Effort(30, seconds, 0.02), seed=0)
    assert result.inferences in INFERENCES
    assert result.inferences % 2 == 1


def test_an_even_number_of_inferences_would_measure_a_network_as_slower_than_itself():
    """Latencies have a long tail, which a mean of two catches and a median of twenty visits does not."""
    rng = np.random.default_rng(0)

    def ratio(inferences):
        shapes = {"run_through": (20_000, inferences, 1), "reference": (20_000, 20), "twin": (20_000, 20)}
        samples = {f"batch1_latency_{what}": 1 + rng.exponential(0.05, shape) for what, shape in shapes.items()}
        return np.median(ratios_of(samples))

    assert ratio(2) > 1.005
    for inferences in INFERENCES:
        assert abs(ratio(inferences) - 1) < 0.0025
