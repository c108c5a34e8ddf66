"""What a record claims beside its scores, checked without model or data: dates, recipe, task, files, costs.

``claims`` needs the record alone, ``answer_claims`` its arrays too. Faults are one line each, without the record's
name. A hash only says that nobody edited a file by accident: whoever forges computes it anew, so each claim is held
against another one or against what the suite knows. What is left to a training, a model or to nobody is in
docs/trust.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from anytime_bench.errors import UserError
from anytime_bench.files import canonical_json, file_sha256, is_record_file, safe_name
from anytime_bench.harness.readings import WAITED, cpu_reasons
from anytime_bench.records.protocol import PROTOCOLS
from anytime_bench.records.record import Record, TrainingEntry
from anytime_bench.records.stamp import DATE
from anytime_bench.tasks.known import KNOWN, labels_sha256
from anytime_bench.training.recipes import installed_recipes, recipe_for, reference_choice

#: Clocks of two machines may differ by this much.
CLOCK_TOLERANCE = timedelta(hours=1)
SPLITS = ("val", "test")


def claims(record: Record, path: Path) -> Iterator[str]:
    """What is wrong with what ``record``, which lies at ``path``, says of itself."""
    yield from _date(record.created)
    yield from _files(record, path)
    yield from _task(record)
    if record.supersedes is not None and not _lies_beside(path, record.supersedes):
        yield f"it supersedes {record.supersedes:.12}, which does not lie beside it; a correction stays with its record"
    if record.training is not None:
        yield from _training(record.training)
    if record.status == "ok":
        yield from _origin(record)
        yield from _resamples(record)
        yield from _costs(record)
        yield from _reference(record)
        yield from _disturbances(record)


def _lies_beside(path: Path, record_id: str) -> bool:
    beside = path.with_name(f"{safe_name(record_id)[:64]}.json")
    return is_record_file(beside) and beside.is_file()


def _date(created: str) -> Iterator[str]:
    try:
        when = datetime.strptime(created, DATE).replace(tzinfo=UTC)
    except ValueError:
        yield f"created is {created!r:.40}, expected a date in UTC such as 2026-01-31T12:00:00Z"
        return
    if when > datetime.now(UTC) + CLOCK_TOLERANCE:
        yield f"created is {created}, which is in the future"


def _files(record: Record, path: Path) -> Iterator[str]:
    for role, artifact in record.artifacts.items():
        if role != "trace":
            yield f"artifact {role!r:.40} is unknown; a record has its trace and no other file"
        elif artifact.path:
            yield f"its trace is said to lie at {artifact.path!r:.80}; it lies beside the record and has its name"
        elif (npz := path.with_suffix(".npz")).is_file():
            size = npz.stat().st_size
            # Another trace altogether is told by its hash.
            if size != artifact.bytes and file_sha256(npz) == artifact.sha256:
                yield f"its trace has {size} bytes, the record says {artifact.bytes}"


def _task(record: Record) -> Iterator[str]:
    task, known = record.task, KNOWN.get(record.task.name)
    if known is None:
        return
    for field in ("version", "sha256", "classes", "shape", "sizes"):
        stated, right = getattr(task, field), getattr(known, field)
        if stated != right:
            yield f"task.{field} is {stated!r}, that of {task.name} is {right!r}"


def _training(training: TrainingEntry) -> Iterator[str]:
    sha256 = hashlib.sha256(canonical_json(training.recipe).encode()).hexdigest()
    if training.recipe_sha256 != sha256:
        yield f"training.recipe_sha256 is {training.recipe_sha256[:12]}, its recipe hashes to {sha256[:12]}"
    epochs = training.recipe.get("training", {}).get("epochs", training.epochs)
    if training.epochs != epochs or training.epochs < 1:
        yield f"training.epochs is {training.epochs}, its recipe says {epochs}"
    if len(training.final_losses) > training.epochs:
        yield f"training.final_losses holds {len(training.final_losses)} losses of {training.epochs} epochs"
    if training.final_losses and training.final_loss != training.final_losses[-1]:
        yield f"training.final_loss is {training.final_loss}, the last of its final_losses {training.final_losses[-1]}"
    if training.seed < 0 or training.seconds < 0:
        yield f"training.seed is {training.seed} and training.seconds {training.seconds}, expected 0 or more"


def _origin(record: Record) -> Iterator[str]:
    origin = record.method.origin
    if not (origin.get("sha256") or origin.get("distribution") or origin.get("target")):
        yield "method.origin names neither a distribution nor the hash of a plugin, so nobody can make it again"


def _resamples(record: Record) -> Iterator[str]:
    protocol = PROTOCOLS.get(record.protocol_version)
    if protocol is not None and record.resamples != protocol.resamples:
        yield (
            f"evaluation.resamples is {record.resamples}, protocol {record.protocol_version} has {protocol.resamples}; "
            "its intervals do not compare with others'"
        )


def _costs(record: Record) -> Iterator[str]:
    """Costs grow from exit to exit, one answer alone costs no more than all up to it, and a model has parameters."""
    for axis in ("ticks", "macs"):
        values = [entry.costs[axis] for entry in record.exits]
        if values[0] <= 0 or any(after <= before for before, after in pairwise(values)):
            yield f"exits.costs.{axis} are {values}, expected growing costs above 0"
        elif any(entry.alone(axis) > entry.costs[axis] for entry in record.exits):
            yield f"exits.prefix_costs.{axis} of an answer alone are above those of all answers up to it"
    if record.parameters is None or record.parameters < 1:
        yield f"parameters is {record.parameters}, expected how many the model has"


def _reference(record: Record) -> Iterator[str]:
    """An installed recipe's reference is the record's, unless its command asks for another."""
    assert record.reference is not None  # as every record with results has one
    if record.training is None or not record.command.startswith("anytime-bench run "):
        return
    name, words = record.training.recipe_name, record.command
    if name not in installed_recipes() or "reference" in words or "recipe" in words:
        return
    try:
        usual = reference_choice(recipe_for(record.task.name, name), {})[0]
    except UserError:
        return
    if usual != record.reference.method:
        yield (
            f"reference.method is {record.reference.method!r}, that of recipe {name} is {usual!r}, and its command "
            "asks for no other"
        )


def answer_claims(record: Record, arrays: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between a record's task and the labels in its trace."""
    known = KNOWN.get(record.task.name)
    for split in SPLITS:
        if known is not None and labels_sha256(arrays[f"{split}_labels"]) != known.labels[split]:
            yield f"the {split} labels in its trace are not those of task {record.task.name}"


def _disturbances(record: Record) -> Iterator[str]:
    """What the watch on the machine read against comparing times, and the record does not own up to.

    The wait for a core is in the samples too, there over all processes, where the watch tells the longest.
    """
    timing = record.timing
    if timing is None:
        return
    for size, readings in timing.meta.watch.items():
        where, block = f"timing.meta.watch.{size:.20}", timing.batches.get(size)
        if block is None:
            yield f"{where}: that batch size was not timed"
            continue
        try:
            reasons = cpu_reasons(readings, _cores(record, readings))
        except ValueError as error:
            yield f"{where}.{error}"
            continue
        yield from (
            f"{where}: {reason}, and its times are said to be undisturbed by that"
            for reason in reasons
            if not any(reason in stated for stated in block.reasons)
        )
        waited = cpu_reasons({"queue_share": block.clocks["latency"].queue_share}, 1)
        if waited and not any(WAITED in stated for stated in block.reasons):
            yield f"timing.batches.{size}: by its samples {waited[0]}, and its times are said to be undisturbed by that"


def _cores(record: Record, readings: Mapping[str, JsonValue]) -> int:
    """Of the machine, as the watch counted them; older records say it of their environment. 1, the strictest, if none
    does."""
    cpu = record.environment.__pydantic_extra__.get("cpu")
    counts = (readings.get("cores"), cpu.get("logical_cores") if isinstance(cpu, dict) else None)
    return next((count for count in counts if isinstance(count, int) and not isinstance(count, bool)), 1)
