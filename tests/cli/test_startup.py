"""Help and lists answer at once, because torch is not imported for them."""

from __future__ import annotations

import subprocess
import sys

import pytest


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
        "import sys; from anytime_bench.cli.main import main; sys.argv = ['anytime-bench', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as leave: assert not leave.code, leave.code\n"
        "heavy = {'torch', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


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
