"""Rows whose times may not be compared: shown, said to be so, and in no rank."""

from __future__ import annotations

from pathlib import Path

from support import generated_records as generated

from anytime_bench.harness.span_summary import SpanMeta
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.text import to_markdown
from anytime_bench.records import store
from anytime_bench.records.consistency import read_entries
from baselines.reproduction.evidence import Row


def test_untimed_rows_are_shown_with_the_reason_and_not_ranked(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    generated.save(tmp_path, "fast_but_disturbed", speed=9.0, skill=0.9, timed=False)
    (placed,) = boards(tmp_path)
    board = placed.board
    (row,) = (row for row in board.rows if row.label == "fast_but_disturbed")
    assert row.place is None
    assert board.rows[-1] is row or row.axes["macs"].auc_1.value > board.rows[-1].axes["macs"].auc_1.value
    assert "another process" in row.unranked
    text = to_markdown(board, "generated-cpu", [])
    assert "fast_but_disturbed: another process used the device" in text
    assert (
        "no rank rests on it: latency of fast_but_disturbed; span of fast_but_disturbed. The records say why." in text
    )
    assert (
        "no rank rests on it: latency of fast_but_disturbed; span of fast_but_disturbed. The records say why."
        in board_page(board)
    )


def test_without_any_comparable_time_macs_rank(tmp_path: Path) -> None:
    for seed in range(5):
        generated.save(tmp_path, "plain", seed=seed, timed=False)
        generated.save(tmp_path, "quick", seed=seed, skill=0.95, timed=False)
    (placed,) = boards(tmp_path)
    board = placed.board
    assert board.ranking.axis == "macs"
    assert [(row.label, str(row.place)) for row in board.rows] == [("quick", "1"), ("plain", "2")]
    assert "because no row has comparable times" in board.ranking.sorted_by
    assert "no rank rests on it: span of all rows; latency of all rows." in to_markdown(board, "generated-cpu", [])


def test_a_disturbance_of_parallel_times_alone_takes_span_and_lanes_out(tmp_path: Path) -> None:
    disturbed = SpanMeta(device="generated", seed=0, reasons=("a compiler ran beside it",))
    for seed in range(5):
        generated.save(tmp_path / "results", "plain", seed=seed)
        path = generated.save(tmp_path / "made", "quick", seed=seed, skill=0.95)
        record = store.load(path)
        assert record.span is not None
        span = record.span.model_copy(update={"meta": disturbed})
        store.save(
            tmp_path / "results", record.model_copy(update={"span": span, "record_id": ""}),
            store.load_arrays(path, record),
        )  # fmt: skip
    (placed,) = boards(tmp_path / "results")
    quick, plain = sorted(placed.board.rows, key=lambda row: row.label, reverse=True)
    assert quick.timed
    assert quick.axes["latency"].place is not None
    assert quick.axes["span"].unranked == "a compiler ran beside it"
    assert plain.axes["span"].unranked == ""
    text = to_markdown(placed.board, "generated-cpu", [])
    assert "no rank rests on it: span of quick. The records say why." in text
    assert any(line.startswith("| quick |") and line.endswith("| no |") for line in text.splitlines())
    entries = read_entries(tmp_path / "results")
    row = Row(tuple(entry for entry in entries if entry.record.method.name == "quick"))
    assert [row.costs(axis) is None for axis in ("latency", "span", "unlimited lanes")] == [False, True, True]
