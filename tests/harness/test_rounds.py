"""The order and the end of timing rounds: each task once a pass, the reference after each, until the time ends."""

import numpy as np

from anytime_bench.harness.rounds import Effort, Group, Task, run_rounds


def test_a_pass_runs_every_task_once_and_a_copy_of_the_reference_after_each():
    log = []

    def run(name):
        return lambda: log.append(name) or {f"batch1_latency_{name}": np.array([1.0])}

    group = Group([Task(run("run_through")), Task(run("x")), Task(run("y"))], [run("reference"), run("twin")])
    result = run_rounds([group], 1, Effort(30, 0.01, 0.02), seed=0)
    passes = [log[i : i + 7] for i in range(0, len(log), 7)]
    for each in passes:
        assert each[1::2] == ["reference", "twin", "reference"], "in turn, one after each task"
        assert each[6] == "twin", "both as often as each other"
        assert {each[0], each[2], each[4]} == {"run_through", "x", "y"}
    assert len({tuple(each) for each in passes}) == 6, "in an order that changes"
    rounds = len(result.samples["batch1_latency_run_through"])
    assert rounds >= 30
    assert result.samples["batch1_latency_twin"].shape == (rounds, 2 * result.inferences)


def test_rounds_end_at_the_budget_when_noise_persists():
    rng = np.random.default_rng(0)

    def run(name):
        return lambda: {f"batch1_latency_{name}": rng.uniform(0.5, 1.5, 1)}

    group = Group([Task(run("run_through"))], [run("reference")])
    result = run_rounds([group], 1, Effort(30, 0.05, 0.02, 100.0), seed=0)
    assert result.stopped_because.startswith("the time of 0.05 s ended after")
