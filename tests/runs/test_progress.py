"""The one progress bar: time left from the first minute, also where there is no terminal and after a resumed start."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from anytime_bench.runs import progress as module
from anytime_bench.runs.progress import Steps, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def lines_of(steps) -> list[str]:
    return steps.getvalue().splitlines()


def test_a_slow_task_says_the_time_left_within_its_first_minute(clock):
    file = io.StringIO()
    with progress("train", 1.0, console=Console(file=file, width=100), lines=True) as bar:
        for second in range(1, 61):
            clock.now = float(second)
            bar.at(second / 36_000)
    shown = lines_of(file)
    assert len(shown) == 2, shown
    assert "31s, 9h59m left" in shown[1]


def test_lines_come_at_every_tenth_and_at_least_every_ten_minutes(clock):
    file = io.StringIO()
    with progress("train", 10, console=Console(file=file, width=100), lines=True) as bar:
        for step in range(1, 101):
            clock.now = 100.0 * step
            bar(0.1)
    shown = [int(line.split()[1]) for line in lines_of(file)]
    assert shown[-1] == 100
    assert set(range(10, 101, 10)) <= set(shown)
    assert len(shown) <= 25


def test_a_resumed_run_does_not_count_what_was_done_before(clock):
    steps = Steps("train", 1.0, lambda share, title, note: None)
    clock.now = 1.0
    steps.at(0.5)
    assert steps.left is None
    clock.now = 11.0
    steps.at(0.6)
    assert steps.left == pytest.approx(40.0)


def test_nothing_is_written_without_a_terminal_where_no_lines_are_wanted():
    file = io.StringIO()
    with progress("verify", 3, console=Console(file=file)) as bar:
        for _ in range(3):
            bar()
    assert file.getvalue() == ""
    assert bar.share == 1.0


def test_titles_are_no_markup():
    file = io.StringIO()
    with progress("train [/red]", 1, console=Console(file=file, force_terminal=True, width=100)) as bar:
        bar(1, "note [/bold]")
    assert "[/red]" in file.getvalue()
