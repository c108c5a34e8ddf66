"""Recompute every hash and score of a record from its stored arrays.

``examine`` checks schema, hashes, names, places and claims, and derives every score anew from the ``.npz`` by the
functions that made it (``scoring.derive``); ``verify_all`` looks at what lies between records too. It compares what the
record states and refuses a record that lacks what its protocol demands (``protocol.PROTOCOLS``); a score that the suite
learned later is no fault of an older record.
Published numbers are rounded to 10 decimals, those on noise to 8; a re-derived one may differ by one unit in the last,
because another processor adds in another order. ``reproduce`` goes further and needs the task's data.

Faults are one line each: which record, which field, what it says, what it should say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from anytime_bench.errors import UserError, message, one_line
from anytime_bench.files import is_record_file
from anytime_bench.records import store
from anytime_bench.records.claims import answer_claims, claims
from anytime_bench.records.consistency import answers_sha256
from anytime_bench.records.judgements import Judgement, Judgements
from anytime_bench.records.protocol import MISSING, PROTOCOLS, lacking, unexplained_nulls, without
from anytime_bench.records.record import Derived, Record
from anytime_bench.records.scoring import PARTS, derive_again
from anytime_bench.scores.catalogue import SCORES
from anytime_bench.scores.robustness import DECIMALS as ROBUSTNESS_DECIMALS
from anytime_bench.scores.stopping_budgets import ORACLE
from anytime_bench.scores.stopping_rules import RULES
from anytime_bench.trace.answers import Trace, TraceError

#: One unit in the last published decimal, and what float64 sums may lose relative to their size.
ABSOLUTE, RELATIVE = 1.5e-10, 1e-9
#: Differences that are named per record; a wrong trace changes hundreds of numbers.
MAX_FAULTS = 5


def record_paths(given: Iterable[Path]) -> list[Path]:
    """The record files among ``given``; a folder stands for all records below it."""
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            below = sorted(filter(is_record_file, path.rglob("*.json")))
            if not below:
                raise UserError(f"there is no record below '{path}'. Expected files named <record id>.json.")
            paths += below
        elif path.is_file():
            paths.append(path)
        else:
            raise UserError(f"record '{path}' does not exist. Give record files (.json) or folders of them.")
    return list(dict.fromkeys(paths))


def verify_record(path: Path) -> tuple[Record | None, list[str]]:
    """The record, if it can be read, and all its faults."""
    record, faults, _ = examine(path)
    return record, faults


def examine(
    path: Path, judgements: Judgements | None = None, *, anew: bool = True
) -> tuple[Record | None, list[str], str]:
    """The record, if it can be read, all its faults, and the hash of its answers, if it has any.

    The verdict on its arrays is kept in ``judgements`` and, unless wanted ``anew``, taken from there.
    """
    judgement = judgements.of(path) if judgements and not anew else None
    try:
        record = store.load(path, judged=judgement is not None)
    except UserError as error:
        return None, [str(error)], ""
    faults = [_fault(path, problem) for problem in (*_outside(path, record), *claims(record, path))]
    if record.status != "ok":
        return record, faults, ""
    if judgement is None:
        if not path.with_suffix(".npz").exists() and store.successor(record, path.parent):
            return record, faults, ""  # What it said is no result any more, so its arrays may leave.
        try:
            arrays = store.load_arrays(path, record)
        except UserError as error:
            return record, [*faults, str(error)], ""
        judgement = Judgement(tuple(inner_faults(record, arrays)), _answers(arrays))
        if judgements:
            judgements.keep(path, judgement)
    return record, [*faults, *(_fault(path, problem) for problem in judgement.faults)], judgement.answers


def _fault(path: Path, problem: str) -> str:
    """One line, whatever names and values of a record it quotes."""
    return one_line(f"record '{path}': {problem}")


def _answers(arrays: Mapping[str, Any]) -> str:
    try:
        return answers_sha256(arrays)
    except KeyError:
        return ""


def inner_faults(record: Record, arrays: Mapping[str, Any]) -> list[str]:
    """What a record says that its own raw data do not give."""
    protocol = PROTOCOLS.get(record.protocol_version)
    if protocol is None:
        return [
            f"it was made by protocol {record.protocol_version}, this suite knows {', '.join(PROTOCOLS)}; "
            f"verify it with the suite version it names, {record.suite_version}"
        ]
    try:
        test = Trace.from_arrays(arrays, "test")
        if test.num_exits != len(record.exits):
            return [f"it names {len(record.exits)} exits, its trace holds {test.num_exits}"]
        problems = [*_sizes(record, arrays), *answer_claims(record, arrays), *_strangers(arrays)]
        # Rules take longest, so only those that are stated, or should be, are derived.
        rules = protocol.rules | set(record.stopping.budgets if record.stopping else ())
        derived = derive_again(record, arrays, rules).model_dump(mode="json", exclude_none=True)
    except (TraceError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        return [f"no score can be derived from its trace: {message(error)}"]
    stored = record.model_dump(mode="json", exclude_unset=True, exclude_none=True, include=set(Derived.model_fields))
    for path in protocol.not_derived:
        stored = without(stored, path)
    if record.timing is None and any(name.startswith("timing_") for name in arrays):
        problems.append("its trace holds timing samples, but the record states no times")
    if record.span is None and any(name.startswith("span_") for name in arrays):
        problems.append("its trace holds operators, but the record states no parallel time")
    if record.deadlines is None and any(name.startswith("deadlines_") for name in arrays):
        problems.append("its trace holds deadlines, but the record does not state what came of them")
    if record.streaming is None and any(name.startswith("streaming_") for name in arrays):
        problems.append("its trace holds clips, but the record does not state what came of them")
    if record.timing is not None:
        problems += [
            f"its trace holds no array {name}, protocol {record.protocol_version} demands it of every record with times"
            for name in protocol.absent(arrays, record.timing.meta.batch_sizes)
        ]
    for demand in protocol.demands:
        problems += [
            f"{where} is missing, protocol {record.protocol_version} demands it"
            for where in lacking(stored, derived, demand)
        ]
    absent = missing_plugins(record)
    problems += absent.values()
    for path in absent:
        stored = without(stored, path)
    for field, block in stored.items():
        unit = 1.5 * 10**-ROBUSTNESS_DECIMALS if field == "robustness" else ABSOLUTE
        problems += differences(block, derived.get(field, {}), field, unit)
        problems += [f"{where} is null, and no reason is known" for where in unexplained_nulls(block, field)]
    if len(problems) > MAX_FAULTS:
        problems = [
            *problems[:MAX_FAULTS],
            f"and {len(problems) - MAX_FAULTS} more numbers that its raw data do not give",
        ]
    return problems


def missing_plugins(record: Record) -> dict[str, str]:
    """Where a record states what a plugin computes that is not loaded here, and in one line which it is."""
    scores, rules = SCORES.names(), [*RULES.names(), ORACLE]
    places = {f"exits.scores.{name}": f"score {name}" for entry in record.exits for name in entry.scores}
    places |= {f"images.{name}": f"score {name}" for name in record.images}
    places |= {
        f"stopping.budgets.{name}": f"rule {name}" for name in (record.stopping.budgets if record.stopping else ())
    }
    lines = {}
    for path, what in places.items():
        kind, _, name = what.partition(" ")
        if what in record.added and name not in (scores if kind == "score" else rules):
            lines[path] = (
                f"{path} comes from {record.added[what].origin}, which is not loaded, so it cannot be derived anew; "
                "give its file with --plugin"
            )
    return lines


def differences(stored: Any, derived: Any, where: str, unit: float = ABSOLUTE) -> list[str]:
    """One line per leaf that ``stored`` states and ``derived`` does not give; numbers may differ by ``unit``."""
    # The quick way for what is the same to the last digit, as nearly everything is; True is no 1.
    if stored == derived and repr(stored) == repr(derived):
        return []
    if isinstance(stored, dict) and isinstance(derived, dict):
        return [
            line
            for key in sorted(stored, key=str)
            for line in differences(stored[key], derived.get(key, MISSING), f"{where}.{key}", unit)
        ]
    if isinstance(stored, list | tuple) and isinstance(derived, list | tuple):
        if len(stored) != len(derived):
            return [f"{where} has {len(stored)} entries, its raw data give {len(derived)}"]
        pairs = zip(stored, derived, strict=True)
        return [line for i, (a, b) in enumerate(pairs) for line in differences(a, b, f"{where}[{i}]", unit)]
    if _equal(stored, derived, unit):
        return []
    return [f"{where} is {_told(stored)}, its raw data give {_told(derived)}"]


def _told(value: Any) -> str:
    if value is MISSING:
        return "missing"
    return repr(value) if isinstance(value, int | float | str | bool) or value is None else f"a {type(value).__name__}"


def _equal(a: Any, b: Any, unit: float) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= max(unit, RELATIVE * abs(b))
    if b is MISSING:
        # A field that is absent and one that is empty say the same.
        return a is None
    return bool(a == b)


def _outside(path: Path, record: Record) -> Iterator[str]:
    """Faults of where the record lies and of the files it names besides its trace."""
    folder = store.record_folder(Path(), record).parts
    if path.resolve().parent.parts[-3:] != folder:
        yield f"it belongs into a folder {'/'.join(folder)}; move it there with its .npz"
    named = record.environment.device_class
    if named is not None and named != record.device:
        yield f"device is {record.device!r}, its environment says {named!r}"


def _strangers(arrays: Mapping[str, Any]) -> list[str]:
    """Arrays that no part of a record reads: a trace carries nothing else."""
    return [
        f"its trace holds an array {name!r:.60} that no record has" for name in arrays if not name.startswith(PARTS)
    ]


def _sizes(record: Record, arrays: Mapping[str, Any]) -> Iterator[str]:
    for split in ("test", "val"):
        trace = Trace.from_arrays(arrays, split)
        if trace.num_samples != record.task.sizes.get(split):
            yield (
                f"its trace holds {trace.num_samples} {split} images, task {record.task.name} has "
                f"{record.task.sizes.get(split)}"
            )
        if trace.num_classes != record.task.classes:
            yield f"its {split} trace holds {trace.num_classes} classes, the task has {record.task.classes}"
