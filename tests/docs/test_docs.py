"""The documentation is true: its files and commands run as printed, its generated page is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.walk import Failed, reason_to_leave_out, shortened, steps, walk

ROOT = Path(__file__).parents[2]


def test_the_walker_reads_files_python_and_commands() -> None:
    page = (
        '```python title="a.py"\nx = 1\n```\n\n```python\nprint(1)\n```\n'
        "```sh\nanytime-bench list  # names\n\nls \\\n -l\n```\n"
    )
    assert [step.kind for step in steps(page)] == ["file", "python", "sh", "sh"]
    assert next(steps(page)).name == "a.py"
    assert [step.text for step in steps(page)][2:] == ["anytime-bench list", "ls   -l"]
    assert reason_to_leave_out("anytime-bench verify <record id>") == "holds a placeholder"
    assert reason_to_leave_out("anytime-bench list methods") == ""
    assert shortened("anytime-bench run --method sdn epochs=5") == (
        "anytime-bench run --method sdn epochs=5 timing_budget=1"
    )
    assert shortened("anytime-bench verify runs") == "anytime-bench verify runs"


def test_the_walker_shows_the_command_that_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```python title="a.py"\nx = 1\n```\n```sh\nls a.py\n```\n')
    assert "ls a.py" in walk(page)
    page.write_text("```sh\nls b.py\n```\n")
    with pytest.raises(Failed, match=r"ls b\.py"):
        walk(page)


def test_ci_walks_every_page_that_shows_a_command() -> None:
    walked = (ROOT / ".ci" / "run").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        commands = [s.text for s in steps(page.read_text()) if s.text.startswith("anytime-bench")]
        run = [command for command in commands if not reason_to_leave_out(command)]
        assert not run or page.stem in walked, f"{page.name} shows {run[0]}"


def test_the_page_of_the_command_line_is_current() -> None:
    checked = subprocess.run(
        [sys.executable, "docs/make_cli_page.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_the_navigation_names_every_page() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in config] == []


def test_every_test_that_the_page_on_gpus_names_exists() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "gpu.md").read_text())
    written = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) >= 15
    assert [name for name in named if name not in written] == []
