"""Tampering is caught, whatever was sealed anew, and the verbs exit as they say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import generated_records as generated
from support.forged_records import faults_of, reseal
from typer.testing import CliRunner

from anytime_bench.cli.records import leaderboard as leaderboard_app
from anytime_bench.cli.records import mount
from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.protocol import PROTOCOLS
from anytime_bench.records.publish import publish
from anytime_bench.records.record import PROTOCOL_VERSION
from anytime_bench.records.verify import differences
from anytime_bench.runs.agreement import timed_differently
from anytime_bench.scores import run_scores
from anytime_bench.scores.catalogue import SCORES, register_score


def test_an_honest_record_holds(path: Path) -> None:
    assert faults_of(path) == []


def test_one_digit_changed_in_a_score_breaks_the_hash(path: Path) -> None:
    text = path.read_text()
    value = json.loads(text)["scores"]["macs"]["auc_1"]["value"]
    digit = str(value)[-1]
    path.write_text(text.replace(str(value), str(value)[:-1] + str((int(digit) + 1) % 10), 1))
    assert "altered" in faults_of(path)[0]


def test_a_swapped_trace_is_caught(tmp_path: Path, path: Path) -> None:
    other = generated.save(tmp_path, "other", skill=0.9)
    shutil.copyfile(other.with_suffix(".npz"), path.with_suffix(".npz"))
    assert "altered" in faults_of(path)[0]
    path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:-7])
    assert "altered" in faults_of(path)[0]
    path.with_suffix(".npz").unlink()
    assert "missing" in faults_of(path)[0]


def test_a_superseded_record_may_lose_its_arrays_and_no_other(tmp_path: Path, path: Path) -> None:
    change = {"supersedes": path.stem, "created": "2026-01-02T00:00:00Z"}
    new = generated.save(tmp_path, store.load(path).method.name, change=change)
    path.with_suffix(".npz").unlink()
    assert faults_of(path) == faults_of(new) == []
    new.with_suffix(".npz").unlink()
    assert "missing" in faults_of(new)[0]


def test_another_schema_version_and_an_unknown_key_are_refused(path: Path) -> None:
    data = json.loads(path.read_text())
    assert "surprise" in faults_of(reseal(path, lambda d: d.update(surprise=1), keep=True))[0]
    path.write_text(json.dumps({**data, "schema_version": 3}))
    assert "schema version 3" in faults_of(path)[0]
    path.write_text(path.read_text()[:100])
    assert "not readable JSON" in faults_of(path)[0]


def test_another_protocol_is_not_judged_by_this_one(path: Path) -> None:
    (fault,) = faults_of(reseal(path, lambda data: data.update(protocol_version="0")))
    assert "protocol 0" in fault


def test_a_duplicate_is_caught_even_under_another_seed_and_date(tmp_path: Path) -> None:
    path = generated.save(tmp_path / "a", "quick")
    kept = tmp_path / "kept" / path.relative_to(tmp_path / "a")
    shutil.copytree(path.parent, kept.parent)

    def pretend(data: dict[str, Any]) -> None:
        data["training"]["seed"] = 1
        data["created"] = "2026-02-02T00:00:00Z"

    twin = reseal(path, pretend)
    assert faults_of(twin) == []  # Alone nothing gives it away.
    (fault,) = faults_of(kept, twin)
    assert "duplicate" in fault
    assert twin.name in fault
    result = publish([twin], tmp_path / "kept")
    assert "duplicate" in result.faults[0]
    assert not result.files


def test_noise_scores_are_derived_anew(tmp_path: Path) -> None:
    from anytime_bench.trace.noise import NoiseRun, pack

    rng = np.random.default_rng(0)
    cost = {"ticks": np.array([1.0, 2.0]), "macs": np.array([1e6, 2e6])}
    runs = [
        NoiseRun(kind, 0, mode, "onset", rng.random((2, 400)) < share, cost)
        for kind, mode, share in (
            ("clean", "clean", 0.9),
            ("focus", "persistent", 0.6),
            ("occlusion", "persistent", 0.3),
        )
    ]
    path = generated.save(tmp_path, "noisy", extra=pack(runs, 10))
    assert faults_of(path) == []
    record = store.load(path)
    assert record.robustness.rows[0].kept.value == pytest.approx(0.66, abs=0.1)
    from anytime_bench.leaderboard.build import boards

    (placed,) = boards(tmp_path)
    clean = record.robustness.clean["onset"].final_accuracy.value
    left = [(row.final_accuracy.value - 0.1) / (clean - 0.1) for row in record.robustness.rows]
    (row,) = placed.board.rows
    assert row.noise is not None
    assert row.noise.mean is not None
    assert row.noise.mean.value == pytest.approx(np.mean(left), abs=2e-5)

    def forge(data: dict[str, Any]) -> None:
        data["robustness"]["rows"][0]["kept"]["value"] = 0.99

    assert any("robustness.rows[0].kept" in fault for fault in faults_of(reseal(path, forge)))


def test_differences_forgive_the_last_decimal_only() -> None:
    assert differences({"a": [0.1234567891]}, {"a": [0.1234567892]}, "x") == []
    assert differences({"a": [0.1234567891]}, {"a": [0.1234567894]}, "x") == [
        "x.a[0] is 0.1234567891, its raw data give 0.1234567894"
    ]
    assert differences({"a": True}, {"a": 1.0}, "x")
    assert differences({"a": 1}, {}, "x") == ["x.a is 1, its raw data give missing"]
    assert differences({}, {"a": 1}, "x") == [], "what a record does not state is not compared"


def test_a_score_learned_later_is_no_fault_of_an_older_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_scores, "AREAS", (*run_scores.AREAS, ("auc_4", 4.0, False)))
    with SCORES.temporary():
        register_score("error", lambda trace, cost: 1 - trace.accuracy)
        assert faults_of(path) == []
        older = PROTOCOLS[PROTOCOL_VERSION]
        stricter = replace(older, demands=(*older.demands, "scores.macs.auc_4", "exits.scores.error"))
        monkeypatch.setitem(PROTOCOLS, PROTOCOL_VERSION, stricter)
        faults = faults_of(path)
    demanded = f"is missing, protocol {PROTOCOL_VERSION} demands it"
    assert faults[0] == f"record '{path}': scores.macs.auc_4 {demanded}"
    assert faults[1] == f"record '{path}': exits[0].scores.error {demanded}"


def test_retiming_forgives_chance_and_nothing_else() -> None:
    was, near, far = (generated.make_record(exits=1, speed=speed)[0].timing for speed in (1.0, 1.1, 1.6))
    assert timed_differently(was, near) == []
    assert "exit 0" in timed_differently(was, far)[0]


def command(*arguments: str) -> Any:
    import typer

    app = typer.Typer()
    mount(app)
    return CliRunner().invoke(app, list(arguments))


def test_the_verbs_exit_as_they_say(tmp_path: Path, path: Path) -> None:
    results = tmp_path / "results"
    done = command("publish", str(path), "--results", str(results))
    assert done.exit_code == 0
    assert "git add" in done.output
    boards = ["--results", str(results), "--out", str(tmp_path / "boards")]
    assert CliRunner().invoke(leaderboard_app, ["build", *boards]).exit_code == 0
    assert CliRunner().invoke(leaderboard_app, ["check", *boards]).exit_code == 0
    (tmp_path / "boards/made_up/generated-cpu.md").write_text("edited")
    differs = CliRunner().invoke(leaderboard_app, ["check", *boards])
    assert differs.exit_code == 3
    assert "generated-cpu.md" in differs.output
    assert "anytime-bench leaderboard build" in differs.output
    assert command("verify", str(results)).exit_code == 0
    same = command("compare", str(path), str(results))
    assert same.exit_code == 0
    assert "auc_1[macs]" in same.output
    assert "better" not in same.output
    assert command("report", str(path), "--out", str(tmp_path / "page.html")).exit_code == 0
    path.write_text(path.read_text().replace("Made-up", "Made-Up"))
    forged = command("verify", str(path))
    assert forged.exit_code == 1
    assert "0 of 1 records hold" in forged.output
    assert isinstance(command("leaderboard", "build", "--results", str(tmp_path / "nowhere")).exception, UserError)
