"""The board of one's own device: times from here, accuracies from records, and what says so in every file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import anytime_bench
from anytime_bench.errors import UserError
from anytime_bench.harness import energy
from anytime_bench.harness.load import LoadSettings
from anytime_bench.leaderboard.profile import about, figure, page, write_profile
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records import store
from anytime_bench.records.record import Record, TaskEntry
from anytime_bench.runs import profile as module
from anytime_bench.runs.display import Display
from anytime_bench.runs.load import load_on_method
from anytime_bench.runs.profile import CONFIDENCE, Profile, profile
from anytime_bench.scores.curve import auc, settle
from anytime_bench.tasks.loading import load_task
from anytime_bench.trace.answers import Trace
from tests.support import generated_records as generated

FAST = {"epochs": 1, "evaluation.timing_rounds": 0, "evaluation.resamples": 50}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, plugin_file: Path) -> Record:
    load_plugin(str(plugin_file))
    return anytime_bench.run(
        "two_exits", "digits", overrides=FAST, out=tmp_path_factory.mktemp("runs"), display=Display(quiet=True)
    )


@pytest.fixture(scope="module")
def here(record: Record) -> Profile:
    assert record.path is not None
    return profile("digits", records=record.path.parents[3], methods=["two_exits", "serial_ce"], seconds=2.0)


def test_accuracies_are_the_records_and_times_are_from_here(here: Profile, record: Record) -> None:
    row = next(row for row in here.rows if row.method == "two_exits")
    assert row.records == [record.record_id]
    assert [each.value for each in row.accuracy] == [entry.accuracy.value for entry in record.exits]
    assert len(row.seconds) == 2
    assert 0 < row.seconds[0] < row.seconds[1]
    assert record.path is not None
    trace = Trace.from_arrays(store.load_arrays(record.path, record), "test")
    cost = settle([each.value for each in row.ratio])
    assert row.auc_1 is not None
    assert row.auc_1.value == pytest.approx(float(auc(cost, trace.accuracy, 1.0, 0.1)))
    assert row.auc_1.low < row.auc_1.value < row.auc_1.high


def test_stopping_is_read_from_stored_answers_and_costs_what_it_takes_here(here: Profile, record: Record) -> None:
    row = next(row for row in here.rows if row.method == "two_exits")
    assert record.path is not None
    trace = Trace.from_arrays(store.load_arrays(record.path, record), "test")
    early = trace.confidence[0] >= CONFIDENCE
    expected = np.where(early, row.seconds[0], row.seconds[1]).mean()
    assert row.stop_seconds == pytest.approx(expected)
    assert row.stop_accuracy == pytest.approx(np.where(early, trace.correct[0], trace.correct[1]).mean())


def test_a_method_without_a_record_has_times_alone(here: Profile) -> None:
    row = next(row for row in here.rows if row.method == "serial_ce")
    assert row.records == row.accuracy == []
    assert row.auc_1 is None
    assert row.seconds[0] > 0
    assert here.rows[-1] is row, "what is known to be good stands first"


def test_every_file_says_what_was_measured_where(here: Profile, tmp_path: Path) -> None:
    text = " ".join(about(here))
    assert "with random weights" in text
    assert "Accuracies are not from here" in text
    assert "of 1 of 2 rows" in text
    assert here.source in text
    paths = write_profile(here, tmp_path)
    assert {path.suffix for path in paths} == {".md", ".csv", ".json", ".html", ".svg", ".png"}
    frame = pd.read_csv(next(path for path in paths if path.suffix == ".csv"))
    assert frame.label.tolist() == [row.label for row in here.rows]
    markdown = next(path for path in paths if path.suffix == ".md").read_text()
    assert "a profile, not a leaderboard" in markdown
    assert (".svg)" in markdown) == any(path.suffix == ".svg" for path in paths)
    unknown = here.model_copy(update={"rows": [row for row in here.rows if not row.accuracy]})
    bare = write_profile(unknown, tmp_path / "unknown")
    assert not any(path.suffix == ".svg" for path in bare)
    assert ".svg" not in next(path for path in bare if path.suffix == ".md").read_text(), "no figure, no link"
    assert Profile.model_validate(json.loads(next(p for p in paths if p.suffix == ".json").read_text())) == here
    assert "accuracies from records" in page(here)
    bare = here.model_copy(update={"rows": here.rows[-1:]})
    assert list(figure(bare)) == []
    assert "nothing is known of accuracies" in " ".join(about(bare))


def test_joules_are_an_axis_where_a_counter_is_and_a_reason_elsewhere(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record.path is not None
    spent = [0.0]

    def read() -> list[float]:
        spent[0] += 2.0
        return [spent[0]]

    monkeypatch.setattr(module, "energy_counter", lambda device: energy.Counter("made up", read, [None]))
    made = profile("digits", records=record.path.parents[3], methods=["two_exits"], seconds=1.0)
    assert made.energy == "made up"
    assert len(made.rows[0].joules) == 2
    assert made.rows[0].auc_joules is not None
    monkeypatch.setattr(module, "energy_counter", lambda device: energy.NoCounter("nobody counts"))
    silent = profile("digits", records=record.path.parents[3], methods=["two_exits"], seconds=1.0)
    assert silent.rows[0].joules == []
    assert "Energy: nobody counts." in about(silent)


def test_unknown_methods_and_nothing_to_time_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method 'serial_cee' is unknown.*serial_ce"):
        profile("digits", records=tmp_path, methods=["serial_cee"])


def test_a_load_tells_what_arrives_right_and_in_time_by_policy(record: Record) -> None:
    assert record.path is not None
    settings = LoadSettings(rate=0.5, deadline=50.0, requests=40, seconds=5.0)
    report = load_on_method(["two_exits"], settings, records=record.path.parents[3])
    assert [row.policy for row in report.policies] == ["exit 0", "exit 1", "ask", "run_ahead"]
    assert report.record == record.record_id
    for row in report.policies:
        assert row.goodput is not None
        assert row.goodput.value <= row.in_time.value
        assert 0 <= row.waited_p50 <= row.waited_p99
    bare = load_on_method(["serial_ce"], settings, records=None)
    assert bare.policies[0].goodput is None
    assert bare.record == ""


@pytest.mark.parametrize("names", [[], ["sdn", "msdnet"]])
def test_a_load_is_played_on_one_method(names: list[str]) -> None:
    with pytest.raises(UserError, match="plays against one method"):
        load_on_method(names, LoadSettings(rate=1.0))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf")])
def test_a_load_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="expected a number above 0"):
        LoadSettings(rate=rate)


def test_rows_are_those_of_the_newest_protocol_however_many_an_older_one_has(tmp_path: Path) -> None:
    task = load_task("digits")
    entry = TaskEntry.model_validate({**generated.make_record()[0].task.model_dump(), "name": "digits",
                                      "sha256": task.card.sha256})  # fmt: skip
    for name in ("plain", "sdn", "msdnet"):
        generated.save(tmp_path, name, images=60, change={"task": entry, "protocol_version": "7"})
    for seed in (0, 1):
        generated.save(tmp_path, "plain", seed=seed, change={"task": entry, "protocol_version": "8"})
    (newest,) = module._rows_of(tmp_path, task)
    assert [each.record.protocol_version for each in newest] == ["8", "8"]
