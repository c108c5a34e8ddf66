"""What a sweep is made of, as plain data: runs, the jobs that make them, and how both ended. Nothing is done here.

A *cell* is one run: method, task and seed. A *job* is what one process does for it: it trains shared weights
(``trained``), goes up to the timing (``prepared``) or all the way (``record``). Everything survives JSON, because
planning and working happen in other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import JsonValue, TypeAdapter

#: What becomes of runs that exist, how far a job goes, and what the plan says of a run.
Existing = Literal["skip", "rerun", "error"]
Until = Literal["trained", "prepared", "record"]
State = Literal["new", "cached", "skip", "refused"]


class Sent:
    """What goes from process to process, as one line of JSON."""

    def to_json(self) -> str:
        return TypeAdapter(type(self)).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return TypeAdapter(cls).validate_json(text)


@dataclass(frozen=True)
class RunIdentity:
    """What a record must show to be that of a run; ``options`` and ``evaluation`` are as the record holds them."""

    method: str
    origin: str
    options: dict[str, JsonValue]
    recipe_sha256: str
    evaluation: dict[str, JsonValue]
    task: str
    seed: int
    device: str
    protocol: str
    reference: str
    reference_options: dict[str, JsonValue]


@dataclass(frozen=True, kw_only=True)
class Job(Sent):
    """Everything a process needs to do one piece of a sweep. ``exclusive``: it has the machine to itself."""

    name: str
    until: Until
    method: str
    task: str
    seed: int
    overrides: dict[str, JsonValue] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    out: str = "runs"
    device: str = "auto"
    data_root: str | None = None
    recipe: str | None = None
    resume: bool = True
    exclusive: bool = False
    needs: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    #: The file that shows that this job is done; empty for a job that ends with a record.
    done_file: str = ""
    #: What the record of this run shows, and the task's name in the store. With it, a run that is in the store already
    #: is not done again.
    identity: RunIdentity | None = None
    stored_task: str = ""
    command: str = ""
    memory_limit: float = 0.0
    threads: int = 0


@dataclass(frozen=True)
class JobEnd(Sent):
    """How one job ended. ``busy``: another process has its work. ``seconds`` it took, ``log`` is its file."""

    status: Literal["ok", "skipped", "failed", "busy"]
    reason: str = ""
    record: str = ""
    seconds: float = 0.0
    log: str = ""


@dataclass(frozen=True)
class Event(Sent):
    """What a working process tells the sweep; the last one holds how it ended."""

    kind: Literal["waiting", "started", "training", "done"]
    epoch: int = 0
    epochs: int = 0
    share: float = 0.0
    end: JobEnd | None = None


#: What hears of a job's events.
Report = Callable[[Event], None]


@dataclass
class Cell:
    """One run of the sweep. ``identity`` is that of its record, ``seconds`` the training time to expect."""

    method: str
    task: str
    seed: int
    state: State
    why: str = ""
    record: str = ""
    command: str = ""
    identity: RunIdentity | None = None
    seconds: float | None = None
    jobs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.method}@{self.task}@{self.seed}"


@dataclass
class Outcome:
    """What became of one run. ``seconds`` is the time its jobs took; ``log`` the last job's log file."""

    method: str
    task: str
    seed: int
    status: Literal["ok", "cached", "skipped", "failed"]
    reason: str = ""
    record: str = ""
    seconds: float = 0.0
    log: str = ""

    @property
    def name(self) -> str:
        return f"{self.method}@{self.task}@{self.seed}"


@dataclass
class SweepPlan(Sent):
    """All runs of a sweep in order, and the jobs that make the missing ones."""

    cells: list[Cell]
    jobs: dict[str, Job]
    warnings: list[str] = field(default_factory=list)

    def outcomes(self, ends: Mapping[str, JobEnd]) -> list[Outcome]:
        """What became of each run, from the ends of its jobs; runs without any end are left out."""
        outcomes = []
        for cell in self.cells:
            outcome = Outcome(cell.method, cell.task, cell.seed, "ok", cell.why, cell.record)
            if cell.state == "cached":
                outcome.status = "cached"
            elif cell.state == "skip":
                outcome.status = "skipped"
            else:
                ended = [ends[name] for name in cell.jobs if name in ends]
                if not ended:
                    continue
                # The first failure is the cause; those after it only repeat it.
                last = next((end for end in ended if end.status == "failed"), ended[-1])
                outcome.status = last.status if last.status in ("failed", "skipped") else "ok"
                outcome.reason, outcome.record = last.reason, last.record
                outcome.seconds, outcome.log = sum(end.seconds for end in ended), last.log
            outcomes.append(outcome)
        return outcomes
