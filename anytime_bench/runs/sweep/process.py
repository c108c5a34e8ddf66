"""The process of one job: ``python -m anytime_bench.runs.sweep.process '<json>' FD``.

A job first takes its lock files, without waiting: whoever holds one is doing the same work, so the process ends with
status ``BUSY``. Then it shares this machine with other jobs, or waits until it has it to itself, if it is to time
something. Locks belong to open files: the kernel drops them however a process ends.

End of file on standard input means that the sweep died; the job then ends itself and its children.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from anytime_bench.errors import UserError, message
from anytime_bench.runs.sweep.existing import finished_record
from anytime_bench.runs.sweep.jobs import Event, Job, JobEnd, Report

#: Exit status of a job whose work another process is doing (EX_TEMPFAIL).
BUSY = 75
#: At most one report of training progress in so many seconds.
REPORT_EVERY = 0.25


def lock_folder(out: str | Path) -> Path:
    return Path(out) / ".sweep" / "locks"


def machine_lock() -> Path:
    """One file per user and machine: trainings share it, a timing has it alone, whichever folders they write to."""
    return Path(tempfile.gettempdir()) / f"anytime-bench-{os.getuid()}" / "machine.lock"


def take_lock(path: Path, how: int) -> int | None:
    """An open file with the lock on ``path``, or None where it is taken and ``how`` holds ``LOCK_NB``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextlib.contextmanager
def locked(job: Job) -> Iterator[bool]:
    """Whether all of the job's lock files could be taken; they are held inside the block."""
    held: list[int] = []
    try:
        for name in job.locks:
            path = lock_folder(job.out) / f"{name}.lock"
            try:
                handle = take_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(f"cannot lock '{path}': {error.strerror or error}. Choose another --out.") from error
            if handle is None:
                yield False
                return
            held.append(handle)
        yield True
    finally:
        for handle in held:
            os.close(handle)


@contextlib.contextmanager
def machine(exclusive: bool) -> Iterator[None]:
    """Share the machine with other jobs, or wait until none runs and keep others out."""
    handle = take_lock(machine_lock(), fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def run_job(job: Job, report: Report = lambda event: None) -> JobEnd:
    """Carry the job out in this process. ``report`` hears when the work begins and how far training is.

    Raises ``UserError`` for bad input.
    """
    with locked(job) as free:
        if not free:
            return JobEnd("busy", "another process is doing this run")
        # Looked up with the lock held: nobody else can finish the same run from here on.
        record = finished_record(job)
        if record:
            return JobEnd("ok", record=record)
        report(Event("waiting"))
        with machine(job.exclusive):
            report(Event("started"))
            # torch is imported once the locks are held: a job that is busy ends without it.
            from anytime_bench.runs.sweep.work import carry_out

            return carry_out(job, report)


def end_with_parent() -> None:
    """End this process and its children when standard input closes, and at once when the parent thread dies."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def prefer_oom_kill() -> None:
    """Ask the kernel to end this process, not the sweep, when memory runs out. Allowed without any privilege."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def limit_memory(gib: float) -> None:
    """Make allocations beyond ``gib`` of address space fail. For CPU jobs: CUDA reserves far more than it uses."""
    if gib:
        import resource

        limit = int(gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    job, events = Job.from_json(sys.argv[1]), int(sys.argv[2])
    end_with_parent()
    prefer_oom_kill()
    limit_memory(job.memory_limit)
    reported = 0.0

    def report(event: Event) -> None:
        nonlocal reported
        if event.kind == "training" and time.monotonic() - reported < REPORT_EVERY:
            return
        reported = time.monotonic()
        with contextlib.suppress(OSError):
            os.write(events, event.to_json().encode() + b"\n")

    try:
        end = run_job(job, report)
    except UserError as error:
        end = JobEnd("failed", message(error))
    report(Event("done", end=end))
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever threads a plugin left behind must not keep a finished run from ending.
    os._exit({"ok": 0, "skipped": 0, "busy": BUSY}.get(end.status, 1))


if __name__ == "__main__":
    main()
