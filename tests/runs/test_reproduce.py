"""A record's run done again is bit-equal, agrees within intervals, or is named with everything that differs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support import small_run

from anytime_bench.records import store
from anytime_bench.runs.agreement import BIT_EQUAL, WITHIN, like, trained_differently
from anytime_bench.runs.display import Display
from anytime_bench.runs.reproduce import rebuild, retrain

QUIET = Display(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Record, its plugin, and the record and arrays of the same run with another seed."""
    folder = tmp_path_factory.mktemp("made")
    record, plugin = small_run.make(folder)
    other, _ = small_run.make(folder, seed=1)
    return record, plugin, other


def elsewhere(record):
    """The same record, said to come from another processor."""
    environment = record.environment.model_dump()
    environment["cpu"] = {**environment["cpu"], "model": "another"}
    return record.model_copy(update={"environment": type(record.environment)(**environment)})


def test_a_run_done_again_is_bit_equal(made):
    record, plugin, _ = made
    with small_run.loaded(plugin):
        assert rebuild(record.path, display=QUIET).faults == ()
        agreement = retrain(record.path, display=QUIET)
    assert agreement.faults == ()
    assert agreement.verdict == f"record '{record.path}': trained again, {BIT_EQUAL}"


@pytest.mark.parametrize("again", [rebuild, retrain])
def test_an_altered_plugin_fails_and_what_differs_is_named(made, tmp_path, again):
    record, plugin, _ = made
    altered = tmp_path / plugin.name
    altered.write_text(plugin.read_text().replace("WIDTHS = (4, 8, 16)", "WIDTHS = (4, 8, 8)"))
    with small_run.loaded(altered):
        faults = again(record.path, display=QUIET).faults
    for words in ("other code", "parameters is", "macs of exit 2", "reference.costs.macs"):
        assert any(words in fault for fault in faults), faults
    assert not any("exit 0" in fault or "ticks" in fault for fault in faults)


def test_a_moved_or_commented_plugin_is_the_same(made, tmp_path):
    record, plugin, _ = made
    moved = tmp_path / "renamed.py"
    shutil.copyfile(plugin, moved)
    moved.write_text(moved.read_text() + "\n# a comment\n")
    with small_run.loaded(moved):
        assert rebuild(record.path, display=QUIET).faults == ()


def test_on_a_like_machine_every_bit_counts_and_elsewhere_chance_is_forgiven(made):
    record, _, other = made
    arrays, others = (store.load_arrays(each.path, each) for each in (record, other))
    assert like(record, other)
    assert trained_differently(record, arrays, record, arrays).verdict == BIT_EQUAL
    faults = trained_differently(record, arrays, other, others).faults
    assert any("weights_sha256" in fault for fault in faults)
    assert any("test_predictions of exit 0, 1, 2" in fault for fault in faults)
    # The same other seed could be this one on another processor.
    assert trained_differently(elsewhere(record), arrays, other, others).verdict == WITHIN
    right = {**arrays, "test_predictions": np.tile(arrays["test_labels"], (3, 1))}
    perfect = trained_differently(elsewhere(record), right, other, others).faults
    assert sum("test accuracy" in fault for fault in perfect) == 3
    # Weights that are the same everywhere give the same answers everywhere.
    one = {**arrays, "test_predictions": arrays["test_predictions"].copy()}
    one["test_predictions"][0, :4] += 1
    (fault,) = trained_differently(elsewhere(record), one, record, arrays).faults
    assert "other test predictions" in fault


def test_what_a_record_says_of_its_training_is_compared(made):
    record, _, _ = made
    arrays = store.load_arrays(record.path, record)
    for change in ({"final_losses": [0.1, 0.2]}, {"precision": "bf8"}, {"weights_sha256": "a" * 64}):
        lie = record.model_copy(update={"training": record.training.model_copy(update=change)})
        (fault,) = trained_differently(lie, arrays, record, arrays).faults
        assert next(iter(change)) in fault
    fewer = {name: values for name, values in arrays.items() if not name.startswith("noise_")}
    assert any("noise_correct" in fault for fault in trained_differently(record, fewer, record, arrays).faults)
