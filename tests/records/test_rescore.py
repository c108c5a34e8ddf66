"""Rescoring: new scores from old arrays, in a new record; what was measured stays, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from support import generated_records as generated
from typer.testing import CliRunner

from anytime_bench.cli.records import mount
from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.consistency import read_entries
from anytime_bench.records.entries import groups
from anytime_bench.records.record import Derived
from anytime_bench.records.rescore import rescore, rescore_all
from anytime_bench.records.verify_all import verify_paths
from anytime_bench.scores.catalogue import SCORES, register_score

GOLDEN = Path(__file__).parents[1] / "golden" / "schema1"
#: What rescoring may change; all else is what the run measured, counted and trained.
CHANGED = {*Derived.model_fields, "record_id", "created", "suite_version", "supersedes", "added", "artifacts"}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of the published record of schema 1."""
    shutil.copytree(GOLDEN, tmp_path / "store")
    (path,) = (tmp_path / "store").rglob("*.json")
    return path


def faults_of(folder: Path) -> list[str]:
    return [fault for _, faults in verify_paths(list(store.find(folder))) for fault in faults]


def test_a_published_record_of_schema_1_gets_todays_scores_and_keeps_its_measurements(published: Path) -> None:
    old = store.load(published)
    made = rescore(published).made
    assert made is not None
    assert made.parent == published.parent
    new = store.load(made)
    assert json.loads(made.read_text())["schema_version"] == 2
    assert new.supersedes == old.record_id
    # Its rounds hold no A/A and it was timed in one process: new scores do not make it a record of another protocol.
    assert new.protocol_version == old.protocol_version == "1"
    assert old.stopping is not None
    assert new.stopping is not None
    assert set(old.stopping.budgets) == {"confidence"}
    assert {"confidence", "patience", "risk_control", "oracle"} <= set(new.stopping.budgets)
    assert {k: v for k, v in new.content().items() if k not in CHANGED} == {
        k: v for k, v in old.content().items() if k not in CHANGED
    }
    before, after = (store.load_arrays(path, store.load(path)) for path in (published, made))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert faults_of(published.parents[3]) == []


def test_boards_count_the_new_record_and_not_the_old_one(published: Path) -> None:
    made = rescore(published).made
    (group,) = groups(read_entries(published.parents[3]))
    assert [entry.path for entry in group.entries] == [made]


def test_rescoring_twice_changes_nothing(published: Path) -> None:
    made = rescore(published).made
    assert made is not None
    files = sorted(published.parent.iterdir())
    again, new = rescore(published), rescore(made)
    assert (again.made, again.fault, new.made, new.fault) == (None, False, None, False)
    assert again.reason == f"record '{published}' is superseded by '{made.name}' already. Give that one."
    assert new.reason == f"record '{made}' states already what today's scores give."
    assert sorted(published.parent.iterdir()) == files


def test_a_score_of_a_plugin_joins_a_record_and_is_not_lost_without_the_plugin(tmp_path: Path) -> None:
    path = generated.save(tmp_path, "quick")
    assert rescore(path).made is None
    with SCORES.temporary():
        register_score("error", lambda trace, cost: 1 - trace.accuracy)
        made = rescore(path).made
        assert made is not None
        new = store.load(made)
        assert [entry.scores["error"] for entry in new.exits] == pytest.approx(
            [1 - entry.accuracy.value for entry in new.exits]
        )
        assert "score error" in new.added
        register_score("twice", lambda trace, cost: 2 * trace.accuracy)
        last = rescore(made).made
        assert last is not None
        assert faults_of(tmp_path) == []  # A correction of a correction is no duplicate of the first record.
    with pytest.raises(UserError, match=r"comes from .* give its file with --plugin"):
        rescore(last)


def test_rules_learn_where_that_is_asked_for(tmp_path: Path) -> None:
    path = generated.save(tmp_path, "quick", exits=3, images=120)
    made = rescore(path, learn=True).made
    assert made is not None
    new = store.load(made)
    assert new.stopping is not None
    assert {"trace_gru", "eenet"} <= set(new.stopping.budgets)
    assert any(name.startswith("rule_trace_gru.") for name in store.load_arrays(made, new))
    assert faults_of(tmp_path) == []
    assert rescore(made, learn=True).made is None


def test_one_that_cannot_be_rescored_is_said_in_one_line_and_keeps_no_other_from_it(tmp_path: Path) -> None:
    good = generated.save(tmp_path / "a", "quick", seed=1, change={"stopping": None})
    damaged = generated.save(tmp_path / "a", "quick", seed=2)
    damaged.with_suffix(".npz").write_bytes(b"no archive")
    record, _ = generated.make_record("quick")
    failed = store.save(tmp_path / "a", generated.failed(record, reason="it diverged"), {})
    misplaced = tmp_path / "b" / good.name
    misplaced.parent.mkdir()
    for suffix in (".json", ".npz"):
        shutil.copy(good.with_suffix(suffix), misplaced.with_suffix(suffix))
    other = generated.save(tmp_path / "a", "quick", seed=3, change={"protocol_version": "0"})
    results = list(rescore_all([good, damaged, failed, misplaced, other]))
    assert [bool(result.made) for result in results] == [True, False, False, False, False]
    assert [result.fault for result in results] == [False, True, False, True, True]
    for result, words in zip(results, ("", "was altered", "has no scores", "belongs into", "protocol 0"), strict=True):
        assert words in result.reason
        assert "\n" not in result.reason


def test_the_verb_prints_paths_or_json_and_its_status(published: Path) -> None:
    app = typer.Typer()
    mount(app)

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["rescore", str(published.parents[3]), *arguments])

    first = call("--json")
    assert first.exit_code == 0
    (result,) = json.loads(first.stdout)
    assert Path(result["made"]).is_file()
    again = call()
    assert again.exit_code == 0
    assert len(again.stdout.splitlines()) == 2
    published.with_suffix(".npz").unlink()
    published.with_name(Path(result["made"]).name).unlink()
    missing = call()
    assert missing.exit_code == 1
    assert "is missing" in missing.output
