"""A call in a forked child that is killed as by the kernel: at a random write to the disk, or at a random moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def killed(call: Callable[[], Any], rng: np.random.Generator, *, writes: int, seconds: float) -> bool:
    """Whether a child that runs ``call`` was killed: around one of its first ``writes`` flushes and renames, or within
    ``seconds``; False where it had ended by then. The child's output is thrown away."""
    at, delay = int(rng.integers(2 * writes)), float(rng.uniform(0, seconds))
    by_write = bool(rng.integers(2))
    child = os.fork()
    if child == 0:
        _child(call, at if by_write else None)
    if not by_write:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def finished(call: Callable[[], Any]) -> int:
    """The exit status of ``call`` in a forked child."""
    child = os.fork()
    if child == 0:
        _child(call, None)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(call: Callable[[], Any], at: int | None) -> None:
    """Run ``call`` and end; ``at`` counts the moments before and after each flush and rename."""
    status, silence, moments = 1, os.open(os.devnull, os.O_WRONLY), 0
    try:
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        if at is not None:
            flush, rename = os.fsync, os.replace

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def write(*arguments: Any) -> Any:
                    _maybe_die()
                    result = real(*arguments)
                    _maybe_die()
                    return result

                return write

            def _maybe_die() -> None:
                nonlocal moments
                if moments == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                moments += 1

            os.fsync, os.replace = counted(flush), counted(rename)  # type: ignore[assignment]
        call()
        status = 0
    except SystemExit as left:
        status = int(left.code or 0)
    finally:
        os._exit(status)
