"""The record: everything one run found out, as immutable, content-addressed JSON. Unknown keys are refused.

``record_id`` is the SHA-256 of the canonical JSON of everything else. Values that repeat bit for bit for the same
seed and device live in ``exits`` and ``scores``; whatever a clock had a part in lives in ``timing`` and
``timed_scores``. Shares (accuracies, AUC) are in [0, 1], costs in their axis's unit (ticks, MACs, seconds).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from anytime_bench.files import canonical_json
from anytime_bench.harness.span_summary import SpanBlock

SCHEMA_VERSION = 1
#: Changes whenever a score or a measurement would come out differently for the same weights.
PROTOCOL_VERSION = "1"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Strict):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class MethodEntry(Strict):
    name: str
    origin: dict[str, str]
    options: dict[str, Any]
    card: dict[str, Any]
    weights_from: str | None = None
    starts_from: str | None = None


class TaskEntry(Strict):
    name: str
    title: str
    version: str
    classes: int
    shape: tuple[int, int, int]
    sizes: dict[str, int]
    sha256: str


class TrainingEntry(Strict):
    """How the weights came about. ``seconds`` is wall time; for weights taken over it is their source's.

    In a failed record it says that the training diverged: there are no weights, and their hash is empty.
    """

    seed: int
    epochs: int
    recipe_name: str = ""
    recipe: dict[str, Any]
    recipe_sha256: str
    #: The recipe of the method whose trained weights this training began with, where there is one.
    source_recipe: dict[str, Any] | None = None
    weights_sha256: str
    seconds: float
    final_loss: float | None = None
    final_losses: list[float] = Field(default_factory=list)


class ExitEntry(Strict):
    """One exit on the test split. ``macs`` are cumulative with every answer emitted, ``macs_prefix`` for it alone."""

    k: int
    ticks: float
    macs: int
    macs_prefix: int
    accuracy: Estimate
    top5: float | None = None
    nll: float
    brier: float
    ece: float
    auroc: float | None = None
    augrc: float | None = None
    #: Scores that plugins add (``scores.catalogue.register_score``), those that are defined.
    extra: dict[str, float] = Field(default_factory=dict)


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


class Record(Strict):
    """One run of one method on one task with one seed on one device."""

    schema_version: Literal[1] = 1
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
    environment: dict[str, Any]
    parameters: int | None = None
    #: Counted costs per exit, dense and reused executions included; see ``harness/cost.py``.
    costs: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    exits: list[ExitEntry] = Field(default_factory=list)
    #: Cost of the reference model's full answer per axis; every horizon is a multiple of it.
    reference: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    timing: dict[str, Any] = Field(default_factory=dict)
    timed_scores: dict[str, Any] = Field(default_factory=dict)
    stopping: dict[str, Any] = Field(default_factory=dict)
    robustness: dict[str, Any] = Field(default_factory=dict)
    #: Scores per image that plugins add: means over test images.
    extra_scores: dict[str, Estimate] = Field(default_factory=dict)
    #: Accuracy at a budget: per stopping rule, cost axis and percent of the reference's full cost; None where the rule
    #: cannot spend so little.
    rules: dict[str, dict[str, dict[str, Estimate | None]]] = Field(default_factory=dict)
    #: What came from plugins, by ``score <name>`` or ``rule <name>``.
    added: dict[str, Added] = Field(default_factory=dict)
    #: Parallel time: work, span, and when exits are ready on P lanes.
    span: SpanBlock | None = None
    #: Files by role; ``trace`` is the ``.npz`` beside the record, from which all scores are recomputed.
    artifacts: dict[str, Artifact] = Field(default_factory=dict)
    supersedes: str | None = None
    #: Where the record was read from; not part of its content.
    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file this record was read from, if any."""
        return self._path

    @field_validator("exits")
    @classmethod
    def _exits_in_order(cls, exits: list[ExitEntry]) -> list[ExitEntry]:
        if [entry.k for entry in exits] != list(range(len(exits))):
            raise ValueError("exits must be numbered 0, 1, 2, ... in order")
        return exits

    @model_validator(mode="after")
    def _status_explains_itself(self) -> Record:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a record with status {self.status} must give its reason")
        if self.status == "ok" and (not self.exits or "trace" not in self.artifacts):
            raise ValueError("a record with status ok must hold exits and a trace")
        return self

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON of every field but ``record_id``."""
        return content_hash(self.model_dump(mode="json"))

    def sealed(self) -> Record:
        """The same record with its id filled in."""
        return self.model_copy(update={"record_id": self.content_hash()})


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
