"""The documentation is true: its files and commands run as printed, its generated page is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.walk import reason_to_leave_out, steps, walk

ROOT = Path(__file__).parents[2]
#: The other pages are walked by CI in a base install; this one is the promise that docs alone suffice.
PAGES = ("plugins",)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_and_command_of_a_page_runs_as_printed(page: str) -> None:
    assert walk(ROOT / "docs" / f"{page}.md")


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
