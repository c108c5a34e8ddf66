"""Reference nets of other seeds, whose answers define typicality: where they lie, and the command that makes one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from anytime_bench.analysis.answers import Answers
from anytime_bench.errors import UserError
from anytime_bench.files import is_record_file, safe_name
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.records.verify import record_paths


def find_references(answers: Answers, places: Sequence[Path] = ()) -> list[tuple[Path, Record]]:
    """Records of other seeds on the same images: those at ``places``, else the reference nets in the record's store.

    The net that is studied must not judge itself, so its own seed never counts; of several records of one seed the
    latest does. Where ``places`` hold reference nets, they alone count: a folder may hold a whole store.
    """
    reference = reference_method(answers.record)
    if places:
        paths = record_paths(places)
    else:
        paths = sorted(filter(is_record_file, (answers.path.resolve().parents[1] / safe_name(reference)).glob("*")))
    usable = [
        (path, record)
        for path, record in ((path, store.load(path)) for path in paths)
        if record.training is not None
        and record.status == "ok"
        and record.training.seed != answers.seed
        and record.task.sha256 == answers.record.task.sha256
    ]
    if places and not usable:
        raise UserError(
            f"--reference: none of the {len(paths)} records is of another seed than {answers.seed} and of the images "
            f"of '{answers.path}'. Make one: {reference_command(answers)}"
        )
    preferred = [each for each in usable if each[1].method.name == reference]
    latest = {
        record.training.seed: (path, record)
        for path, record in sorted(preferred or usable, key=lambda each: each[1].created)
        if record.training is not None
    }
    return [latest[seed] for seed in sorted(latest)]


def reference_method(record: Record) -> str:
    """The method whose last answers define typicality: the record's reference."""
    assert record.reference is not None  # as every record with results has one
    return record.reference.method


def reference_command(answers: Answers) -> str:
    """The command that trains a reference net of another seed where ``find_references`` looks for it."""
    record, folder = answers.record, answers.path.resolve().parent
    seed = 1 if answers.seed == 0 else 0
    reference = reference_method(record)
    command = ["anytime-bench", "run", "--method", reference, "--task", record.task.name, "--seed", str(seed)]
    if len(folder.parents) > 3 and store.record_folder(folder.parents[2], record) == folder:
        return shlex.join([*command, "--out", str(folder.parents[2])])
    return f"{shlex.join(command)}  (then give its record with --reference)"
