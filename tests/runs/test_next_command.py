"""What a run tells its user to type next: after a failure the run's own command, corrected."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import anytime_bench
from anytime_bench.registry import methods
from anytime_bench.runs.display import Display
from anytime_bench.runs.pipeline import next_command
from anytime_bench.scores.catalogue import SCORES, register_score

FAST = {"epochs": 1, "batch_size": 48, "timing_rounds": 0, "resamples": 20, "reference": "two_exits"}
COMMAND = "anytime-bench run --plugin 'my file.py' -m two_exits training.lr=0.2 lr=0.5 epochs=1 --out there"


@pytest.fixture
def run(tiny_task, tmp_path, plugin_file):
    def call(command=COMMAND, **overrides):
        record = anytime_bench.run(
            "two_exits", tiny_task, overrides={**FAST, **overrides}, out=tmp_path, command=command,
            display=Display(quiet=True),
        )  # fmt: skip
        return record, next_command(record, record.path)

    with methods.temporary(empty=True), SCORES.temporary():
        anytime_bench.load_plugin(str(plugin_file))
        yield call


def test_a_training_that_diverged_is_repeated_as_it_was_with_a_tenth_of_its_rate(run):
    record, command = run(lr=1e30)
    assert (record.status, record.training.recipe["training"]["lr"]) == ("failed", 1e30)
    assert command == "anytime-bench run --plugin 'my file.py' -m two_exits epochs=1 --out there training.lr=1e+29"
    _, command = run("anytime_bench.run('two_exits', 'tiny')", lr=1e30)
    assert command == "override training.lr=1e+29 in: anytime_bench.run('two_exits', 'tiny')"


def test_a_score_that_raises_is_corrected_where_it_raised_and_the_weights_are_used_again(run):
    register_score("broken", lambda trace, cost: math.sqrt(-trace.accuracy))
    record, command = run()
    line = record.reason.split(": ")[0]
    assert line.startswith(f"{Path(__file__)}:")
    assert command == f"correct {line.removeprefix(f'{Path.cwd()}/')}, then: {COMMAND} --resume"
    assert next_command(record.model_copy(update={"command": f"{COMMAND} --resume"}), record.path) == command


def test_a_run_that_went_well_is_reported_and_a_fault_without_a_line_of_the_users_names_none(run):
    record, command = run("x")
    assert command.startswith("anytime-bench report ")
    assert record.path.name in command
    failed = record.model_copy(update={"status": "failed", "training": None, "command": "anytime_bench.run('a', 'b')"})
    for reason in ("exit 1 answers NaN", f"{anytime_bench.__file__}:3: ValueError: no"):
        suggested = next_command(failed.model_copy(update={"reason": reason}), record.path)
        assert suggested == "correct what it names, then: anytime_bench.run('a', 'b', resume=True)"
