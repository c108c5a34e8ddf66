"""Every verb that writes, on a full and on a read-only disk: one line, status 2, and the old state whole."""

from __future__ import annotations

import subprocess

import pytest
from support import generated_records as generated

from anytime_bench.cli import main as command_line


@pytest.fixture
def disk(tmp_path):
    """A small file system; ``disk("full")`` and ``disk("read-only")`` make it so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")

    def make(state: str):
        if state == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            return
        with (folder / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    yield folder, make
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        generated.save(folder, "plain", seed=seed)
        generated.save(folder, "quick", seed=seed)
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
    "span": ["span", "serial_ce", "--seconds", "0.2", "--gantt", "{disk}/gantt.png"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_disk_that_takes_nothing_is_one_line_and_loses_nothing(disk, results, verb, state, capsys, monkeypatch):
    folder, make = disk
    (folder / "boards" / "made_up").mkdir(parents=True)
    (folder / "boards" / "made_up" / "generated-cpu.md").write_text("the old board\n")
    make(state)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "filler"}
    arguments = [argument.format(results=results, disk=folder) for argument in VERBS[verb]]
    monkeypatch.setattr("sys.argv", ["anytime-bench", *arguments])
    with pytest.raises(SystemExit) as leave:
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
