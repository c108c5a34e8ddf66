"""Help, lists and what reads records answer soon, because torch is not imported for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import generated_records as generated

MAIN = (
    "import sys; from anytime_bench.cli.main import main; sys.argv = ['anytime-bench', *sys.argv[1:]]\n"
    "try: main()\n"
    "except SystemExit as leave: assert not leave.code, leave.code\n"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list", "methods"],
        ["list", "tasks"],
        ["list", "corruptions"],
        ["run", "--help"],
        ["span", "--help"],
    ],
)
def test_answers_without_importing_torch(arguments):
    code = (
        f"{MAIN}"
        "heavy = {'torch', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("verb", ["verify", "report", "compare", "leaderboard"])
def test_records_are_read_without_torch(verb: str, tmp_path: Path) -> None:
    paths = [str(generated.save(tmp_path / "results", name)) for name in ("first", "second")]
    words = {
        "report": [*paths, "--out", str(tmp_path / "page.html")],
        "leaderboard": ["build", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "boards")],
    }
    code = f"{MAIN}assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, verb, *words.get(verb, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_list_methods_names_the_four_first_rows():
    command = [sys.executable, "-m", "anytime_bench", "list", "methods"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
    assert {"serial_ce", "cascaded_td", "sdn", "msdnet"} <= set(listed)


@pytest.mark.parametrize("arguments", [["check", "--help"], ["list", "methods"]])
def test_a_reader_that_leaves_early_is_no_error(arguments):
    command = [sys.executable, "-m", "anytime_bench", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
