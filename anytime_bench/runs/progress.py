"""The one progress bar: how far, how long so far, how long still. Standard error, so standard output stays clean.

On a terminal it is a bar; elsewhere, where asked for, lines: one within the first minute, then at every tenth of the
way and at least every ten minutes. Light: no torch.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

#: Seconds after which the first line appears, and after which another one does, where there is no terminal.
FIRST_LINE, EVERY = 30.0, 600.0


class Steps:
    """How far a piece of work is. ``show`` is called with share in [0, 1], title and note at each step."""

    def __init__(self, title: str, total: float, show: Callable[[float, str, str], None]) -> None:
        self.title, self.total, self.done, self.note = title, total, 0.0, ""
        self._show = show
        self._began = time.monotonic()
        #: When and where the first step ended: a resumed run begins with a jump, which says nothing about speed.
        self._first: tuple[float, float] | None = None

    def __call__(self, amount: float = 1, note: str | None = None) -> None:
        """``amount`` of the total was done since the last call."""
        self.at(self.done + amount, note)

    def at(self, done: float, note: str | None = None, *, total: float | None = None, title: str | None = None) -> None:
        """``done`` of ``total`` is done."""
        self.done, self.total = done, total or self.total
        self.note = self.note if note is None else note
        self.title = title or self.title
        if self._first is None:
            self._first = (time.monotonic(), self.share)
        self._show(self.share, self.title, self.note)

    @property
    def share(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def passed(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float | None:
        """Seconds still to come at the speed so far; None before there is one."""
        if self._first is None or self.share <= self._first[1]:
            return None
        began, share = self._first
        return (time.monotonic() - began) * (1 - self.share) / (self.share - share)

    def times(self) -> str:
        """``1m05s, 20s left``."""
        left = self.left
        return duration(self.passed) + (f", {duration(left)} left" if left is not None and self.share < 1 else "")


@contextlib.contextmanager
def progress(
    title: str, total: float = 1.0, *, console: Console | None = None, lines: bool = False, transient: bool = True
) -> Iterator[Steps]:
    """A bar on a terminal. Elsewhere ``lines`` decides whether there are lines or nothing."""
    console = console or Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _lines(title, total, console) if lines else Steps(title, total, lambda share, title, note: None)
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(16), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[times]}"), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=transient) as bar:
        task = bar.add_task(title, total=1.0, note="", times="")

        def show(share: float, title: str, note: str) -> None:
            bar.update(task, completed=share, description=title, note=note, times=steps.times())

        steps = Steps(title, total, show)
        yield steps


def _lines(title: str, total: float, console: Console) -> Steps:
    tenth, printed, estimated = -1, 0.0, False

    def show(share: float, title: str, note: str) -> None:
        nonlocal tenth, printed, estimated
        reached = int(10 * share + 1e-9)
        due = steps.passed > (printed + EVERY if estimated else FIRST_LINE)
        if reached > tenth or (due and steps.left is not None):
            tenth, printed, estimated = reached, steps.passed, estimated or steps.left is not None
            text = f"{title} {100 * share:3.0f} %  {steps.times()}  {note}"
            console.print(text.rstrip(), soft_wrap=True, markup=False)

    steps = Steps(title, total, show)
    return steps


def duration(seconds: float) -> str:
    """``75`` -> ``1m15s``.

    >>> duration(4.2), duration(75), duration(7300)
    ('4s', '1m15s', '2h01m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
