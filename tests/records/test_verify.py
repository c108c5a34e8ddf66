"""Tampering is caught, whatever was re-sealed; two writers lose nothing; a killed writer leaves old or new."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import generated_records as generated
from support.writers import write_some
from typer.testing import CliRunner

from anytime_bench.cli.records import leaderboard as leaderboard_app
from anytime_bench.cli.records import mount
from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.protocol import PROTOCOLS, unexplained_nulls
from anytime_bench.records.publish import publish
from anytime_bench.records.record import PROTOCOL_VERSION, content_hash
from anytime_bench.records.verify import differences, record_paths, verify_record
from anytime_bench.records.verify_all import verify_paths
from anytime_bench.runs.agreement import timed_differently
from anytime_bench.scores import run_scores
from anytime_bench.scores.catalogue import SCORES, register_score


def faults_of(*paths: Path) -> list[str]:
    return [fault for _, faults in verify_paths(paths) for fault in faults]


def reseal(path: Path, change: Any, arrays: Any = None, keep: bool = False) -> Path:
    """A forger who knows the hashes: edits the record, computes its id anew and names it so."""
    data = json.loads(path.read_text())
    change(data)
    npz = path.with_suffix(".npz").read_bytes()
    if arrays is not None:
        with np.load(path.with_suffix(".npz")) as archive:
            held = {name: archive[name] for name in archive.files}
        arrays(held)
        npz = store.npz_bytes(held)
        import hashlib

        data["artifacts"]["trace"] |= {"sha256": hashlib.sha256(npz).hexdigest(), "bytes": len(npz)}
    data["record_id"] = content_hash(data)
    target = path.with_name(f"{data['record_id']}.json")
    if not keep:
        path.with_suffix(".npz").unlink()
        path.unlink()
    target.with_suffix(".npz").write_bytes(npz)
    target.write_text(json.dumps(data))
    return target


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return generated.save(tmp_path, "quick")


def test_an_honest_record_holds(path: Path) -> None:
    assert faults_of(path) == []


def test_one_digit_changed_in_a_score_breaks_the_hash(path: Path) -> None:
    text = path.read_text()
    value = json.loads(text)["scores"]["macs"]["auc_1"]["value"]
    digit = str(value)[-1]
    path.write_text(text.replace(str(value), str(value)[:-1] + str((int(digit) + 1) % 10), 1))
    assert "altered" in faults_of(path)[0]


def clock_of(data: dict[str, Any]) -> Any:
    return data["timing"]["batches"]["1"]["clocks"]["latency"]


FORGERIES = {
    "scores": lambda d: d["scores"]["macs"]["auc_1"].update(value=d["scores"]["macs"]["auc_1"]["value"] + 1e-9),
    "timed_scores": lambda d: d["timed_scores"]["latency"]["auc_2"].update(low=0.99),
    "exits[2].accuracy": lambda d: d["exits"][2]["accuracy"].update(value=0.987),
    "exits[4].scores.ece": lambda d: d["exits"][4]["scores"].update(ece=0.0),
    "exits[4].scores.luck": lambda d: d["exits"][4]["scores"].update(luck=1.0),
    "images.wasted": lambda d: d["images"]["wasted"].update(value=0.0),
    "stopping.curves.confidence": lambda d: d["stopping"]["curves"]["confidence"]["accuracy"].__setitem__(3, 0.99),
    "timing.batches.1.clocks.latency.ratio_to_reference": lambda d: clock_of(d)["ratio_to_reference"][0].update(
        value=0.01
    ),
    "timing.batches.1.reasons": lambda d: d["timing"]["batches"]["1"].update(reasons=["none of your business"]),
    "reference.costs.latency": lambda d: d["reference"]["costs"].update(latency=1.0),
    "robustness": lambda d: d.update(robustness={"images": 400, "chance": 0.1, "clean": {}, "rows": []}),
}


@pytest.mark.parametrize("field", FORGERIES)
def test_a_forger_who_reseals_the_record_is_caught_by_its_raw_data(path: Path, field: str) -> None:
    forged = reseal(path, FORGERIES[field])
    faults = faults_of(forged)
    assert any(field in fault for fault in faults), faults
    assert all("\n" not in fault for fault in faults)


def test_a_curve_that_its_own_raw_data_does_not_give(path: Path) -> None:
    def flatter(arrays: dict[str, Any]) -> None:
        wrong = np.flatnonzero(arrays["test_predictions"][0] != arrays["test_labels"])[:40]
        arrays["test_predictions"][0, wrong] = arrays["test_labels"][wrong]
        arrays["test_true_rank"][0, wrong] = 0

    faults = faults_of(reseal(path, lambda data: None, flatter))
    assert any("exits[0].accuracy.value" in fault for fault in faults)
    assert len(faults) <= 6


def test_a_swapped_trace_is_caught(tmp_path: Path, path: Path) -> None:
    other = generated.save(tmp_path, "other", skill=0.9)
    shutil.copyfile(other.with_suffix(".npz"), path.with_suffix(".npz"))
    assert "altered" in faults_of(path)[0]
    path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:-7])
    assert "altered" in faults_of(path)[0]
    path.with_suffix(".npz").unlink()
    assert "missing" in faults_of(path)[0]


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


def test_a_record_may_supersede_only_its_own_run(tmp_path: Path) -> None:
    mine = store.load(generated.save(tmp_path, "quick"))
    generated.save(tmp_path, "rival", change={"supersedes": mine.record_id})
    faults = faults_of(*store.find(tmp_path))
    assert any("which is another row" in fault for fault in faults)
    assert any("does not lie beside it" in fault for fault in faults)


def test_a_record_in_the_wrong_folder_is_told_where_it_belongs(tmp_path: Path, path: Path) -> None:
    wrong = tmp_path / "made_up" / "generated-cpu" / "better_name"
    shutil.copytree(path.parent, wrong)
    assert "made_up/generated-cpu/quick" in faults_of(wrong / path.name)[0]


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


HOSTILE = {
    "deep nesting": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nesting that parses": b'{"schema_version": 2, "a":' + b"[" * 60 + b"]" * 60 + b"}",
    "NaN": b'{"schema_version": 2, "a": NaN}',
    "infinity": b'{"schema_version": 2, "a": -Infinity}',
    "a number beyond float64": b'{"schema_version": 2, "a": 1e999}',
    "a number of many digits": b'{"schema_version": 2, "a": ' + b"9" * 5000 + b"}",
    "a lone surrogate": b'{"schema_version": 2, "a": "\\ud800"}',
    "no UTF-8": b'{"schema_version": 2, "a": "\xff"}',
    "a list": b"[1, 2]",
    "a number": b"7",
    "nothing": b"",
    "version true": b'{"schema_version": true}',
    "version text": b'{"schema_version": "2"}',
    "version list": b'{"schema_version": [2]}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{'a' * 64}.json"
    path.write_bytes(HOSTILE[name])
    (fault,) = faults_of(path)
    assert str(path) in fault
    assert "\n" not in fault
    assert len(fault) < 500


ODD: dict[str, Any] = {
    "text for a number": lambda d: d["exits"][0]["accuracy"].update(value="0.5"),
    "true for a number": lambda d: d["exits"][0]["accuracy"].update(value=True),
    "a list for a block": lambda d: d.update(stopping=[]),
    "a number for a card": lambda d: d["method"].update(card=3),
    "text for a list": lambda d: d["method"]["card"].update(deviations="none"),
    "no reference": lambda d: d.pop("reference"),
    "a reference without MACs": lambda d: d["reference"]["costs"].pop("macs"),
    "a negative cost": lambda d: d["exits"][0]["costs"].update(macs=-1),
    "exits out of order": lambda d: d["exits"].reverse(),
    "a batch size without a block": lambda d: d["timing"]["meta"].update(batch_sizes=[1, 7]),
    "a block without its clock": lambda d: d["timing"]["batches"]["1"].update(clocks={}),
    "one class": lambda d: d["task"].update(classes=1),
}


@pytest.mark.parametrize("name", ODD)
def test_a_sealed_record_of_odd_form_is_refused_with_the_field_named(path: Path, name: str) -> None:
    (fault,) = faults_of(reseal(path, ODD[name]))
    assert "breaks the schema at" in fault
    assert "\n" not in fault


DEMANDED = (
    "exits.2.scores.ece", "exits.0.accuracy", "scores.macs.auc_1", "timed_scores", "stopping",
    "stopping.curves.confidence", "timing", "timing.batches.1.clocks.latency.run_through", "scores", "images.flips",
    "reference.costs.latency", "stopping.budgets.oracle", "timing.meta.processes",
    "timing.batches.64.widest", "timing.batches.1.clocks.latency.a_a", "timing.batches.1.clocks.latency.processes",
    "timing.dispatch", "span", "span.lanes",
)  # fmt: skip


@pytest.mark.parametrize("drop", DEMANDED)
def test_a_record_that_lacks_what_its_protocol_demands_is_refused(path: Path, drop: str) -> None:
    def forget(data: dict[str, Any]) -> None:
        *way, last = drop.split(".")
        for step in way:
            data = data[int(step)] if isinstance(data, list) else data[step]
        data.pop(last)

    faults = faults_of(reseal(path, forget))
    assert any("missing" in fault or "breaks the schema" in fault for fault in faults), faults


@pytest.mark.parametrize("start", ["timing_batch64_latency_twin", "span_"])
def test_times_without_a_copy_of_the_reference_or_without_parallel_time_are_of_an_older_protocol(
    path: Path, start: str
) -> None:
    """What the raw data do not give is nowhere missing, so the raw data themselves are demanded."""

    def forget(data: dict[str, Any]) -> None:
        if start == "span_":
            data.pop("span")
            data["timed_scores"].pop("span")
            data["scores"].pop("span_macs")
            data["reference"]["costs"].pop("span")
        else:
            data["timing"]["batches"]["64"]["clocks"]["latency"].pop("a_a")

    def drop(arrays: dict[str, Any]) -> None:
        for name in [name for name in arrays if name.startswith(start)]:
            del arrays[name]

    forged = reseal(path, forget, drop)
    assert any(f"holds no array {start}" in fault for fault in faults_of(forged)), faults_of(forged)
    older = reseal(forged, lambda data: data.update(protocol_version="1"))
    assert not any("holds no array" in fault for fault in faults_of(older))


def test_a_null_without_a_reason_is_a_fault() -> None:
    assert unexplained_nulls({"macs": {"auc_1": None}}, "scores") == ["scores.macs.auc_1"]
    assert unexplained_nulls([{"auroc": None}, {"nll": None}], "exits.scores") == ["exits.scores.nll"]


def test_publish_copies_all_or_nothing_and_says_so_twice(tmp_path: Path, path: Path) -> None:
    other = generated.save(tmp_path, "other")
    results = tmp_path / "results"
    other_text = other.read_text()
    other.write_text(other_text.replace("Made-up", "Made-Up"))
    assert publish([path, other], results).faults
    assert not results.exists()
    other.write_text(other_text)
    done = publish([path, other], results)
    assert sorted(p.name for p in done.files) == sorted(
        p.name for each in (path, other) for p in (each, each.with_suffix(".npz"))
    )
    assert faults_of(*store.find(results)) == []
    again = publish([path, other], results)
    assert again.files == ()
    assert len(again.present) == 2


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


def test_folders_without_records_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record below"):
        record_paths([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        record_paths([tmp_path / "nothing.json"])
    assert verify_record(tmp_path / "nothing.json")[0] is None


def test_two_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_some, args=(str(tmp_path), worker)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    paths = list(store.find(tmp_path))
    # Three seeds each of their own, and three that both wrote, which are the same bytes and so the same files.
    assert len(paths) == 9
    assert faults_of(*paths) == []
    assert not list(tmp_path.rglob("*.part"))


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from anytime_bench.files import write_atomically
path, size = Path(sys.argv[1]), int(sys.argv[2])
n = 0
while True:
    n += 1
    write_atomically(path, bytes([65 + n % 26]) * size)
    print(n, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01])
def test_a_killed_writer_leaves_the_old_state_or_the_new_one(tmp_path: Path, delay: float) -> None:
    path, size = tmp_path / "record.json", 3_000_000
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(size)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(delay)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(30)
    data = path.read_bytes()
    assert len(data) == size
    assert len(set(data)) == 1


def test_a_crash_between_trace_and_record_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, arrays = generated.make_record("quick")
    real = store.write_atomically

    def crash_at_the_record(path: Path, data: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(store, "write_atomically", crash_at_the_record)
    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path, record, arrays)
    assert list(store.find(tmp_path)) == []
    monkeypatch.undo()
    assert faults_of(store.save(tmp_path, record, arrays)) == []
