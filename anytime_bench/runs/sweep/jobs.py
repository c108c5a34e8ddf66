"""One job of a sweep and the process that does it: ``python -m anytime_bench.runs.sweep.jobs '<json>'``.

A job trains shared weights (``trained``), goes up to the timing (``prepared``) or all the way (``record``). It first
takes its lock files, without waiting: whoever holds one is doing the same work, so the process ends with status
``BUSY``. Then it shares this machine with other jobs, or waits until it has it alone, if it is to time something.
Locks belong to open files: the kernel drops them however a process ends. torch is imported after the locks are held.

Standard input is a life line: it closes when the sweep dies, and the job then ends itself and its children.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anytime_bench.errors import UserError

if TYPE_CHECKING:
    from anytime_bench.training.loop import TrainingStep

Existing = Literal["skip", "rerun", "error"]
Until = Literal["trained", "prepared", "record"]

#: Exit status of a job whose work another process has in hand (EX_TEMPFAIL).
BUSY = 75
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """Everything a process needs to do one piece of a sweep. ``alone`` keeps the machine for itself while it works."""

    name: str
    until: Until
    method: str
    task: str
    seed: int
    overrides: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    out: str = "runs"
    device: str = "auto"
    data_root: str | None = None
    recipe: str | None = None
    resume: bool = True
    alone: bool = False
    needs: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    #: The file that shows that this job is done; empty for a job that ends with a record.
    outcome: str = ""
    #: What the record of this run shows (see ``sweep_plan.identity``), and the task's name in the store. Where it is
    #: given, a run that is in the store already is not done again.
    expected: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    command: str = ""
    memory_limit: float = 0.0
    threads: int = 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        values = json.loads(text)
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


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
def machine(alone: bool) -> Iterator[None]:
    """Share the machine with other jobs, or wait until none runs and keep others out."""
    handle = take_lock(machine_lock(), fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def finished_record(job: Job) -> str:
    """The path of the record this job would end with, if the store has it; else an empty string."""
    if not job.expected:
        return ""
    from anytime_bench.runs.sweep.existing import find_run

    found = find_run(Path(job.out), job.card, job.expected)
    return str(found.path) if found is not None else ""


def do(job: Job, report: Report = lambda event: None) -> dict[str, Any]:
    """Carry the job out in this process; returns ``status`` (ok, failed, skipped, busy), ``reason`` and ``record``.

    Raises ``UserError`` for bad input. ``report`` is told when the work begins and how far training is.
    """
    with locked(job) as free:
        if not free:
            return {"status": "busy", "reason": "another process has this run in hand", "record": ""}
        # Looked up with the lock held: nobody else can finish the same run from here on.
        record = finished_record(job)
        if record:
            return {"status": "ok", "reason": "", "record": record}
        report({"event": "waiting"})
        with machine(job.alone):
            report({"event": "started"})
            return _work(job, report)


def _work(job: Job, report: Report) -> dict[str, Any]:
    import torch

    from anytime_bench.methods.plugins import load_plugin
    from anytime_bench.records import store
    from anytime_bench.runs.pipeline import execute
    from anytime_bench.runs.plan import make_plan
    from anytime_bench.runs.sweep.display import JobDisplay
    from anytime_bench.tasks.loading import load_task

    if job.threads:
        torch.set_num_threads(job.threads)
    for plugin in job.plugins:
        load_plugin(plugin)
    plan = make_plan(
        job.method, load_task(job.task, job.data_root), seed=job.seed, overrides=job.overrides, device=job.device,
        out=job.out, resume=job.resume, recipe_file=job.recipe, command=job.command,
    )  # fmt: skip
    display = JobDisplay(report)
    display.plan(plan)
    path = execute(plan, display, until=job.until)
    if path is None:
        return {"status": "ok", "reason": "", "record": ""}
    record = store.load(path)
    display.result(record, path, "")
    return {"status": record.status, "reason": record.reason, "record": str(path)}


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


def be_first_to_go() -> None:
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
    be_first_to_go()
    limit_memory(job.memory_limit)
    told = 0.0

    def report(event: dict[str, Any]) -> None:
        nonlocal told
        if event["event"] == "training" and time.monotonic() - told < 0.25:
            return
        told = time.monotonic()
        with contextlib.suppress(OSError):
            os.write(events, json.dumps(event).encode() + b"\n")

    try:
        result = do(job, report)
    except UserError as error:
        result = {"status": "failed", "reason": " ".join(str(error).split()), "record": ""}
    report({"event": "done", **result})
    sys.stdout.flush()
    sys.stderr.flush()
    # Whatever threads a plugin left behind must not keep a finished run from ending.
    os._exit({"ok": 0, "skipped": 0, "busy": BUSY}.get(result["status"], 1))


def training_event(step: TrainingStep) -> dict[str, Any]:
    return {"event": "training", "epoch": step.epoch, "epochs": step.epochs, "fraction": step.fraction}


if __name__ == "__main__":
    main()
