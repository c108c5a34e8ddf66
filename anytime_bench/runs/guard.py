"""Keep a plugin from ending the process without a word, from going on in two processes, from moving and stopping it.

``sys.exit(0)`` or ``os._exit(0)`` in a plugin would end a run with status 0 and no record, a ``fork`` would write two
records, after ``os.chdir`` a relative ``--out`` would lie elsewhere, and an endless loop at import would say nothing.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from anytime_bench.errors import UserError

#: The environment variable that sets ``time_limit``, in seconds; 0 for none.
TIME_LIMIT = "ANYTIME_BENCH_TIME_LIMIT"
SECONDS = 120.0
#: How often a second is granted to code that goes on although its time is up.
GRANTED = 5

#: What a plugin may have replaced.
OWN = ((builtins, "print"), (sys, "exit"), (sys, "stdout"), (sys, "stderr"))

#: Set once this process has been asked to end, by a cluster that takes its node away: ``SystemExit`` is then meant.
_asked_to_end = False


def expect_exit() -> None:
    """From now on a ``SystemExit`` in this process is no fault of a plugin."""
    global _asked_to_end
    _asked_to_end = True


def is_meant(error: BaseException) -> bool:
    """Whether ``error`` ends the process on purpose: the user's interrupt, or an expected exit."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and _asked_to_end)


@contextlib.contextmanager
def guarded(own_output: bool = False) -> Iterator[None]:
    """Inside, ``os._exit`` and ``os.execv`` raise ``SystemExit`` as ``sys.exit`` does; a forked child ends where the
    block ends.

    The working directory, and what this process prints and ends with, are afterwards what they were before. Unless the
    block prints ``own_output``, what is printed goes to standard error: standard output is for results, which scripts
    read.
    """
    owner, leave, folder = os.getpid(), os._exit, _working_directory()
    shared: Any = _Shared(sys.stderr)
    become = {name: getattr(os, name) for name in ("execv", "execve")}
    own = [(place, name, getattr(place, name)) for place, name in OWN]

    def raise_instead(status: int = 0) -> NoReturn:
        if os.getpid() != owner:
            # A child that multiprocessing forked ends like this.
            leave(status)
        raise SystemExit(status)

    def instead_of(name: str) -> Callable[..., Any]:
        def stay(*command: Any) -> Any:
            # A child may become another program.
            return become[name](*command) if os.getpid() != owner else raise_instead(1)

        return stay

    os._exit = raise_instead
    for name in become:
        setattr(os, name, instead_of(name))
    try:
        with contextlib.nullcontext() if own_output else contextlib.redirect_stdout(shared):
            yield
    finally:
        os._exit = leave
        for name, real in become.items():
            setattr(os, name, real)
        for place, name, value in own:
            setattr(place, name, value)
        if os.getpid() != owner:
            leave(1)
        if folder is not None and _working_directory() != folder:
            os.chdir(folder)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


class _Shared:
    """A stream that whoever writes to it cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """It is not theirs to close."""


class TimeIsUp(BaseException):
    """Raised in code that takes longer than it may; no ``except Exception`` stops it."""


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
    """Raise ``UserError``, which names ``what``, where the block takes over ``ANYTIME_BENCH_TIME_LIMIT`` seconds.

    Code that catches even that is ended with the whole process after some more seconds. Only the main thread of a
    process can be interrupted; elsewhere, and where there are no alarms, there is no limit.
    """
    seconds = _limit()
    if not seconds or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    line = f"{what} takes over {seconds:g} seconds. Another limit is set by {TIME_LIMIT}."
    rung = 0

    def ring(*_: Any) -> NoReturn:
        nonlocal rung
        rung += 1
        if rung > GRANTED:
            os.write(2, f"error: {line}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        raise TimeIsUp(line)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    except TimeIsUp:
        raise UserError(line) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _limit() -> float:
    text = os.environ.get(TIME_LIMIT, "")
    try:
        return max(0.0, float(text)) if text else SECONDS
    except ValueError:
        raise UserError(f"{TIME_LIMIT} is {text!r}, expected seconds.") from None
