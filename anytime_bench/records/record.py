"""The record: everything one run found out, as immutable, content-addressed JSON. Unknown keys are refused.

``record_id`` is the SHA-256 of the canonical JSON of everything else. Values that repeat bit for bit for the same seed
and device live in ``exits``, ``scores`` and ``images``; whatever a clock had a part in lives in ``timing``, ``span``,
``timed_scores``, ``deadlines`` and the budgets of ``stopping``. Shares (accuracies, AUC) are in [0, 1], costs in their
axis's unit (ticks, MACs, seconds). What is undefined or was not measured is absent.

``Derived`` is what the record's ``.npz`` gives (``scoring.derive``), ``Record`` adds who made it and how.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, PrivateAttr, field_validator, model_validator

from anytime_bench.files import canonical_json
from anytime_bench.harness.deadline_summary import DeadlineBlock
from anytime_bench.harness.span_summary import SpanBlock
from anytime_bench.harness.streaming_summary import StreamingBlock
from anytime_bench.harness.timing_block import Timing
from anytime_bench.scores.results import Areas, Estimate, NoiseBlock, Stopping, Strict

#: The form of the JSON. Records of version 1 are read too (``schema1.py``).
SCHEMA_VERSION = 2
#: Changes whenever a score or a measurement would come out differently for the same weights; see ``protocol.py``.
PROTOCOL_VERSION = "3"

Number = int | float


def _complete(costs: dict[str, Number]) -> dict[str, Number]:
    """Costs per axis of which none is negative and that hold what every protocol counts."""
    missing = {"ticks", "macs"} - set(costs)
    if missing:
        raise ValueError(f"the cost in {missing.pop()} is missing")
    if min(costs.values()) < 0:
        raise ValueError(f"costs must not be negative, got {min(costs.values())}")
    return costs


#: A cost per axis of ``trace/axes.py``.
Costs = Annotated[dict[str, Number], AfterValidator(_complete)]


class Card(Strict):
    """What the method says of itself; see ``methods.contract.MethodCard``."""

    title: str = ""
    paper: str = ""
    year: int | None = None
    url: str = ""
    ticks: str = ""
    deviations: list[str] = Field(default_factory=list)
    reported: dict[str, float] = Field(default_factory=dict)
    family: str = ""


class MethodEntry(Strict):
    name: str
    origin: dict[str, str]
    options: dict[str, JsonValue]
    card: Card = Card()
    weights_from: str | None = None
    starts_from: str | None = None


class TaskEntry(Strict):
    name: str
    title: str
    version: str
    classes: int = Field(ge=2)
    shape: tuple[int, int, int]
    sizes: dict[str, int]
    sha256: str


class TrainingEntry(Strict):
    """How the weights came about. ``seconds`` is wall time; for weights taken over it is their source's."""

    seed: int
    epochs: int
    recipe_name: str = ""
    recipe: dict[str, dict[str, JsonValue]]
    recipe_sha256: str
    #: The recipe of the method whose trained weights this training began with, where there is one.
    source_recipe: dict[str, Any] | None = None
    weights_sha256: str
    seconds: float
    #: Of the forward pass: "fp32" or "bf16"; None where the weights do not say it.
    precision: str | None = None
    final_loss: float | None = None
    final_losses: list[float] = Field(default_factory=list)


class Environment(Strict):
    """The machine and its software; see ``harness/environment.py``. Kept as it was read: provenance, never computed
    with."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    device_class: str | None = None
    device_name: str | None = None


class ExitEntry(Strict):
    """One exit on the test split: its cumulative cost per counted axis with every answer emitted on the way.

    ``prefix_costs`` are those of this answer alone, on the axes on which that is another cost. ``scores`` are those of
    ``scores/catalogue.py`` that are defined.
    """

    k: int
    costs: Costs
    prefix_costs: dict[str, Number]
    accuracy: Estimate
    scores: dict[str, float]

    @property
    def ticks(self) -> float:
        return self.costs["ticks"]

    @property
    def macs(self) -> int:
        return int(self.costs["macs"])

    @property
    def macs_prefix(self) -> int:
        return int(self.alone("macs"))

    def alone(self, axis: str) -> float:
        """The cost of this answer alone on a counted axis."""
        return self.prefix_costs.get(axis, self.costs[axis])


class Reference(Strict):
    """The reference model and its full cost per axis, in the axis's unit: every horizon is a multiple of it.

    ``options`` are the method's own; None in records made without.
    """

    method: str
    options: dict[str, JsonValue] | None = None
    costs: Costs


class Added(Strict):
    """A score or stopping rule that a plugin added: what a table says of it, and where it comes from."""

    title: str
    better: str = ""
    origin: str


class Artifact(Strict):
    """A file that belongs to the record. An empty ``path`` means ``<record id>.npz`` beside the record."""

    path: str = ""
    sha256: str
    bytes: int


class Derived(Strict):
    """The part of a record that its raw data give. ``scores`` are per counted axis, ``timed_scores`` per timed one."""

    exits: list[ExitEntry] = Field(default_factory=list)
    reference: Reference | None = None
    scores: dict[str, Areas] = Field(default_factory=dict)
    images: dict[str, Estimate] = Field(default_factory=dict)
    stopping: Stopping | None = None
    timing: Timing | None = None
    #: Parallel time: work, span, and when exits are ready on P lanes.
    span: SpanBlock | None = None
    timed_scores: dict[str, Areas] = Field(default_factory=dict)
    #: What came of interrupting the model at deadlines.
    deadlines: DeadlineBlock | None = None
    #: What came of frames that arrive at a rate.
    streaming: StreamingBlock | None = None
    robustness: NoiseBlock | None = None

    @field_validator("exits")
    @classmethod
    def _exits_in_order(cls, exits: list[ExitEntry]) -> list[ExitEntry]:
        if [entry.k for entry in exits] != list(range(len(exits))):
            raise ValueError("exits must be numbered 0, 1, 2, ... in order")
        return exits


class Record(Derived):
    """One run of one method on one task with one seed on one device."""

    schema_version: Literal[2] = 2
    protocol_version: str = PROTOCOL_VERSION
    record_id: str = ""
    created: str
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""
    suite_version: str
    command: str
    device: str
    method: MethodEntry
    task: TaskEntry
    training: TrainingEntry | None = None
    environment: Environment
    parameters: int | None = None
    #: Cumulative MACs per exit of each further execution that the model offers; see ``harness/cost.py``.
    macs_by_execution: dict[str, list[int]] = Field(default_factory=dict)
    #: The options of the stages after training, as the recipe's section of that name has them.
    evaluation: dict[str, JsonValue] = Field(default_factory=dict)
    #: What came from plugins, by ``score <name>`` or ``rule <name>``.
    added: dict[str, Added] = Field(default_factory=dict)
    #: Files by role; ``trace`` is the ``.npz`` beside the record, from which all scores are derived.
    artifacts: dict[str, Artifact] = Field(default_factory=dict)
    supersedes: str | None = None
    #: Where the record was read from; not part of its content.
    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file this record was read from, if any."""
        return self._path

    @property
    def seed(self) -> int:
        return self.training.seed if self.training else 0

    @property
    def resamples(self) -> int:
        """Bootstrap resamples behind the stored intervals."""
        value = self.evaluation.get("resamples", 2000)
        return value if isinstance(value, int) else 2000

    @model_validator(mode="after")
    def _status_explains_itself(self) -> Record:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a record with status {self.status} must give its reason")
        if self.status == "ok" and (not self.exits or "trace" not in self.artifacts or self.reference is None):
            raise ValueError("a record with status ok must hold exits, a reference and a trace")
        return self

    def content(self) -> dict[str, Any]:
        """The record as JSON; what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def sealed(self) -> Record:
        """The same record with its id filled in."""
        return self.model_copy(update={"record_id": content_hash(self.content())})


def content_hash(stored: Mapping[str, Any]) -> str:
    """The record id of JSON as it is stored: a field that a later suite adds does not change an older record's id."""
    payload = {key: value for key, value in stored.items() if key != "record_id"}
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()


def finite(value: Any) -> Any:
    """``value`` with NaN and infinities replaced by None, arrays and NumPy scalars by plain Python: JSON-ready."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
