"""Each hostile plugin ends in a record or in one line with its name, never in status 0 without a record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.hostile_plugins import FATAL, HOSTILE, source

from anytime_bench.cli import main as command_line
from anytime_bench.harness.torch_settings import SETTINGS
from anytime_bench.registry import Registry

FEW = (
    "_exit in training", "becomes another program", "raises without words", "hangs at import", "another dtype",
    "replaces sys.exit",
)  # fmt: skip
COMMAND = ["run", "--plugin", "hostile.py", "-m", "hostile", "--json"]
OVERRIDES = ["epochs=1", "train_images=64", "timing_rounds=0", "resamples=50", "reference=hostile", "threads=1"]
#: What a plugin may name instead of its file.
NAMES = ("hostile", "Hostile", "Net")


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error:")]


def judge(folder: Path, status: int, out: str, err: str) -> None:
    records = [json.loads(path.read_text()) for path in (folder / "runs").rglob("*" * 1 + ".json")]
    assert "Traceback" not in err
    assert len(lines(err)) <= 1
    assert not list(folder.rglob("*.part"))
    if status == 0:
        assert [record["status"] for record in records] in (["ok"], ["skipped"]), err
    elif not records:
        assert status in (1, 2, 130), err
        (line,) = lines(err) or [err]
        assert any(name in line for name in NAMES) or status == 130, err
        assert len(line) < 3000
    if status in (0, 1) and records:
        json.loads(out)


@pytest.fixture
def run_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """The command in this process, whose settings a plugin must leave as they were."""
    import builtins
    import contextlib
    import warnings

    def run(place: str, code: str) -> None:
        (tmp_path / "hostile.py").write_text(source(place, code), encoding="utf-8", errors="surrogatepass")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ANYTIME_BENCH_TIME_LIMIT", "1.5")
        monkeypatch.setattr("sys.argv", ["anytime-bench", *COMMAND, *OVERRIDES])
        before = {name: read() for name, (read, _) in SETTINGS.items()}
        owner, plain, leave, error = os.getpid(), builtins.print, sys.exit, sys.stderr
        with contextlib.ExitStack() as stack:
            for registry in Registry.all.values():
                stack.enter_context(registry.temporary(empty=True))
            stack.enter_context(warnings.catch_warnings())
            with pytest.raises(SystemExit) as left:
                command_line.main()
            builtins.print, sys.exit, sys.stderr = plain, leave, error
        if os.getpid() != owner:
            os._exit(1)
        out, err = capfd.readouterr()
        assert {name: read() for name, (read, _) in SETTINGS.items()} == before
        assert Path.cwd() == tmp_path
        judge(tmp_path, int(left.value.code or 0), out, err)

    return run


@pytest.mark.parametrize("name", FEW)
def test_a_few_hostile_plugins(run_in_process, name: str) -> None:
    run_in_process(*HOSTILE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in FEW])
def test_all_hostile_plugins(run_in_process, name: str) -> None:
    run_in_process(*HOSTILE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", FATAL)
def test_what_ends_a_process_does_not_end_it_with_0(tmp_path: Path, name: str) -> None:
    (tmp_path / "hostile.py").write_text(source(*FATAL[name]))
    environment = {**os.environ, "ANYTIME_BENCH_TIME_LIMIT": "1"}
    command = [sys.executable, "-m", "anytime_bench", *COMMAND, *OVERRIDES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    records = list((tmp_path / "runs").rglob("*.json"))
    assert done.returncode != 0 or records, done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_sixty() -> None:
    assert len(HOSTILE) + len(FATAL) >= 60
