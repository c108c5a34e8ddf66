"""Keep a plugin from ending the process without a word, from going on in two processes, and from moving it.

``sys.exit(0)`` or ``os._exit(0)`` in a plugin would end a run with status 0 and no record, a ``fork`` would write two
records, and after ``os.chdir`` a relative ``--out`` would lie elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

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
    """Inside, ``os._exit`` raises ``SystemExit`` as ``sys.exit`` does; a forked child ends where the block ends.

    The working directory is afterwards what it was before. Unless the block prints ``own_output``, what is printed goes
    to standard error: standard output is for results, which scripts read.
    """
    owner, leave, folder = os.getpid(), os._exit, _working_directory()

    def raise_instead(status: int = 0) -> NoReturn:
        if os.getpid() != owner:
            # A child that multiprocessing forked ends like this.
            leave(status)
        raise SystemExit(status)

    os._exit = raise_instead
    try:
        with contextlib.nullcontext() if own_output else contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os._exit = leave
        if os.getpid() != owner:
            leave(1)
        if folder is not None and _working_directory() != folder:
            os.chdir(folder)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
