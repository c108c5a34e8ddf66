"""However a plugin ends or disturbs its run, there is one record and a status that says so."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin_two_exits import TwoExitNet

import anytime_bench
from anytime_bench.methods.contract import Method, MethodCard
from anytime_bench.records import store
from anytime_bench.runs.display import Display
from anytime_bench.runs.guard import guarded

QUIET = Display(quiet=True)
FAST = ["epochs=2", "batch_size=48", "timing_rounds=0", "resamples=50"]


class _Hostile(Method):
    """Does ``act`` once, in the second epoch."""

    card = MethodCard(title="Hostile")
    act = staticmethod(lambda: None)

    def build(self, task):
        return TwoExitNet(task)

    def training_loss(self, model, images, targets, progress):
        if progress.epoch == 2 and progress.step == 1:
            type(self).act()
        return super().training_loss(model, images, targets, progress)


class _Unspeakable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(error: BaseException):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: sys.exit(0), ("SystemExit", "test_endings.py")),
        (lambda: os._exit(0), ("SystemExit", "test_endings.py")),
        (_raise(_Unspeakable()), ("_Unspeakable", "cannot be shown")),
        (_raise(RuntimeError("[/red] \ud800 \x00 two\nlines")), ("RuntimeError", "[/red]", "two lines")),
        (_raise(MemoryError()), ("MemoryError",)),
    ],
)
def test_whatever_a_method_raises_is_a_failed_record_with_the_methods_own_line(tiny_task, tmp_path, act, words):
    method = type("Ends", (_Hostile,), {"act": staticmethod(act)})
    with anytime_bench.registry.methods.temporary():
        record = anytime_bench.run(method, tiny_task, overrides=FAST, out=tmp_path, display=Display())
    assert record.status == "failed"
    for word in words:
        assert word in record.reason
    assert [path.name for path in store.find(tmp_path)] == [record.path.name]


def test_a_fork_makes_one_record(tiny_task, tmp_path):
    method = type("Forks", (_Hostile,), {"act": staticmethod(os.fork)})
    owner = os.getpid()
    with anytime_bench.registry.methods.temporary():
        record = anytime_bench.run(method, tiny_task, overrides=FAST, out=tmp_path, display=QUIET)
    assert os.getpid() == owner
    os.wait()
    assert record.status == "ok"
    assert len(list(store.find(tmp_path))) == 1


def test_a_change_of_folder_moves_nothing(tiny_task, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    method = type("Moves", (_Hostile,), {"act": staticmethod(lambda: os.chdir(elsewhere))})
    with anytime_bench.registry.methods.temporary():
        record = anytime_bench.run(method, tiny_task, overrides=FAST, out="runs", display=QUIET)
    assert Path.cwd() == tmp_path
    assert record.path.is_relative_to(tmp_path / "runs")
    assert list(elsewhere.iterdir()) == []


def test_a_forked_child_may_still_end_itself():
    with guarded():
        child = os.fork()
        if child == 0:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("name", ["..", "a/../../b", "a\0b", "\ud800", "a" * 300, ""])
def test_names_stay_below_the_output_folder(tiny_task, tmp_path, name):
    method = type("Named", (_Hostile,), {"name": name})
    with anytime_bench.registry.methods.temporary():
        try:
            record = anytime_bench.run(method, tiny_task, overrides=FAST, out=tmp_path / "runs", display=QUIET)
        except anytime_bench.UserError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert record.path.parent.parent.parent.parent == tmp_path / "runs"
    assert {path.name for path in tmp_path.iterdir()} <= {"runs"}


def test_a_name_must_be_text(tiny_task, tmp_path):
    method = type("Numbered", (_Hostile,), {"name": 5})
    with pytest.raises(anytime_bench.UserError, match="name"):
        anytime_bench.run(method, tiny_task, overrides=FAST, out=tmp_path, display=QUIET)


def test_what_a_method_prints_is_not_taken_for_the_result(tiny_task, tmp_path, capsys):
    method = type("Prints", (_Hostile,), {"act": staticmethod(lambda: print("chatter"))})
    with anytime_bench.registry.methods.temporary():
        anytime_bench.run(method, tiny_task, overrides=FAST, out=tmp_path, display=QUIET)
    out, err = capsys.readouterr()
    assert (out, "chatter" in err) == ("", True)


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "checkpoint.safetensors", "checkpoint.seconds", "log.jsonl", "weights.seconds"]
)
@pytest.mark.parametrize("what", ["folder", "bytes"])
def test_odd_files_in_a_runs_folder_are_one_line_or_no_matter(tiny_task, tmp_path, name, what):
    with anytime_bench.registry.methods.temporary():
        run = functools.partial(
            anytime_bench.run, type("Plain", (_Hostile,), {}), tiny_task, overrides=FAST, out=tmp_path, display=QUIET
        )
        first = run()
        (folder,) = {path.parent for path in tmp_path.rglob("log.jsonl")}
        for path in folder.iterdir():
            path.unlink()
        if what == "folder":
            (folder / name / "inside").mkdir(parents=True)
        else:
            (folder / name).write_bytes(bytes(range(256)) * 3)
        try:
            second = run(resume=True)
        except anytime_bench.UserError as error:
            assert str(folder) in str(error)  # noqa: PT017
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert second.training.weights_sha256 == first.training.weights_sha256
    assert not list(tmp_path.rglob("*.part"))


PLUGIN = """
import os, sys
from support.sweep_plugin import Plain, MethodCard

class {name}(Plain):
    card = MethodCard("Ends")

    def training_loss(self, model, images, targets, progress):
        {act}
"""


@pytest.mark.slow
@pytest.mark.parametrize("act", ["sys.exit(0)", "os._exit(0)"])
def test_the_command_never_ends_with_0_without_a_record(tmp_path, act):
    (tmp_path / "ends.py").write_text(PLUGIN.format(name="Ends", act=act))
    (tmp_path / "recipe.yaml").write_text("reference: ends\n")
    support = Path(__file__).parents[1]
    command = [sys.executable, "-m", "anytime_bench", "run", "--plugin", "ends.py", "-m", "ends", "-t", "specks"]
    done = subprocess.run(
        [*command, "--recipe", "recipe.yaml", "--json", "epochs=1", "timing_rounds=0"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(support)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    record = json.loads(done.stdout)
    assert record["status"] == "failed"
    assert "ends.py:9" in record["reason"]
    assert "Traceback" not in done.stderr
