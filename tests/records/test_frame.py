"""``load_results``: one line per record and exit, the numbers of the records, and only records that count."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import generated_records as generated

import anytime_bench
from anytime_bench.analysis.answers import load_answers
from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.compare import compare_records
from anytime_bench.records.frame import exit_means
from anytime_bench.scores.catalogue import SCORES, register_score

SCHEMA1 = Path(__file__).parents[1] / "golden" / "schema1"


def test_a_line_is_an_exit_of_a_record_with_its_numbers(tmp_path: Path) -> None:
    records = [store.load(path) for path in generated.fill(tmp_path, methods=2, seeds=2, exits=3, images=100)]
    frame = anytime_bench.load_results(tmp_path)
    assert len(frame) == 4 * 3
    assert frame.groupby("row")["seed"].agg(set).tolist() == [{0, 1}, {0, 1}]
    for record in records:
        lines = frame[frame["record"] == record.record_id].set_index("exit")
        assert lines.index.tolist() == [0, 1, 2]
        for entry in record.exits:
            line = lines.loc[entry.k]
            assert (line["accuracy"], line["accuracy_low"]) == (entry.accuracy.value, entry.accuracy.low)
            assert line["cost_macs"] == entry.macs
            assert line["relative_macs"] == entry.macs / record.reference.costs["macs"]
            assert line["ece"] == entry.scores["ece"]
        assert set(lines["auc_2_latency"]) == {record.timed_scores["latency"]["auc_2"].value}


def test_the_published_record_of_schema_1_reads_alike() -> None:
    frame = anytime_bench.load_results(SCHEMA1)
    assert frame["exit"].tolist() == [0, 1, 2, 3]
    assert frame["cost_latency"].is_monotonic_increasing
    assert {"task", "device", "method", "span_macs"} - set(frame) == {"span_macs"}  # Not measured, so no column.


def test_superseded_records_and_runs_without_results_have_no_lines(tmp_path: Path) -> None:
    record, arrays = generated.make_record("quick", exits=2, images=100)
    first = store.load(store.save(tmp_path, record, arrays))
    later = record.model_copy(update={"supersedes": first.record_id, "created": "2026-02-02T00:00:00Z"})
    second = store.save(tmp_path, later, arrays)
    store.save(tmp_path, generated.failed(record, reason="it diverged"), {})
    assert set(anytime_bench.load_results(str(tmp_path))["record"]) == {second.stem}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no record below"):
        anytime_bench.load_results(empty)


def test_means_over_seeds_are_missing_where_a_seed_lacks_the_number() -> None:
    with SCORES.temporary():
        register_score("last", lambda trace, cost: trace.accuracy[-1:].repeat(trace.num_exits))
        both = [generated.make_record("quick", seed=seed, exits=2, images=100)[0] for seed in (0, 1)]
    older, _ = generated.make_record("quick", seed=2, exits=2, images=100)
    means = exit_means(both)
    expected = (both[0].exits[1].scores["last"] + both[1].exits[1].scores["last"]) / 2
    assert means["last"].tolist() == pytest.approx([expected, expected])
    assert exit_means([*both, older])["last"].isna().all()
    assert exit_means([*both, older])["accuracy"].notna().all()


def test_a_failed_record_hides_no_result_in_any_reading(tmp_path: Path) -> None:
    """As on a board: only results replace results."""
    record, arrays = generated.make_record("quick", exits=2, images=100)
    path = store.save(tmp_path, record, arrays)
    store.save(tmp_path, generated.failed(record, reason="it diverged", supersedes=path.stem), {})
    rival = store.save(tmp_path, generated.make_record("rival", exits=2, images=100)[0], arrays)
    assert set(anytime_bench.load_results(path.parent)["record"]) == {path.stem}
    assert [each.path for each in load_answers([path.parent])] == [path]
    assert compare_records(path.parent, rival).a == "quick, 1 seed"
