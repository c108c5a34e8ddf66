"""The example distribution is installed without an index and found, checked and tested through its entry point."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal_plugin"

FIND_AND_ANSWER = """
import json
import torch
from anytime_bench.conformance import run_checks, synthetic_task
from anytime_bench.methods.plugins import load_method, methods

target, origin = methods.resolve("two_exits")
model = load_method("two_exits").build(synthetic_task(8, channels=1, classes=10))
print(json.dumps({
    "distribution": origin.distribution,
    "version": origin.version,
    "file": __import__(target.__module__).__file__,
    "answers": list(model(torch.zeros(5, 1, 8, 8)).shape),
    "failures": [result.name for result in run_checks(target) if result.status == "fail"],
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that sees the installed example."""
    pytest.importorskip("setuptools", minversion="77", reason="building the example needs setuptools 77")
    folder = tmp_path_factory.mktemp("installed")
    # A copy, because setuptools leaves build folders beside the sources.
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "minimal_plugin")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*command, "--target", str(folder), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def python(installed: dict[str, str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=installed, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_example_is_found_by_name_and_passes_all_checks(installed, tmp_path):
    found = json.loads(python(installed, tmp_path, "-c", FIND_AND_ANSWER))
    assert (found["distribution"], found["version"]) == ("anytime-bench-minimal-plugin", "0.1.0")
    assert found["file"].startswith(installed["PYTHONPATH"].split(os.pathsep)[0])
    assert found["answers"] == [2, 5, 10]
    assert found["failures"] == []


@pytest.mark.slow
def test_the_examples_own_tests_pass_on_the_installed_package(installed, tmp_path):
    shutil.copy(EXAMPLE / "tests" / "test_two_exits.py", tmp_path)
    output = python(installed, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_two_exits.py")
    assert re.search(r"\d+ passed, \d+ skipped in", output), output
