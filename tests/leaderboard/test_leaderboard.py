"""The leaderboard is a pure function of the store: groups, ranks, bytes."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.errors import UserError
from anytime_bench.leaderboard import build as module
from anytime_bench.leaderboard.assembly import assemble
from anytime_bench.leaderboard.board import Board, BoardRow
from anytime_bench.leaderboard.build import boards, build, check, draw_figures, files
from anytime_bench.leaderboard.figures import spread
from anytime_bench.leaderboard.text import to_csv, to_markdown
from anytime_bench.records import store
from anytime_bench.records.consistency import read_entries
from anytime_bench.records.entries import Entry, groups
from anytime_bench.records.record import Record


def board_of(results: Path) -> Board:
    (placed,) = boards(results)
    return placed.board


def labelled(board: Board) -> dict[str, BoardRow]:
    return {row.label: row for row in board.rows}


def test_a_row_of_one_seed_repeats_the_scores_of_its_record(tmp_path: Path) -> None:
    record = store.load(generated.save(tmp_path, "plain"))
    (row,) = board_of(tmp_path).rows
    assert row.final.value == pytest.approx(record.exits[-1].accuracy.value, abs=5e-6)
    for axis, scores in (record.scores | record.timed_scores).items():
        for name in ("auc_1", "auc_2"):
            assert getattr(row.axes[axis], name).value == pytest.approx(scores[name].value, abs=6e-6)


def test_seeds_of_one_method_and_options_are_one_row(tmp_path: Path) -> None:
    for seed in range(3):
        generated.save(tmp_path, "quick", seed=seed, options={"lam": 0.5})
    generated.save(tmp_path, "quick", seed=0, options={"lam": 0.9})
    rows = labelled(board_of(tmp_path))
    assert {name: row.seeds for name, row in rows.items()} == {"quick (lam=0.5)": [0, 1, 2], "quick (lam=0.9)": [0]}
    assert rows["quick (lam=0.5)"].final.value == pytest.approx(
        np.mean([seed[-1] for seed in rows["quick (lam=0.5)"].accuracy_by_seed]), abs=1e-5
    )


def test_a_moved_module_or_a_release_splits_no_row(tmp_path: Path) -> None:
    """A row's identity names the distribution; version and module path are provenance."""
    for seed, target in enumerate(("package.module:Quick", "package.rooms.module:Quick")):
        record, arrays = generated.make_record("quick", seed=seed)
        origin = {"distribution": "generated", "version": f"{seed}.0", "target": target}
        method = record.method.model_copy(update={"origin": origin})
        store.save(tmp_path, record.model_copy(update={"method": method}), arrays)
    (row,) = board_of(tmp_path).rows
    assert row.seeds == [0, 1]


def test_devices_tasks_protocols_and_references_never_share_a_ranking(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    generated.save(tmp_path, "quick", device="generated-gpu", gpu=True)
    generated.save(tmp_path, "quick", task="faces")
    generated.save(tmp_path, "quick", change={"protocol_version": "0"})
    reference = {"method": "plain", "costs": {"ticks": 9.0, "macs": 9_000_000, "latency": 0.004}}
    generated.save(tmp_path, "quick", seed=5, change={"reference": reference})
    found = {str(placed.stem): [row.label for row in placed.board.rows] for placed in boards(tmp_path)}
    assert all(len(labels) == 1 for labels in found.values())
    assert {name for name in found if "." not in name} == {
        "made_up/generated-cpu",
        "made_up/generated-gpu",
        "faces/generated-cpu",
    }
    assert len(found) == 5
    assert any(name.startswith("made_up/generated-cpu.protocol-0") for name in found)


def test_speed_moves_latency_and_nothing_else(tmp_path: Path) -> None:
    for name, speed in (("slow", 1.0), ("quick", 2.0)):
        generated.save(
            tmp_path,
            name,
            speed=speed,
            traces=(generated.make_trace(0.5, 5, 400, 1), generated.make_trace(0.5, 5, 99, 1, split="val")),
        )
    rows = labelled(board_of(tmp_path))
    assert rows["slow"].axes["macs"].auc_1 == rows["quick"].axes["macs"].auc_1
    assert rows["slow"].axes["latency"].auc_1.value < rows["quick"].axes["latency"].auc_1.value
    assert rows["quick"].axes["latency"].regret.value == 0
    assert rows["slow"].axes["latency"].regret.low > 0


@pytest.mark.parametrize("created", ["2000-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
def test_no_date_decides_between_two_records_of_a_seed(tmp_path: Path, created: str) -> None:
    first = generated.save(tmp_path, "quick", skill=0.2)
    second = generated.save(tmp_path, "quick", skill=0.9, created=created)
    with pytest.raises(UserError, match="is seed 0 of quick, and so is") as caught:
        board_of(tmp_path)
    assert first.name in str(caught.value)
    assert second.name in str(caught.value)


def test_superseded_records_do_not_count_and_stay_in_the_history(tmp_path: Path) -> None:
    first = store.load(generated.save(tmp_path, "quick", skill=0.2))
    correction = {"supersedes": first.record_id}
    path = generated.save(tmp_path, "quick", skill=0.7, created="2026-01-03T00:00:00Z", change=correction)
    (group,) = groups(read_entries(tmp_path))
    assert [e.path for e in next(iter(group.rows.values()))] == [path]
    (note,) = group.notes
    assert first.record_id[:12] in note
    assert path.stem[:12] in note


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_record_without_results_removes_nobodys_row(tmp_path: Path, status: str) -> None:
    mine, _ = generated.make_record("quick")
    first = store.load(generated.save(tmp_path, "quick"))
    attack = generated.failed(mine, status=status, reason="none", supersedes=first.record_id)
    assert len(groups([Entry(tmp_path, first), Entry(tmp_path, attack)])[0].rows) == 1
    store.save(tmp_path, attack, {})
    with pytest.raises(UserError, match=f"its own status is {status}"):
        board_of(tmp_path)


def test_only_the_seeds_of_the_protocol_count(tmp_path: Path) -> None:
    for seed in range(5):
        generated.save(tmp_path, "plain", seed=seed)
    before = board_of(tmp_path).rows[0]
    generated.save(tmp_path, "plain", seed=7, skill=0.95)
    after = board_of(tmp_path).rows[0]
    assert after.seeds == [0, 1, 2, 3, 4]
    assert (after.final, after.axes) == (before.final, before.axes)


def diverged(method: str, seed: int, **changes: str) -> Record:
    record, _ = generated.make_record(method, seed=seed, created=changes.pop("created", "2025-12-31T00:00:00Z"))
    return generated.failed(record, reason="the loss became nan", **changes)


def test_a_diverged_seed_counts_as_guesses_and_is_never_replaced(tmp_path: Path) -> None:
    for seed in range(5):
        generated.save(tmp_path, "plain", seed=seed)
    before = board_of(tmp_path).rows[0]
    failed = diverged("plain", 3)
    store.save(tmp_path, failed, {})
    with pytest.raises(UserError, match="is seed 3 of plain, and so is"):
        board_of(tmp_path)
    next(path for path in (tmp_path / "made_up").rglob("*.json") if store.load(path).status == "ok"
         and store.load(path).seed == 3).unlink()  # fmt: skip
    board = board_of(tmp_path)
    row = board.rows[0]
    assert row.seeds == [0, 1, 2, 3, 4]
    assert row.accuracy_by_seed[3] == [0.1] * 5
    assert row.final.value == pytest.approx(before.final.value + (0.1 - before.accuracy_by_seed[3][-1]) / 5, abs=1e-5)
    assert row.final.high - row.final.low > before.final.high - before.final.low


def test_nothing_supersedes_a_diverged_seed(tmp_path: Path) -> None:
    for seed in range(2):
        generated.save(tmp_path, "plain", seed=seed)
    failed = store.load(store.save(tmp_path, diverged("plain", 2), {}))
    generated.save(tmp_path, "plain", seed=2, change={"supersedes": failed.record_id})
    with pytest.raises(UserError, match="a diverged seed counts and is never replaced"):
        read_entries(tmp_path)


def test_failed_and_skipped_runs_are_told(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain")
    record, _ = generated.make_record("doomed")
    failed = generated.failed(record, reason="the loss is NaN | in epoch 2", training=None)
    store.save(tmp_path, failed, {})
    board = board_of(tmp_path)
    assert [(run.method, run.reason) for run in board.absent] == [("doomed", "the loss is NaN | in epoch 2")]
    assert "doomed: failed" in to_markdown(board, "x", [])


def test_the_table_has_every_column_that_was_promised(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain", reported=0.9185, gpu=True)
    generated.save(tmp_path, "quick", gpu=True)
    board = board_of(tmp_path)
    first = next(csv.DictReader(io.StringIO(to_csv(board))))
    for axis in ("ticks", "macs", "latency", "device_time"):
        names = ("auc_1", "auc_2", "auc_0.5", "auc_4", "regret", "gain_over_fixed_exit", "exit_set_auc_1")
        for name in names:
            assert {f"{name}_{axis}{end}" for end in ("", "_low", "_high")} <= set(first)
        assert {f"rank_first_{axis}", f"time_to_95_{axis}", f"exit_set_{axis}"} <= set(first)
    assert {"final", "noise_left", "seeds", "n", "reported", "rank"} <= set(first)
    text = to_markdown(board, "x", [])
    assert "| 91.85 |" in text
    assert board.ranking.sorted_by in text


def test_equal_records_give_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    results = tmp_path / "results"
    paths = generated.fill(results, methods=2, seeds=2, images=200)
    build(results, tmp_path / "one")
    moved = tmp_path / "elsewhere" / "again"
    for path in reversed(paths):  # Another order of writing, another place.
        target = moved / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        for source in (path.with_suffix(".npz"), path):
            shutil.copyfile(source, target.with_suffix(source.suffix))
    build(moved, tmp_path / "two")
    one, two = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*.*")}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert {name.suffix for name in one} == {".md", ".csv", ".json", ".html", ".svg", ".pdf"}
    assert check(results, tmp_path / "one") == []


@pytest.mark.slow
def test_figures_of_a_paper_are_as_wide_as_its_columns(tmp_path: Path) -> None:
    generated.fill(tmp_path / "results", methods=3, seeds=1, images=100)
    paths = draw_figures(tmp_path / "results", tmp_path / "figures", "paper")
    assert {path.suffix for path in paths} == {".svg", ".png", ".pdf"}
    widths = {}
    for path in paths:
        if path.suffix == ".svg":
            width = re.search(r'width="([0-9.]+)pt"', path.read_text())
            assert width
            widths[path.name.split(".")[-2]] = float(width[1]) / 72
    assert widths == pytest.approx({"one": 3.35, "two": 6.9})


def test_names_at_the_ends_of_curves_do_not_overlap() -> None:
    places = spread([0.99, 0.989, 0.985, 0.8, 0.3], 0.05)
    assert all(a - b >= 0.05 - 1e-12 for a, b in itertools.pairwise(places))
    assert places[-1] == 0.3


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("board")
    generated.fill(root / "results", methods=2, seeds=1, images=200)
    build(root / "results", root / "boards")
    return root / "results", root / "boards"


def test_one_changed_byte_is_found_in_every_kind_of_file(built: tuple[Path, Path]) -> None:
    results, out = built
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for path, data in before.items():
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    findings = check(results, out)
    for path, data in before.items():
        path.write_bytes(data)
    assert {finding.path for finding in findings if finding.fault} == before.keys()
    assert all(str(f.path) in str(f) and "anytime-bench leaderboard build" in str(f) for f in findings)


def test_missing_and_left_over_files_are_found_and_mended(built: tuple[Path, Path]) -> None:
    results, out = built
    (out / "made_up" / "generated-cpu.csv").unlink()
    (out / "made_up" / "old-device.md").write_text("left over")
    assert {(f.path.name, f.problem) for f in check(results, out)} == {
        ("generated-cpu.csv", "is missing"),
        ("old-device.md", "has no source record"),
    }
    build(results, out)
    assert check(results, out) == []


def test_another_drawing_library_is_told_but_no_fault_unless_the_data_differ(built: tuple[Path, Path]) -> None:
    results, out = built
    path = out / "made_up" / "generated-cpu.macs.svg"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"drawn by matplotlib ", b"drawn by matplotlib 0.", 1).replace(b"1.5", b"1.6"))
        (finding,) = check(results, out)
        assert not finding.fault
        assert "matplotlib 0." in str(finding)
        start = before.index(b"anytime_bench data ") + len(b"anytime_bench data ")
        path.write_bytes(path.read_bytes()[:start] + b"0" * 8 + path.read_bytes()[start + 8 :])
        assert [f.fault for f in check(results, out)] == [True]
    finally:
        path.write_bytes(before)


def test_a_bad_record_stops_the_build_by_name(tmp_path: Path) -> None:
    path = generated.save(tmp_path, "plain")
    path.write_text(path.read_text().replace('"parameters":12345', '"parameters":12346'))
    with pytest.raises(UserError, match=f"{path.stem}.*altered"):
        build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_records_of_a_part_of_the_test_split_cannot_be_mixed_in(tmp_path: Path) -> None:
    generated.save(tmp_path, "plain", images=400)
    generated.save(tmp_path, "quick", images=300)
    (group,) = groups(read_entries(tmp_path))
    with pytest.raises(UserError, match="cannot be paired"):
        assemble(group)


def test_processes_of_their_own_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, out = tmp_path / "results", tmp_path / "leaderboards"
    for task in ("one", "two"):
        generated.save(results, "plain", task=task)
    build(results, out)
    monkeypatch.setenv("ANYTIME_BENCH_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(module, "WORTH_PROCESSES", 1)
    here, make = [], module._made

    @functools.wraps(make)  # so that a process that is sent it takes its own
    def counted(job: module.Job) -> module.Made:
        here.append(job.stem.parent.name)
        return make(job)

    monkeypatch.setattr(module, "_made", counted)
    monkeypatch.setattr(module, "_page_keys", lambda results: [])  # which the other process would make first
    assert check(results, out, workers=2) == []
    assert here == ["one"]


def test_equal_records_are_assembled_drawn_and_written_about_once(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = built
    first = dict(files(results))
    monkeypatch.setattr("anytime_bench.leaderboard.build.assemble", None)
    assert dict(files(results)) == first
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    next(store.find(copied)).unlink()
    with pytest.raises(TypeError, match="not callable"):
        dict(files(copied))
