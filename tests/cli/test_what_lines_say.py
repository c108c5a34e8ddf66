"""Lines that a user reads when something is missing, twice there or interrupted name what it is and what to do."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch
from support import generated_records as generated

from anytime_bench.cli import main as command_line
from anytime_bench.cli import records as verbs
from anytime_bench.corruptions import KINDS, corrupt, register_corruption
from anytime_bench.errors import PluginError, UserError, describe, location, make_room
from anytime_bench.leaderboard.assembly import assemble
from anytime_bench.leaderboard.text import to_markdown
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records import store
from anytime_bench.records.entries import Entry, groups
from anytime_bench.records.rescore import rescore
from anytime_bench.runs import plan
from anytime_bench.runs.deadlines import StreamingSettings, deadlines_on_record
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import pick_device
from anytime_bench.runs.rerun import each_record, noise_on_record
from anytime_bench.tasks.loading import load_task

QUIET = Display(quiet=True)


def cli(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["anytime-bench", *arguments])
    with pytest.raises(SystemExit) as leave:
        command_line.main()
    return int(leave.value.code or 0), *capsys.readouterr()


@pytest.fixture
def superseded(tmp_path: Path) -> tuple[Path, Path]:
    old = generated.save(tmp_path, "quick")
    again = {"supersedes": old.stem, "created": "2026-02-01T00:00:00Z"}
    return old, generated.save(tmp_path, "quick", change=again)


def test_no_verb_makes_a_second_successor(superseded: tuple[Path, Path]) -> None:
    old, new = superseded
    line = f"record '{old}' is superseded by '{new.name}' already. Give that one."
    for work in (
        lambda path: noise_on_record(path, "focus", display=QUIET),
        lambda path: deadlines_on_record(path, StreamingSettings(), display=QUIET),
    ):
        with pytest.raises(UserError, match=re.escape(line)):
            work(old)
    assert rescore(old).reason == line
    assert sorted(store.find(old.parents[3])) == sorted(superseded)


@pytest.mark.parametrize("version", ["1", "2", "9"])
def test_frames_are_not_shown_to_a_record_that_charges_them_otherwise(version: str, tmp_path: Path) -> None:
    path = generated.save(tmp_path, "quick", change={"protocol_version": version})
    for work in (
        lambda path: noise_on_record(path, "focus", display=QUIET),
        lambda path: deadlines_on_record(path, StreamingSettings(), display=QUIET),
    ):
        with pytest.raises(UserError, match=f"was made by protocol {version}.*charged a plain answer.*Make it anew"):
            work(path)
    assert list(store.find(tmp_path)) == [path]


def test_a_successor_in_the_folder_written_to_counts_too(superseded: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = superseded
    record = store.load(old)
    place = store.record_folder(tmp_path / "runs", record)
    place.mkdir(parents=True)
    new.rename(place / new.name)
    store.refuse_superseded(old, record)
    with pytest.raises(store.Superseded, match=new.name):
        store.refuse_superseded(old, record, tmp_path / "runs")


def test_of_several_records_the_superseded_are_left_out(superseded: tuple[Path, Path], capsys) -> None:
    old, new = superseded

    def work(path: Path):
        record = store.load(path)
        store.refuse_superseded(path, record)
        return record

    assert [made.path for made in each_record([old, new], work, Display())] == [new]
    assert "already. Give that one." in capsys.readouterr().err
    with pytest.raises(store.Superseded):
        list(each_record([old], work, QUIET))
    with pytest.raises(UserError, match="all of the 2 records are superseded"):
        list(each_record([old, old], work, QUIET))


def test_seeds_beyond_the_protocol_are_named_on_the_board(tmp_path: Path) -> None:
    paths = [generated.save(tmp_path, "quick", seed=seed) for seed in (0, 1, 5, 6)]
    for chosen, notes in (
        (paths[:2], []),
        (paths[2:], []),
        (paths[:3], ["Seed 5 of quick is beyond the protocol's 0 to 4 and does not count."]),
        (paths, ["Seeds 5, 6 of quick are beyond the protocol's 0 to 4 and do not count."]),
    ):
        (group,) = groups([Entry(path, store.load(path)) for path in chosen])
        board = assemble(group)
        assert board.notes == notes
        assert all(note in to_markdown(board, "x", []) for note in notes)


def test_a_reference_that_fails_says_so_in_a_sentence_of_its_own(monkeypatch) -> None:
    def refuse(*_):
        raise UserError("method 'serial_ce' on task 'digits': it has no exit")

    monkeypatch.setattr(plan, "count_exits", refuse)
    with pytest.raises(UserError, match=r"it has no exit\. It is the reference: "):
        plan.make_plan("serial_ce", load_task("digits"), device="cpu")


def test_an_index_is_for_cuda_devices() -> None:
    with pytest.raises(UserError, match=r"device 'cpu:1' has an index.*Use --device cpu\."):
        pick_device("cpu:1")


def test_a_library_that_the_verb_itself_calls_is_the_place_and_not_what_called_the_verb(capsys, monkeypatch) -> None:
    def fault(*_):
        return torch.zeros(2) + torch.zeros(3)

    fault.__code__ = fault.__code__.replace(co_filename=str(Path(command_line.__file__).parents[1] / "made_up.py"))
    monkeypatch.setattr("anytime_bench.cli.titles.titled", fault)
    status, _, err = cli(capsys, monkeypatch, "list", "methods")
    assert status == 1
    assert "typer" not in err
    assert "made_up.py" in err, err


def test_a_corruption_that_raises_is_named() -> None:
    with KINDS.temporary():
        register_corruption("one", lambda pixels: pixels)
        with pytest.raises(PluginError) as caught:
            corrupt(torch.zeros(1, 1, 8, 8), "one", seed=0, indices=[0])
        register_corruption("two", lambda pixels, draws: pixels + int("x"))
        with pytest.raises(PluginError) as other:
            corrupt(torch.zeros(1, 1, 8, 8), "two", seed=0, indices=[0])
    assert describe(caught.value).startswith("corruption 'one': ")
    assert "takes 1 positional argument" in describe(caught.value)
    place = location(describe(other.value))
    assert place is not None
    assert place[0] == __file__


def test_only_a_full_disk_wants_space() -> None:
    assert make_room(OSError(errno.ENOSPC, "full")) == "Free some space"
    assert make_room(PermissionError(errno.EACCES, "no")) == "Make it writable"


def test_a_class_that_lacks_build_is_named(tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text("from anytime_bench import Method\n\n\nclass Half(Method):\n    pass\n")
    with pytest.raises(UserError, match=r"class Half lacks build, so it is no method yet"):
        load_plugin(str(file))


def test_a_source_given_as_a_record_is_not_to_be_removed(tmp_path: Path) -> None:
    for name, words in (("mine.py", "Expected a record"), ("mine.json", "It may be truncated; remove it.")):
        (tmp_path / name).write_text("x = 1")
        with pytest.raises(UserError, match=words):
            store.load(tmp_path / name)


@pytest.mark.parametrize("arguments", [(), ("leaderboard",)])
def test_nothing_to_do_shows_the_help(capsys, monkeypatch, arguments) -> None:
    status, out, err = cli(capsys, monkeypatch, *arguments)
    assert status == 2
    assert "Usage:" in out + err
    assert "error:" not in err


def test_image_folder_without_a_folder(capsys, monkeypatch) -> None:
    _, _, err = cli(capsys, monkeypatch, "run", "-m", "serial_ce", "-t", "image_folder")
    assert "which folder? Write image_folder:PATH" in err


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", "the last finished epoch is stored. Resume with:\n  anytime-bench run x --resume\n"),
        ("sweep", "finished runs and epochs are stored. Go on with:\n  anytime-bench sweep x\n"),
        ("check", "nothing half-written is left.\n"),
    ],
)
def test_an_interrupt_says_what_is_left_of_the_verb(capsys, monkeypatch, verb, words) -> None:
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "app", interrupt)
    status, _, err = cli(capsys, monkeypatch, verb, "x")
    assert status == 130
    assert err == f"\ninterrupted; {words}"


def test_a_store_without_boards_has_no_record_with_results(capsys, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    store_of = ("--results", str(tmp_path / "results"), "--out", str(tmp_path / "boards"))
    monkeypatch.setattr("anytime_bench.leaderboard.build.build", lambda *_: [])
    _, _, err = cli(capsys, monkeypatch, "leaderboard", "build", *store_of)
    assert "there is no record with results below" in err


def test_what_cannot_be_judged_here_is_not_said_to_be_wrong(capsys, monkeypatch, tmp_path: Path) -> None:
    path = generated.save(tmp_path, "unknown_method")
    monkeypatch.setattr(verbs, "cores_at_hand", lambda: 1)
    status, out, _ = cli(capsys, monkeypatch, "verify", "--rebuild", str(path))
    assert status == 1
    assert "it cannot be judged here: unknown method" in out
    assert out.splitlines()[-1] == "0 of 1 records hold, 1 cannot be judged here"
