"""What stopping saves on the clock, what larger batches do, and whether MACs saved are time saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats
from support import generated_records as generated

from anytime_bench.harness.timing_block import Spread
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


def test_a_machine_that_slowed_down_between_sessions_saves_no_less_where_full_runs_were_timed_in_turn(
    tmp_path: Path,
) -> None:
    """Twice as slow while stopping: three fifths of a full run then look like six fifths of the earlier one."""
    for name, beside in (("in_turn", True), ("apart", False)):
        record, arrays = generated.make_record(name, skill=0.4 + 0.1 * beside)
        assert record.timing is not None
        stops = []
        for stop in record.timing.meta.early_stop:
            slow = Spread(**{part: 2 * value for part, value in stop.latency.model_dump().items()})
            full = Spread(**{part: value / 0.6 for part, value in slow.model_dump().items()})
            stops.append(stop.model_copy(update={"latency": slow, "full": full if beside else None}))
        meta = record.timing.meta.model_copy(update={"early_stop": stops})
        timing = record.timing.model_copy(update={"meta": meta})
        generated.store.save(tmp_path, record.model_copy(update={"timing": timing}), arrays)
    (placed,) = boards(tmp_path)
    rows = {row.label: row for row in placed.board.rows}
    for name, saved in (("in_turn", 0.4), ("apart", -0.2)):
        for stop in rows[name].stops:
            assert stop.saved is not None
            assert stop.saved.value == pytest.approx(saved, abs=0.02)
    shown = table(placed.board, "stops")
    assert dict(zip(shown.values["label"], shown.values["full_run"], strict=True)) == {
        "in_turn": "in turn", "apart": "in another session",
    }  # fmt: skip


def test_a_single_exit_saves_nothing_and_a_disturbed_row_tells_no_time(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    generated.save(tmp_path, "single", exits=1)
    generated.save(tmp_path, "disturbed", timed=False, skill=0.7)
    (placed,) = boards(tmp_path)
    rows = {row.label: row for row in placed.board.rows}
    assert rows["single"].stops == []
    assert {(stop.saved, stop.times_reference) for stop in rows["disturbed"].stops} == {(None, None)}
    assert rows["disturbed"].stops[0].accuracy == 0.8
    shown = table(placed.board, "stops")
    column = next(each for each in shown.columns if each.name == "saved")
    line = shown.values["label"].index("disturbed")
    assert shown.cell(line, column).reason == "another process used the device"


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
