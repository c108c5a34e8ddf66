"""``new`` writes plugins that work as they are, and never touches what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from anytime_bench.conformance import check_method
from anytime_bench.errors import UserError
from anytime_bench.methods import scaffold
from anytime_bench.methods.contract import Progress
from anytime_bench.methods.plugins import load_method, load_plugin
from anytime_bench.methods.scaffold import new_plugin
from anytime_bench.tasks.loading import load_task


@pytest.mark.parametrize("name", ["quick_start", "a_b", "net2"])
def test_a_new_file_registers_under_its_name_and_passes_all_checks(tmp_path, name):
    (path,) = new_plugin(name, tmp_path)
    assert path == tmp_path / f"{name}.py"
    assert load_plugin(str(path)) == {"method": [name]}
    check_method(load_method(name))


def test_a_new_file_learns_the_digits(tmp_path):
    (path,) = new_plugin("digit_reader", tmp_path)
    load_plugin(str(path))
    method, task = load_method("digit_reader", width=16), load_task("digits")
    torch.manual_seed(0)
    model = method.build(task.card)
    images = torch.as_tensor(task.splits["train"].images).float() / 255 - 0.5
    labels = torch.as_tensor(task.splits["train"].labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(40):
        batch = torch.randint(len(labels), (128,))
        optimiser.zero_grad()
        method.training_loss(model, images[batch], labels[batch], Progress(1, 1, step + 1, 40)).backward()
        optimiser.step()
    with torch.no_grad():
        test = model.eval()(torch.as_tensor(task.splits["test"].images).float() / 255 - 0.5)
    accuracy = (test.argmax(2) == torch.as_tensor(task.splits["test"].labels)).float().mean(1)
    assert accuracy[0] > 0.5
    assert accuracy[1] > 0.8


@pytest.mark.slow
def test_a_new_package_names_its_entry_point_and_its_own_test_passes(tmp_path):
    paths = new_plugin("package_net", tmp_path, kind="package")
    folder = tmp_path / "package_net"
    assert all(path.is_file() for path in paths)
    assert {path.relative_to(folder).as_posix() for path in paths} == {
        "anytime_bench_package_net/__init__.py",
        "pyproject.toml",
        "tests/test_package_net.py",
        "README.md",
    }
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "anytime-bench-package-net"
    assert project["entry-points"]["anytime_bench.methods"] == {"package_net": "anytime_bench_package_net:PackageNet"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert re.search(r"\d+ passed, \d+ skipped in", done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["file", "package"])
def test_what_exists_is_never_overwritten(tmp_path, kind):
    mine = tmp_path / ("mine.py" if kind == "file" else "mine")
    mine.write_text("my work")
    with pytest.raises(UserError, match="exists already and is not overwritten"):
        new_plugin("mine", tmp_path, kind)
    assert mine.read_text() == "my work"
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]


def test_a_file_that_appears_while_writing_is_kept(tmp_path, monkeypatch):
    files = scaffold.plugin_files

    def late(name: str, kind: str) -> dict[Path, str]:
        (tmp_path / "late.py").write_text("another's work")
        return files(name, kind)

    monkeypatch.setattr(scaffold, "plugin_files", late)
    with pytest.raises(UserError, match="cannot be written"):
        new_plugin("late", tmp_path)
    assert (tmp_path / "late.py").read_text() == "another's work"
    assert [path.name for path in tmp_path.iterdir()] == ["late.py"]


@pytest.mark.parametrize("kind", ["file", "package"])
def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch, kind):
    written = []

    def full(path: Path, *_args: object, **_kwargs: object) -> int:
        written.append(path)
        if len(written) == (1 if kind == "file" else 3):
            raise OSError(28, "No space left on device")
        return 0

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        new_plugin("half", tmp_path / "deep", kind)
    assert written
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "TwoExits", "two-exits", "2exits", "_two", "two__exits", "class", "a/b", "../a", "é"]
)
def test_a_name_that_cannot_be_is_refused_with_an_example(tmp_path, name):
    with pytest.raises(UserError, match="such as two_exits"):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_says_by_whom(tmp_path):
    with pytest.raises(UserError, match=r"method 'msdnet' exists already in anytime_bench .*MSDNet"):
        new_plugin("msdnet", tmp_path)


def test_an_unknown_kind_and_a_target_that_is_no_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected file or package"):
        new_plugin("fine", tmp_path, kind="module")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        new_plugin("fine", tmp_path / "a.txt")
