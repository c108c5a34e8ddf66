"""The order and the end of timing rounds: each task once, the references after each, until the time ends."""

import numpy as np
import pytest

from anytime_bench.harness.rounds import Effort, Group, Task, run_rounds


def test_a_round_runs_every_task_once_and_the_copies_of_the_reference_after_each():
    log = []

    def run(name):
        return lambda: log.append(name) or {f"batch1_latency_{name}": np.array([1.0])}

    group = Group([Task(run("run_through")), Task(run("x")), Task(run("y"))], [run("reference"), run("twin")])
    result = run_rounds([group], 1, Effort(30, 0.01, 0.02), seed=0)
    each_round = [log[i : i + 9] for i in range(0, len(log), 9)]
    for each in each_round:
        assert set(each[::3]) == {"run_through", "x", "y"}
        assert (each[1::3], each[2::3]) in ((["reference"] * 3, ["twin"] * 3), (["twin"] * 3, ["reference"] * 3))
    firsts = [each[1] for each in each_round]
    assert {abs(firsts[i:].count("twin") - firsts[i:].count("reference")) for i in range(3, len(firsts))} == {0, 1}
    assert len({tuple(each[::3]) for each in each_round}) == 6, "in an order that changes"
    rounds = len(result.samples["batch1_latency_run_through"])
    assert rounds >= 30
    assert result.samples["batch1_latency_run_through"].shape == (rounds, 1, 1)
    assert result.samples["batch1_latency_twin"].shape == (rounds, 3)


def test_rounds_end_at_the_budget_when_noise_persists():
    rng = np.random.default_rng(0)

    def run(name):
        return lambda: {f"batch1_latency_{name}": rng.uniform(0.5, 1.5, 1)}

    group = Group([Task(run("run_through"))], [run("reference")])
    result = run_rounds([group], 1, Effort(30, 0.05, 0.02, 100.0), seed=0)
    assert result.stopped_because.startswith("the time of 0.05 s ended after")


@pytest.mark.parametrize("tail", [0.0, 0.05])
def test_one_inference_a_round_knows_a_latency_best(tail):
    """The same 360 inferences in rounds of one, two and three; a long tail does not move the median of the first."""
    rng = np.random.default_rng(0)

    def medians(inferences):
        shape = (4000, 360 // inferences, inferences)
        times = 1 + (rng.exponential(tail, shape) if tail else rng.normal(0, 0.05, shape))
        return np.median(np.median(times, axis=2), axis=1)

    one, two, three = (medians(inferences) for inferences in (1, 2, 3))
    assert 1.1 < three.std() / one.std() < 1.2
    truth = 1 + tail * np.log(2)
    assert abs(one.mean() / truth - 1) < 1e-3
    if tail:
        assert two.mean() / truth - 1 > 0.005


def test_rounds_go_on_until_the_copies_of_the_reference_compare():
    """Ratios to the mean of both copies are exact here; what differs is one copy from the other."""

    def copy(name, power):
        draws = np.random.default_rng(0).uniform(0.7, 1.4, 10**6)
        times = iter(draws**power)
        return lambda: {f"batch1_latency_{name}": np.array([next(times)])}

    group = Group([Task(lambda: {"batch1_latency_run_through": np.array([1.0])})], [copy("reference", 1.0)])
    assert "narrower" in run_rounds([group], 1, Effort(30, 0.3, 0.5), seed=0).stopped_because
    pair = Group(group.tasks, [copy("reference", 1.0), copy("twin", -1.0)])
    assert "ended" in run_rounds([pair], 1, Effort(30, 0.3, 0.02), seed=0).stopped_because
