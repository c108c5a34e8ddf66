"""What a record's trace tells beyond its scores: typicality, a learned stopping rule, images from outside.

Loads records and traces from the store and hands them to the pure functions of ``scores``; nothing is written. Only the
learned stopping rule and the outside images need torch, which is imported when they are asked for. Costs are multiples
of the reference model's full answer on one axis, accuracies and AUROCs are in [0, 1]. Everything that cannot be read
for a reason of its own (no reference nets, a single exit) is a string in the place of the result, so that the rest is
still told. Bad input raises ``UserError``. Source of the three readings: Iuzzolino et al., NeurIPS 2021.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.analysis.learned_stopping import learn, learned_stopping
from anytime_bench.analysis.ood import outside_auroc
from anytime_bench.analysis.typicality import response_against_typicality, response_time, typicality
from anytime_bench.errors import UserError
from anytime_bench.files import is_record_file, safe_name
from anytime_bench.records import store
from anytime_bench.records.axes import exit_costs
from anytime_bench.records.entries import row_key
from anytime_bench.records.record import Record
from anytime_bench.records.verify import record_paths
from anytime_bench.scores import stopping
from anytime_bench.scores.stopping_budgets import PREFIX, learned_from
from anytime_bench.scores.trace_gru import PARTS, TraceGru
from anytime_bench.scores.verdicts import paired_difference
from anytime_bench.trace.answers import STORED, Trace, TraceError
from anytime_bench.trace.axes import counted

Floats = NDArray[np.float64]

RULES = ("gru", "confidence")
#: The arrays of a record's file that are read.
TRACES = [f"{split}_{name}" for split in ("test", "val") for name in STORED]
LEARNED = [f"{PREFIX}{TraceGru.name}.{part}" for part in PARTS]


@dataclass(frozen=True)
class Answers:
    """A record with its traces and the cost of each exit ``(E,)`` in multiples of the reference's full answer."""

    path: Path
    record: Record
    test: Trace
    val: Trace
    cost: Floats
    #: What the record stored of its trace GRU; empty where it learned none.
    gru: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        assert self.record.training is not None
        return self.record.training.seed


@dataclass
class Reading:
    """What was read from one record. A string says why a part could not be read; None, that it was not asked for."""

    answers: Answers
    typicality: dict[str, Any] | str | None = None
    stopping: dict[str, Any] | str | None = None
    outside: dict[str, Any] | str | None = None
    #: Arrays ``(N,)`` for means over seeds and for the picture; not printed.
    values: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        record = self.answers.record
        return {
            "path": str(self.answers.path),
            "method": record.method.name,
            "task": record.task.name,
            "seed": self.answers.seed,
            **{name: getattr(self, name) for name in ("typicality", "stopping", "outside")},
        }


def load_answers(given: Sequence[Path], axis: str = "macs") -> list[Answers]:
    """The records among files and folders, without failed and superseded ones, by method and seed."""
    if axis not in counted():
        raise UserError(f"--axis '{axis}': expected {' or '.join(counted())}.")
    loaded = {path.resolve(): (path, store.load(path)) for path in record_paths(given)}
    superseded = {record.supersedes for _, record in loaded.values()}
    kept = [
        (path, record)
        for path, record in loaded.values()
        if record.status == "ok" and record.training is not None and record.record_id not in superseded
    ]
    if not kept:
        raise UserError(f"'{', '.join(map(str, given))}' holds no record with results.")
    answers = [_answers(path, record, axis) for path, record in kept]
    return sorted(answers, key=lambda a: (a.record.task.name, a.record.method.name, row_key(a.record), a.seed))


def _answers(path: Path, record: Record, axis: str) -> Answers:
    arrays = store.load_arrays(path, record, [*TRACES, *LEARNED])
    costs = exit_costs(record, axis)
    if costs is None:
        raise UserError(f"record '{path}' has no cost of its reference in {axis}.")
    with _named(path):
        test, val = Trace.from_arrays(arrays, "test"), Trace.from_arrays(arrays, "val")
    gru = learned_from(arrays).get(TraceGru.name, {})
    return Answers(path, record, test, val, np.asarray(costs.relative), gru)


# --- typicality -------------------------------------------------------------------------------------------------------


def find_references(answers: Answers, given: Sequence[Path] = ()) -> list[tuple[Path, Record]]:
    """Records of other seeds on the same images: those ``given``, else the reference nets in the record's own store.

    The net that is studied must not judge itself, so its own seed never counts; of several records of one seed the
    latest does. Where ``given`` holds reference nets, they alone count: a folder may hold a whole store.
    """
    reference = reference_method(answers.record)
    if given:
        paths = record_paths(given)
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
    if given and not usable:
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


def read_typicality(
    answers: Answers, references: Sequence[tuple[Path, Record]]
) -> tuple[dict[str, Any] | str, dict[str, Any]]:
    """Spearman's correlation of response time and typicality, and the mean response time of the outer quarters.

    Returns the result, or why there is none, and the two vectors ``(N,)``.
    """
    if not references:
        name = reference_method(answers.record)
        return f"typicality needs {name} nets of other seeds. Make one:\n  {reference_command(answers)}", {}
    others = []
    for path, record in references:
        with _named(path):
            others.append(Trace.from_arrays(store.load_arrays(path, record, TRACES), "test"))
    with _named(answers.path):
        found = response_against_typicality(answers.test, others)
    typical, time = typicality(others), response_time(answers.test, answers.cost)
    order = np.argsort(typical, kind="stable")
    quarter = max(1, len(order) // 4)
    result: dict[str, Any] = {
        "spearman": {"value": found.value, "low": found.low, "high": found.high},
        "response_time": {
            "typical_quarter": float(time[order[-quarter:]].mean()),
            "atypical_quarter": float(time[order[:quarter]].mean()),
        },
        "references": [
            {"path": str(path), "method": record.method.name, "seed": record.training.seed}
            for path, record in references
            if record.training is not None
        ],
    }
    return result, {"typicality": typical, "response_time": time}


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


# --- learned stopping -------------------------------------------------------------------------------------------------


def read_stopping(answers: Answers, seed: int = 0) -> tuple[dict[str, Any] | str, dict[str, Any]]:
    """The GRU's rule beside the confidence rule's: ``learned_stopping``, and ``equal_cost``, their paired difference.

    Two thresholds fitted to one budget on the validation split spend unequally on the test split, which would favour
    the rule that spends more. For ``equal_cost`` the confidence rule gets the thresholds with which it spends exactly
    what the GRU has spent; costs alone choose them, no label. Returns the result, or why there is none, and per budget
    the expected correctness ``(N,)`` of both rules as well as their accuracy over cost on the test split.
    """
    test, val, cost = answers.test, answers.val, answers.cost
    try:
        learned = learn(test, val, seed, answers.gru)
    except TraceError as error:
        return f"no stopping rule can be learned: {error}", {}
    result = learned_stopping(test, val, cost, 1.0, learned=learned)
    on_test = learned.on_test
    fitted = stopping.sweep(learned.on_fit, learned.fit.correct, cost)
    swept = {
        "gru": stopping.sweep(on_test, test.correct, cost),
        "confidence": stopping.sweep(test.confidence, test.correct, cost),
    }
    expected: dict[str, dict[str, Floats]] = {}
    result["equal_cost"] = {}
    for budget in result["gru"]["at_budget"]:
        mixture = stopping.threshold_for(fitted, int(budget) / 100)
        if mixture is None:
            result["equal_cost"][budget] = None
            continue
        gru, spent = stopping.apply_mixture(mixture, on_test, test.correct, cost)
        same = stopping.threshold_for(swept["confidence"], max(spent, float(swept["confidence"].cost[0])))
        assert same is not None
        bare, as_much = stopping.apply_mixture(same, test.confidence, test.correct, cost)
        expected[budget] = {"gru": gru, "confidence": bare}
        result["equal_cost"][budget] = {"cost": {"gru": spent, "confidence": as_much}, **rule_difference(gru, bare)}
    curves = {name: (each.cost, each.accuracy) for name, each in swept.items()}
    return result, {"expected": expected, "curves": curves}


def rule_difference(gru: Floats, confidence: Floats) -> dict[str, Any]:
    """Accuracies of both rules and their difference from expected correctness ``(S, N)``, verdict about the GRU.

    Both rules stop the same nets, so seeds are paired here and not only images.
    """
    gap = paired_difference(gru, confidence, by_seed=True)
    return {
        "gru": float(gru.mean()),
        "confidence": float(confidence.mean()),
        "value": gap.value,
        "low": gap.low,
        "high": gap.high,
        "verdict": gap.verdict,
    }


# --- all together -----------------------------------------------------------------------------------------------------


def read_records(
    records: Sequence[Path],
    *,
    references: Sequence[Path] = (),
    outside: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    axis: str = "macs",
    advance: Callable[[float, str], None] = lambda share, what: None,
) -> list[Reading]:
    """Read every record; ``advance(share, what)`` reports progress: shares add up to 1, an empty ``what`` goes on with
    the one before.

    ``outside`` names the task whose test images are shown to the records' models.
    """
    answers = load_answers(records, axis)
    readings = [Reading(each) for each in answers]
    if outside is not None:
        from anytime_bench.analysis.ood_images import OutsideImages

        images = OutsideImages(outside, data_root, device)
        images.check([each.record for each in answers])
    share = 1 / len(readings) / (2 if outside is None else 6)
    for reading in readings:
        one = reading.answers
        name = f"{one.record.method.name}, seed {one.seed}"
        advance(0, f"typicality of {name}")
        reading.typicality, values = read_typicality(one, find_references(one, references))
        reading.values |= values
        advance(share, f"learned stopping of {name}")
        reading.stopping, values = read_stopping(one)
        reading.values |= values
        advance(share, f"outside images through {name}")
        if outside is not None:
            trace = images.trace(one.path, one.record, partial(_advance_part, advance, 4 * share))
            with _named(one.path):
                reading.outside = {"task": outside, "images": trace.num_samples} | outside_auroc(
                    one.test, trace, one.val
                )
    return readings


def _advance_part(advance: Callable[[float, str], None], share: float, part: float) -> None:
    advance(share * part, "")


def seed_means(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """Per method with several seeds: the mean over its seeds, with the lowest and the highest seed.

    The stopping rules' difference has an interval over images and seeds instead.
    """
    rows: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        record = reading.answers.record
        rows.setdefault((record.task.sha256, row_key(record)), []).append(reading)
    return [_mean(seeds) for seeds in rows.values() if len({each.answers.seed for each in seeds}) > 1]


def _mean(seeds: Sequence[Reading]) -> dict[str, Any]:
    record = seeds[0].answers.record
    found: dict[str, Any] = {
        "method": record.method.name,
        "task": record.task.name,
        "seeds": [each.answers.seed for each in seeds],
    }
    spearman = [each.typicality["spearman"]["value"] for each in seeds if isinstance(each.typicality, dict)]
    if len(spearman) == len(seeds) and np.isfinite(spearman).all():
        found["typicality"] = _spread(spearman)
    if all(isinstance(each.stopping, dict) for each in seeds):
        tables = [each.values["expected"] for each in seeds]
        found["stopping"] = {
            budget: rule_difference(*(np.stack([table[budget][rule] for table in tables]) for rule in RULES))
            for budget in tables[0]
            if all(budget in table for table in tables)
        }
    if all(isinstance(each.outside, dict) for each in seeds):
        results = [each.outside for each in seeds if isinstance(each.outside, dict)]
        names = [name for name, value in results[0].items() if isinstance(value, dict)]
        found["outside"] = {name: _spread([result[name]["value"] for result in results]) for name in names}
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"value": float(np.mean(values)), "lowest": float(min(values)), "highest": float(max(values))}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A ``TraceError`` inside becomes the user's, with the record's path."""
    try:
        yield
    except TraceError as error:
        raise UserError(f"record '{path}': {error}.") from error
