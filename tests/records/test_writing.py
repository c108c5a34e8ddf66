"""Two writers lose nothing, a killed writer leaves the old file or the new one, and publish copies all or nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import generated_records as generated
from support.forged_records import faults_of
from support.writers import write_some

from anytime_bench.records import store
from anytime_bench.records.publish import publish


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


def test_a_copy_under_another_method_s_name_and_seed_is_not_published(tmp_path: Path) -> None:
    results = tmp_path / "results"
    honest = generated.save(tmp_path / "honest", "quick")
    assert publish([honest], results).files
    record, arrays = generated.make_record("quick")
    assert record.training is not None
    accuracies = tuple(entry.accuracy.value for entry in record.exits)
    assert store.stated(honest) == store.Stated(honest.stem, record.training.seed, accuracies)
    stolen = record.model_copy(
        update={
            "method": record.method.model_copy(update={"name": "slick"}),
            "training": record.training.model_copy(update={"seed": 7}),
        }
    )
    copy = store.save(tmp_path / "copy", stolen, arrays)
    faults = publish([copy], results).faults
    assert any("the very answers" in fault for fault in faults), faults
    assert [path.name for path in store.find(results)] == [honest.name]


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
    real = os.replace

    def crash_at_the_record(part: Path, path: Path) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        real(part, path)

    monkeypatch.setattr(os, "replace", crash_at_the_record)
    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path, record, arrays)
    assert list(store.find(tmp_path)) == []
    monkeypatch.undo()
    assert faults_of(store.save(tmp_path, record, arrays)) == []
