"""Every verb that writes, on a full and on a read-only disk: one line, status 2, and the old state whole."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from support import generated_records as generated
from support import small_run

from anytime_bench.cli import main as command_line
from anytime_bench.errors import DiskError
from anytime_bench.files import npz_bytes
from anytime_bench.records import store
from anytime_bench.registry import methods


@pytest.fixture
def disk(tmp_path):
    """A small file system; ``disk("full")`` and ``disk("read-only")`` make it so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")

    def make(state: str, pages: int = 0):
        """``pages`` of 4096 bytes stay free where it is full."""
        if state == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            return
        with (folder / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        os.truncate(folder / "filler", ((folder / "filler").stat().st_size // 4096 - pages) * 4096)

    yield folder, make
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        generated.save(folder, "plain", seed=seed)
        generated.save(folder, "quick", seed=seed)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a plugin and ``runs``: a trained run of it, and a record that lacks scores of today."""
    folder = tmp_path_factory.mktemp("trained")
    small_run.make(folder, {"epochs": 1, "noise": "none"})
    record, arrays = generated.make_record("old", change={"images": {}})
    store.save(folder / "runs", record, arrays)
    return folder


VERBS = {
    "leaderboard build": ["leaderboard", "build", "--results", "{results}", "--out", "{disk}/boards"],
    "leaderboard figures": ["leaderboard", "figures", "--results", "{results}", "--out", "{disk}/figures"],
    "run": ["run", "-m", "serial_ce", "epochs=1", "timing_rounds=0", "--out", "{disk}/runs"],
    "report": ["report", "{results}", "--out", "{disk}/report.html"],
    "analyse": ["analyse", "{results}/made_up/generated-cpu/quick", "--out", "{disk}/picture.png"],
    "list --sheet": ["list", "corruptions", "--sheet", "{disk}/sheet.png"],
    "new": ["new", "my_method", "--folder", "{disk}"],
    "new package": ["new", "my_method", "--kind", "package", "--folder", "{disk}"],
    "publish": ["publish", "{results}", "--results", "{disk}/published"],
    "rescore": ["rescore", "{disk}/runs/made_up"],
    "noise": ["noise", "{record}", "--plugin", "{plugin}", "--kinds", "contrast"],
    "deadlines": ["deadlines", "{record}", "--plugin", "{plugin}", "--draws", "2", "--others", "0"],
    "tune": ["tune", "-m", "serial_ce", "--out", "{disk}/tuned"],
    "tune --write": ["tune", "-m", "serial_ce", "--out", "{results}/tuned", "--write", "{disk}/tuned.yaml"],
    "profile": ["profile", "--methods", "serial_ce", "--out", "{disk}/profile"],
    "sweep": ["sweep", "-m", "serial_ce", "-t", "digits", "--seeds", "0", "timing_rounds=0", "--out", "{disk}/swept"],
    "span": ["span", "serial_ce", "--seconds", "0.2", "--gantt", "{disk}/gantt.png"],
}


SLOW = {"sweep": [pytest.mark.slow]}


@pytest.mark.parametrize("verb", [pytest.param(verb, marks=SLOW.get(verb, ())) for verb in VERBS])
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_disk_that_takes_nothing_is_one_line_and_loses_nothing(
    disk, results, trained, verb, state, capsys, monkeypatch
):
    folder, make = disk
    shutil.copytree(trained / "runs", folder / "runs")
    (record,) = (path for path in store.find(folder / "runs") if "made_up" not in path.parts)
    (folder / "boards" / "made_up").mkdir(parents=True)
    (folder / "boards" / "made_up" / "generated-cpu.md").write_text("the old board\n")
    make(state)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}
    arguments = [
        argument.format(results=results, disk=folder, record=record, plugin=trained / "plugin_small.py")
        for argument in VERBS[verb]
    ]
    monkeypatch.setattr("sys.argv", ["anytime-bench", *arguments])
    with methods.temporary(), pytest.raises(SystemExit) as leave:
        command_line.main()
    _, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert leave.value.code == 2, err
    assert len(errors) == 1, err
    assert "No space left" in errors[0] or "Read-only" in errors[0]
    assert str(folder) in errors[0]
    assert "Traceback" not in err
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}
    assert after == before


def test_a_disk_with_room_for_the_trace_alone_takes_neither_trace_nor_record(disk):
    folder, make = disk
    record, arrays = generated.make_record()
    store.record_folder(folder, record).mkdir(parents=True)
    make("full", pages=len(npz_bytes(arrays)) // 4096 + 1)
    with pytest.raises(DiskError, match="No space left"):
        store.save(folder, record, arrays)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["filler"]
    os.unlink(folder / "filler")
    assert store.save(folder, record, arrays).with_suffix(".npz").is_file()
