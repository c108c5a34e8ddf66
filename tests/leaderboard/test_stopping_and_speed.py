"""What stopping saves on the clock, what larger batches do, and whether MACs saved are time saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats
from support import generated_records as generated

from anytime_bench.leaderboard.board import BoardRow
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.speed import over_seeds, promises
from anytime_bench.leaderboard.tables import table


def rows_of(results: Path) -> dict[str, BoardRow]:
    (placed,) = boards(results)
    return {row.label: row for row in placed.board.rows}


def test_stopping_at_the_middle_exit_saves_what_the_later_ones_cost(tmp_path: Path) -> None:
    """Five exits of equal cost; the generated rule stops at the third, so two fifths are saved at any batch size."""
    generated.save(tmp_path, "plain")
    stops = rows_of(tmp_path)["plain"].stops
    assert [(stop.batch, stop.real) for stop in stops] == [(1, True), (64, False)]
    for stop in stops:
        assert stop.saved.value == pytest.approx(0.4, abs=0.01)
        assert stop.times_reference == pytest.approx(0.6, abs=0.01)
        assert stop.accuracy == 0.8
        assert stop.change is not None
        assert stop.change.value == pytest.approx(-0.01)
        assert stop.deciding == 0.1


def test_a_record_without_the_last_exits_accuracy_says_so(tmp_path: Path) -> None:
    record, arrays = generated.make_record("plain")
    assert record.timing is not None
    stops = [stop.model_copy(update={"final_accuracy": None}) for stop in record.timing.meta.early_stop]
    timing = record.timing.model_copy(update={"meta": record.timing.meta.model_copy(update={"early_stop": stops})})
    generated.store.save(tmp_path, record.model_copy(update={"timing": timing}), arrays)
    (placed,) = boards(tmp_path)
    assert all(stop.change is None for stop in placed.board.rows[0].stops)
    shown = table(placed.board, "stops")
    assert "change" not in {column.name for column in shown.columns}


def test_throughput_is_of_full_answers_beside_the_reference(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    generated.save(tmp_path, "twice_as_fast", speed=2.0)
    rows = rows_of(tmp_path)
    (slow,), (fast,) = rows["plain"].throughput, rows["twice_as_fast"].throughput
    assert (slow.batch, fast.batch) == (64, 64)
    assert fast.times_reference == pytest.approx(2 * slow.times_reference, rel=0.02)
    assert slow.per_second == pytest.approx(64 / (0.004 * 64**0.8), rel=0.05)


def test_a_promise_is_kept_where_time_falls_as_macs_do() -> None:
    """Exit k of the generated method takes (k + 1) / 5 of the reference's time, and nearly that share of its MACs."""
    record, _ = generated.make_record("plain", exits=5)
    for promise, entry in zip(promises([record]), record.exits, strict=True):
        saved = 1 - entry.macs_prefix / 5_000_000
        assert promise.macs_saved == pytest.approx(saved, abs=1e-5)
        assert promise.time_saved.value == pytest.approx(1 - (entry.k + 1) / 5, abs=0.01)
        assert promise.time_saved.low <= promise.time_saved.value <= promise.time_saved.high
        if saved >= 0.02:
            assert promise.arrives == pytest.approx(promise.time_saved.value / saved, rel=1e-3)
        else:  # Nothing was promised.
            assert promise.arrives is None


def test_the_interval_over_seeds_is_students() -> None:
    values = [0.1, 0.2, 0.4]
    interval = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    estimate = over_seeds(values)
    assert (estimate.low, estimate.high) == pytest.approx(interval, abs=1e-5)
    alone = over_seeds([0.3])
    assert (alone.low, alone.value, alone.high) == (0.3, 0.3, 0.3)


def test_a_row_without_comparable_times_makes_no_promise(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    generated.save(tmp_path, "disturbed", timed=False)
    assert rows_of(tmp_path)["disturbed"].promises == []
