"""The stage from end to end: a plugin with known sleeps, run, stored, verified, done again, interrupted by Ctrl-C."""

from __future__ import annotations

import io
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import anytime_bench
from anytime_bench.errors import UserError
from anytime_bench.harness.deadlines import DeadlineSettings
from anytime_bench.harness.streaming_clips import StreamingSettings
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.records.verify import verify_record
from anytime_bench.runs.closing import closing, streaming_tables
from anytime_bench.runs.deadlines import deadlines_on_record, read_jitter, read_rates
from anytime_bench.runs.display import Display

PLUGIN = Path(__file__).parents[1] / "support" / "plugin_sleeps.py"
QUIET = Display(quiet=True)
FAST = {"epochs": 2, "evaluation.timing_rounds": 0, "options.sleep": 0.001}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    load_plugin(str(PLUGIN))
    return anytime_bench.run(
        "sleeping", "digits", seed=3, overrides=FAST, out=tmp_path_factory.mktemp("runs"), display=QUIET,
        deadlines=DeadlineSettings(uniform=20, others=5),
    )  # fmt: skip


def test_a_run_interrupts_its_model_and_its_record_says_what_came_of_it(record: Record) -> None:
    assert record.status == "ok", record.reason
    block = record.deadlines
    assert block is not None
    assert {(row.mode, row.kind) for row in block.rows} == {
        (mode, kind) for mode in ("ask", "run_ahead", "known") for kind in ("uniform", "log_uniform", "jitter")
    }
    assert block.row().draws == 20
    assert block.curve == "session", "it was not timed, so the session's own costs promise"
    assert block.meta.jitter == "random walk"
    assert block.meta.seed == 3, "every training has draws of its own"


def test_its_raw_draws_give_the_block_again_and_a_lie_is_found(record: Record) -> None:
    path = record.path
    assert path is not None
    assert verify_record(path)[1] == []
    arrays = store.load_arrays(path, record)
    assert sum(array.nbytes for name, array in arrays.items() if name.startswith("deadlines_")) < 2000
    said: dict[str, Any] = json.loads(path.read_text())
    said["deadlines"]["rows"][0]["accuracy"]["value"] += 0.05
    said["record_id"] = ""
    lie = store.save(path.parents[3].with_name("lie"), Record.model_validate(said), arrays)
    assert any("deadlines.rows[0].accuracy.value" in fault for fault in verify_record(lie)[1])
    del said["deadlines"]
    silent = store.save(path.parents[3].with_name("silent"), Record.model_validate(said), arrays)
    assert any("does not state what came of them" in fault for fault in verify_record(silent)[1])


def test_an_existing_record_is_interrupted_from_its_weights_and_superseded(record: Record, tmp_path: Path) -> None:
    assert record.path is not None
    settings = DeadlineSettings(uniform=8, others=2, jitter=(0.5,), seed=1)
    with pytest.raises(UserError, match="do not exist; train again"):
        deadlines_on_record(record.path, settings, out=tmp_path, display=QUIET)
    made = deadlines_on_record(record.path, settings, display=QUIET)
    assert made.supersedes == record.record_id
    assert made.exits == record.exits
    assert made.deadlines is not None
    assert (made.deadlines.row().draws, made.deadlines.meta.jitter, made.deadlines.meta.seed) == (8, "replayed", 1)
    assert made.path is not None
    assert verify_record(made.path)[1] == []
    with pytest.raises(UserError, match=f"is superseded by '{made.path.name}' already. Give that one."):
        deadlines_on_record(record.path, settings, display=QUIET)
    made.path.unlink()
    made.path.with_suffix(".npz").unlink()


def test_frames_arrive_before_a_records_model_and_its_deadlines_stay(record: Record) -> None:
    assert record.path is not None
    settings = StreamingSettings(rates=(1.0,), clips=2, frames=4, hold=2)
    made = deadlines_on_record(record.path, settings, display=QUIET)
    assert made.path is not None
    assert made.supersedes == record.record_id
    assert made.deadlines == record.deadlines
    assert made.streaming is not None
    assert made.streaming.meta.seed == 3
    assert [row.way for row in made.streaming.rows] == ["restart", "ask", "pipelined"], "it keeps no state"
    assert verify_record(made.path)[1] == []
    console = Console(width=80, file=io.StringIO())
    for part in streaming_tables(made.streaming):
        console.print(part)
    assert "Streaming, occlusion" in console.file.getvalue()  # type: ignore[attr-defined]
    assert read_rates("0.5, 1") == (0.5, 1.0)
    with pytest.raises(UserError, match="rates 'soon'"):
        read_rates("soon")


def test_the_terminal_shows_every_row_and_the_verdicts(record: Record) -> None:
    console = Console(width=80, file=io.StringIO())
    for part in closing(record):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Interrupted at deadlines" in text
    assert "ask: the curve's promise is" in text
    assert "log-uniform" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_jitter_is_read_from_a_file_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "jitter.txt"
    path.write_text("# frames\n0.5\n0.25  # late\n\n")
    assert read_jitter(path) == (0.5, 0.25)
    path.write_text("0.5\nsoon\n")
    with pytest.raises(UserError, match="line 2: 'soon' is no number"):
        read_jitter(path)
    path.write_text("")
    with pytest.raises(UserError, match="holds no deadline"):
        read_jitter(path)
    with pytest.raises(UserError, match="cannot read"):
        read_jitter(tmp_path / "absent")


def test_a_model_that_raises_while_interrupted_is_a_failed_run_with_its_reason(tmp_path: Path) -> None:
    load_plugin(str(PLUGIN))
    made = anytime_bench.run(
        "sleeping", "digits", overrides={**FAST, "options.fails": True}, out=tmp_path, display=QUIET,
        deadlines=DeadlineSettings(uniform=200, others=0),
    )  # fmt: skip
    assert made.status == "failed"
    assert "no third exit today" in made.reason


@pytest.mark.slow
def test_ctrl_c_ends_a_session_at_once_with_one_line_and_no_record(record: Record, tmp_path: Path) -> None:
    assert record.path is not None
    before = sorted(record.path.parent.iterdir())
    command = [
        sys.executable, "-m", "anytime_bench", "deadlines", str(record.path), "--plugin", str(PLUGIN), "--draws",
        "50000",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    before_it = list(itertools.takewhile(lambda line: not line.startswith("deadlines"), process.stderr))
    assert process.poll() is None, before_it
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert sorted(record.path.parent.iterdir()) == before
