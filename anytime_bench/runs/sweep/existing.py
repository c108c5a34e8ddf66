"""Which runs exist already: records read from the store and compared with what a run would be.

A record that cannot be read, or whose trace is missing or altered, is not a record: it is set aside under the ending
``.damaged``, so that the run is done again and a leaderboard does not stumble over it. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anytime_bench.errors import UserError
from anytime_bench.files import file_sha256
from anytime_bench.records.record import Record
from anytime_bench.records.store import load
from anytime_bench.registry import origin_identity


@dataclass(frozen=True)
class Stored:
    """One readable record and where it lies."""

    record: Record
    path: Path

    def is_run(self, expected: Mapping[str, Any]) -> bool:
        """Whether this is a finished run of the same method, options, recipe, evaluation, data, seed and protocol."""
        record = self.record
        if record.status != "ok" or record.training is None:
            return False
        shown = {
            "method": record.method.name,
            "origin": origin_identity(record.method.origin),
            "options": record.method.options,
            "recipe_sha256": record.training.recipe_sha256,
            "evaluation": record.evaluation,
            "task": record.task.sha256,
            "seed": record.training.seed,
            "device": record.device,
            "protocol": record.protocol_version,
        }
        return all(shown[key] == value for key, value in expected.items())

    @property
    def seconds_per_epoch(self) -> float | None:
        training = self.record.training
        return training.seconds / training.epochs if training is not None and training.epochs else None


def stored_records(
    out: Path, task: str, device: str, method: str, warn: Callable[[str], None] = lambda text: None
) -> list[Stored]:
    """All sound records of one method on one task and device, oldest first; damaged ones are set aside."""
    names = [part.replace("/", "-").replace(":", "-") for part in (task, device, method)]
    found = []
    for path in sorted(out.joinpath(*names).glob("*.json")):
        if len(path.stem) != 64:
            continue
        try:
            record = load(path)
            _check_trace(path, record)
        except UserError as error:
            if path.exists():
                _set_aside(path)
                warn(f"{error} It is set aside as '{path.name}.damaged', and its run counts as missing.")
            continue
        found.append(Stored(record, path))
    return sorted(found, key=lambda each: each.record.created)


def find_run(out: Path, task: str, expected: Mapping[str, Any]) -> Stored | None:
    """The record of this run, if the store has one."""
    records = stored_records(out, task, expected["device"], expected["method"])
    return next((each for each in records if each.is_run(expected)), None)


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
