"""Which runs exist already: records read from the store and compared with what a run would be.

A record that cannot be read, or whose trace is missing or altered, is not a record: it is set aside under the ending
``.damaged``, so that the run is done again and a leaderboard does not stumble over it. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anytime_bench.errors import UserError
from anytime_bench.files import file_sha256, is_record_file, safe_name
from anytime_bench.records.entries import Entry
from anytime_bench.records.record import Record
from anytime_bench.records.store import load
from anytime_bench.registry import origin_identity
from anytime_bench.runs.sweep.jobs import Job, RunIdentity


def identity_of(record: Record) -> RunIdentity | None:
    """What run a record is of; None for one that did not finish."""
    if record.status != "ok" or record.training is None or record.reference is None:
        return None
    return RunIdentity(
        method=record.method.name,
        origin=origin_identity(record.method.origin),
        options=record.method.options,
        recipe_sha256=record.training.recipe_sha256,
        evaluation=record.evaluation,
        task=record.task.sha256,
        seed=record.training.seed,
        device=record.device,
        protocol=record.protocol_version,
        reference=record.reference.method,
        reference_options=record.reference.options or {},
    )


def stored_records(
    out: Path, task: str, device: str, method: str, warn: Callable[[str], None] = lambda text: None
) -> list[Entry]:
    """All sound records of one method on one task and device, oldest first; damaged ones are set aside."""
    entries = []
    for path in sorted(out.joinpath(*map(safe_name, (task, device, method))).glob("*.json")):
        if not is_record_file(path):
            continue
        try:
            record = load(path)
            _check_trace(path, record)
        except UserError as error:
            if path.exists():
                _set_aside(path)
                warn(f"{error} It is set aside as '{path.name}.damaged', and its run counts as missing.")
            continue
        entries.append(Entry(path, record))
    return sorted(entries, key=lambda entry: entry.record.created)


def finished_record(job: Job) -> str:
    """The path of the record this job would end with, if the store has it; else an empty string."""
    if job.identity is None:
        return ""
    entries = stored_records(Path(job.out), job.stored_task, job.identity.device, job.identity.method)
    return next((str(entry.path) for entry in entries if identity_of(entry.record) == job.identity), "")


def traces_alone(folder: Path) -> set[Path]:
    """Traces of a task's methods whose record is not there: their writer is about to store it, or was killed."""
    records = (path.with_suffix(".json") for path in folder.glob("*/*.npz"))
    return {path.with_suffix(".npz") for path in records if is_record_file(path) and not path.exists()}


def _check_trace(path: Path, record: Record) -> None:
    artifact = record.artifacts.get("trace")
    if artifact is None:
        return
    npz = path.parent / artifact.path if artifact.path else path.with_suffix(".npz")
    if not npz.is_file() or file_sha256(npz) != artifact.sha256:
        raise UserError(f"'{npz}', the trace of record '{path.name}', is missing or was altered.")


def _set_aside(path: Path) -> None:
    for each in (path, path.with_suffix(".npz")):
        if each.exists():
            each.replace(each.with_name(f"{each.name}.damaged"))
