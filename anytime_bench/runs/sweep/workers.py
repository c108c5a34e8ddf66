"""Processes that do the jobs of a sweep, as their parent sees them: started, listened to, stopped as a whole group.

Each job is one process with a log file of its own, one GPU (``CUDA_VISIBLE_DEVICES``) or its share of the CPU threads.
It is the head of a process group, so that stopping it stops whatever it started too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from anytime_bench.errors import UserError
from anytime_bench.harness.cores import cores_at_hand
from anytime_bench.runs.sweep.jobs import Event, Job, JobEnd
from anytime_bench.runs.sweep.process import BUSY


@dataclass(frozen=True)
class Slot:
    """Where a job may run: a GPU, named as in ``CUDA_VISIBLE_DEVICES``, or ``threads`` CPU threads."""

    gpu: str = ""
    threads: int = 0

    @property
    def label(self) -> str:
        return f"gpu {self.gpu}" if self.gpu else f"cpu, {self.threads} threads" if self.threads else "cpu"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The process environment: the GPU it may see, and no more threads than its share."""
        own = dict(base)
        if self.gpu:
            own["CUDA_VISIBLE_DEVICES"] = self.gpu
        if self.threads:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                own[name] = str(self.threads)
        return own


def usable_cores() -> int:
    """Cores this process may use, not more than ``OMP_NUM_THREADS`` where that is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores_at_hand(), int(limit)) if limit.isdigit() and int(limit) > 0 else cores_at_hand()


def slots_for(jobs: int, gpus: list[str]) -> list[Slot]:
    """One slot per job that runs at a time: a GPU each, or the CPU threads divided evenly.

    ``OMP_NUM_THREADS`` bounds the threads of one job, as it would without a sweep.
    """
    if gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return [Slot(gpu=visible_device(gpu, visible)) for gpu in gpus for _ in range(max(jobs // len(gpus), 1))]
    count = jobs or 1
    return [Slot(threads=min(max(cores_at_hand() // count, 1), usable_cores()))] * count


def visible_device(name: str, visible: str | None) -> str:
    """What ``CUDA_VISIBLE_DEVICES`` must be for a process that may use GPU ``name`` alone.

    ``name`` is an index or a UUID, ``visible`` the variable as it is (None: not set). As for torch, index i is the i-th
    of the GPUs that are visible now. Raises UserError for a GPU that is not among them.

    >>> visible_device("1", None), visible_device("1", "4,5"), visible_device("GPU-ab", "GPU-abc,GPU-def")
    ('1', '5', 'GPU-abc')
    """
    name = name.strip()
    if visible is None:
        return name
    names = [each.strip() for each in visible.split(",") if each.strip()]
    if name.isdigit():
        if int(name) < len(names):
            return names[int(name)]
    else:
        matches = [each for each in names if each == name or each.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        if all(each.isdigit() for each in names):
            return name  # the variable counts, the user names: no way to compare them here
    range_ = f"GPUs are numbered 0 to {len(names) - 1} here" if names else "no GPU is visible"
    raise UserError(f"GPU '{name}' is not a visible one: CUDA_VISIBLE_DEVICES is '{visible}', so {range_}.")


#: The state of a job that another one keeps from the machine.
WAITS = "waits for the machine"


@dataclass
class Worker:
    """A running job. ``state`` and ``share`` are what it last reported, ``end`` how it says it ended."""

    job: Job
    slot: Slot
    process: subprocess.Popen[bytes]
    log: Path
    events: IO[bytes]
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    state: str = "starting"
    share: float | None = None
    end: JobEnd | None = None
    stopped: str = ""
    _rest: bytes = b""

    @classmethod
    def start(cls, job: Job, slot: Slot, log: Path) -> Worker:
        """Start the job's process. It dies with this one: by the kernel's word, or when its standard input closes."""
        log.parent.mkdir(parents=True, exist_ok=True)
        job = dataclasses.replace(job, threads=slot.threads)
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "anytime_bench.runs.sweep.process", job.to_json(), str(write_end)],
                    stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, pass_fds=(write_end,),
                    start_new_session=True, env=slot.environment(os.environ),
                )  # fmt: skip
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        return cls(job, slot, process, log, os.fdopen(read_end, "rb", buffering=0))

    def poll(self, time_limit: float) -> bool:
        """Take in what the job reported; stop it beyond ``time_limit`` seconds of work. True when it has ended."""
        ended = self.process.poll() is not None
        self._listen()
        if ended:
            self.close()
            return True
        if time_limit and self.started is not None and time.monotonic() - self.started > time_limit:
            self.stop(f"stopped after {time_limit:g} seconds, the time limit")
        return False

    def stop(self, reason: str) -> None:
        """Kill the job and everything it started."""
        self.stopped = self.stopped or reason
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        # Children that outlived the job, such as a plugin's own, are in its group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.events.close()
        if self.process.stdin is not None:
            self.process.stdin.close()

    @property
    def waits(self) -> bool:
        """Whether it waits until another job leaves it the machine."""
        return self.state == WAITS

    @property
    def seconds(self) -> float:
        return time.monotonic() - (self.started or self.created)

    def ended(self) -> JobEnd:
        """How the job ended, also where the process said nothing about it."""
        end = self.end or self._silent_end()
        if self.stopped:
            end = JobEnd("failed", self.stopped)
        return dataclasses.replace(end, seconds=self.seconds, log=str(self.log))

    def _silent_end(self) -> JobEnd:
        code = self.process.returncode
        if code == BUSY:
            return JobEnd("busy")
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
            return JobEnd("failed", f"killed by {name}{hint}")
        return JobEnd("failed", f"the process ended with status {code} and no record")

    def _listen(self) -> None:
        while True:
            try:
                data = self.events.read(65536)
            except (BlockingIOError, ValueError):
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(Event.from_json(line))

    def _take(self, event: Event) -> None:
        if event.kind == "done":
            self.end = event.end
        elif event.kind == "started":
            self.started, self.state = time.monotonic(), "working"
        elif event.kind == "training":
            self.state, self.share = f"epoch {event.epoch}/{event.epochs}", event.share
        else:
            self.state = WAITS
