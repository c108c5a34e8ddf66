"""What a board says, as typed models: every format is rendered from these and from nothing else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from anytime_bench.leaderboard.row_parts import (
    AxisScores,
    Behaviour,
    BudgetLine,
    Execution,
    Interrupted,
    Model,
    Noise,
    Parallel,
    Promise,
    Quality,
    RealStop,
    Seconds,
    StoppingCurve,
    Streamed,
    Throughput,
)
from anytime_bench.records.record import Added, TaskEntry
from anytime_bench.scores.ranks import Rank
from anytime_bench.scores.results import Estimate

FORMAT = 3


class RecordFacts(Model):
    """Where a seed's numbers come from."""

    record: str
    seed: int
    created: str
    command: str
    weights: str | None
    supersedes: str | None
    training_seconds: float | None
    final_loss: float | None
    #: What the timing says of itself: why it is not comparable, and notes.
    timing: list[str]


class BoardRow(Model):
    """One method with one set of options, over its seeds."""

    #: On the board's ranking axis; the other axes have their own.
    place: Rank | None
    #: Why there is no rank, in the words of the reader; empty where there is one.
    unranked: str = ""
    label: str
    method: str
    title: str
    paper: str
    year: int | None
    url: str
    tick: str
    deviations: list[str]
    reported: float | None
    options: dict[str, Any]
    origin: dict[str, str]
    weights_from: str | None
    seeds: list[int]
    n: int
    parameters: int | None
    epochs: int | None
    training_seconds: float | None
    recipe: dict[str, Any]
    final: Estimate
    accuracy: list[Estimate]
    accuracy_by_seed: list[list[float]]
    axes: dict[str, AxisScores]
    timed: bool
    untimed_reason: str
    stopping: dict[str, StoppingCurve]
    stops: list[RealStop]
    budgets: list[BudgetLine]
    throughput: list[Throughput]
    promises: list[Promise]
    behaviour: Behaviour
    quality: list[Quality]
    #: Scores that plugins add: of the row, and per exit.
    extra: dict[str, Estimate]
    extra_exits: list[dict[str, float]]
    #: Per clock and exit.
    seconds: dict[str, list[Seconds]]
    noise: Noise | None
    parallel: Parallel | None
    interrupted: Interrupted | None
    #: Empty where frames were shown to none of the row's records.
    streaming: list[Streamed]
    #: None where no record of the row says how its model is run.
    execution: Execution | None = None
    environment: dict[str, Any]
    records: list[RecordFacts]

    @property
    def anchor(self) -> str:
        """Where the row's record is on a page: stable while its first record is."""
        return f"row-{self.records[0].record[:12]}"


class Pair(Model):
    """AUC@1 of row ``a`` less that of row ``b`` on the ranking axis, and what may be said of ``a``."""

    a: str
    b: str
    gap: Estimate
    #: p-value, corrected for all pairs of ranked rows.
    p: float
    verdict: Literal["better", "worse", "equivalent", "undecided"]
    #: With how many seeds each an undecided pair would be decided, if its gap is what it seems; None: not with 100.
    seeds_needed: int | None
    #: The horizons around 1 between which the verdict better or worse holds.
    horizons: tuple[float, float] | None


class Agreement(Model):
    """Kendall's tau between two orders of the same ``rows`` rows."""

    first: str
    second: str
    tau: Estimate
    rows: int


class Absent(Model):
    """A run without results, and why."""

    method: str
    seed: int | None
    command: str
    status: str
    reason: str
    record: str


class Reference(Model):
    """The model whose full answer is the unit of every cost; ``costs`` are its counted ones in the axes' units."""

    method: str | None
    costs: dict[str, float]
    accuracy: float | None


class Ranking(Model):
    """The axis and score that rank, and in one sentence how."""

    axis: str
    score: str = "auc_1"
    sorted_by: str


class Board(Model):
    """One task on one device under one protocol with one reference: rows best first, what is absent and why."""

    format: int = FORMAT
    task: TaskEntry
    device: str
    protocol_version: str
    reference: Reference
    chance: float
    ranking: Ranking
    axes: list[str]
    #: Of ``AxisScores.curve``, in multiples of the reference's full cost.
    horizons: list[float]
    rows: list[BoardRow]
    pairs: list[Pair]
    #: What the records say of scores and rules that plugins added.
    added: dict[str, Added]
    agreement: list[Agreement]
    absent: list[Absent] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def any_execution(self) -> bool:
        """Whether some row says how its model is run."""
        return any(row.execution is not None for row in self.rows)

    def to_json(self, indent: int | None = None) -> str:
        """Everything that the board says; without a key about execution where no row says anything of it."""
        absent = None if self.any_execution else {"rows": {"__all__": {"execution"}}}
        return self.model_dump_json(indent=indent, exclude=absent)

    @property
    def shown_axes(self) -> list[str]:
        """Axes in the order of columns: the one that ranks comes first."""
        return sorted(self.axes, key=lambda axis: axis != self.ranking.axis)
