"""What a record's trace tells beyond its scores: typicality, a learned stopping rule, out-of-distribution images.

Loads records and traces from the store and hands them to pure functions; nothing is written. Only the learned stopping
rule and the out-of-distribution images need torch, which is imported when they are asked for. Whatever cannot be read
for a reason of its own (no reference nets, a single exit) is that reason, a string, in the place of the result, so that
the rest is still shown. Source of the three readings: Iuzzolino et al., NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from anytime_bench.analysis.answers import Answers, load_answers, naming, trace_on_test
from anytime_bench.analysis.learned_stopping import learned_stopping, rule_difference
from anytime_bench.analysis.ood import ood_auroc
from anytime_bench.analysis.references import find_references, reference_command, reference_method
from anytime_bench.analysis.results import (
    OOD,
    RULES,
    Bounds,
    LearnedStopping,
    OODScores,
    ReferenceNet,
    ResponseTime,
    SeedMeans,
    SeedRange,
    Typicality,
    as_json,
)
from anytime_bench.analysis.typicality import response_against_typicality, response_time, typicality
from anytime_bench.records.entries import row_key
from anytime_bench.records.record import Record
from anytime_bench.trace.answers import TraceError


@dataclass
class Reading:
    """What was read from one record. A string says why a part could not be read; None, that it was not asked for."""

    answers: Answers
    typicality: Typicality | str | None = None
    stopping: LearnedStopping | str | None = None
    ood: OOD | str | None = None

    def as_json(self) -> dict[str, object]:
        record = self.answers.record
        return {
            "path": str(self.answers.path),
            "method": record.method.name,
            "task": record.task.name,
            "seed": self.answers.seed,
            **{name: as_json(getattr(self, name)) for name in ("typicality", "stopping", "ood")},
        }


def read_typicality(answers: Answers, references: Sequence[tuple[Path, Record]]) -> Typicality | str:
    """Spearman's correlation of response time and typicality, and the mean response time of the outer quarters; or why
    there is none."""
    if not references:
        name = reference_method(answers.record)
        return f"typicality needs {name} nets of other seeds. Make one:\n  {reference_command(answers)}"
    others = [trace_on_test(path, record) for path, record in references]
    with naming(answers.path):
        rho = response_against_typicality(answers.test, others)
    typical, time = typicality(others), response_time(answers.test, answers.cost)
    order = np.argsort(typical, kind="stable")
    quarter = max(1, len(order) // 4)
    return Typicality(
        Bounds(rho.value, rho.low, rho.high),
        ResponseTime(float(time[order[-quarter:]].mean()), float(time[order[:quarter]].mean())),
        [
            ReferenceNet(str(path), record.method.name, record.training.seed)
            for path, record in references
            if record.training is not None
        ],
        typical,
        time,
    )


def read_stopping(answers: Answers) -> LearnedStopping | str:
    """The GRU's rule beside the confidence rule's, or why no rule can be learned."""
    try:
        return learned_stopping(answers.test, answers.val, answers.cost, 1.0, stored=answers.gru)
    except TraceError as error:
        return f"no stopping rule can be learned: {error}"


def read_records(
    records: Sequence[Path],
    *,
    references: Sequence[Path] = (),
    ood: str | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    axis: str = "macs",
    advance: Callable[[float, str], None] = lambda share, what: None,
) -> list[Reading]:
    """Read every record; ``advance(share, what)`` reports progress: shares add up to 1, an empty ``what`` goes on with
    the one before.

    ``ood`` names the task whose test images are shown to the records' models.
    """
    answers = load_answers(records, axis)
    readings = [Reading(each) for each in answers]
    if ood is not None:
        from anytime_bench.analysis.ood_images import OODImages

        images = OODImages(ood, data_root, device)
        images.check([each.record for each in answers])
    share = 1 / len(readings) / (2 if ood is None else 6)
    for reading in readings:
        one = reading.answers
        name = f"{one.record.method.name}, seed {one.seed}"
        advance(0, f"typicality of {name}")
        reading.typicality = read_typicality(one, find_references(one, references))
        advance(share, f"learned stopping of {name}")
        reading.stopping = read_stopping(one)
        advance(share, f"out-of-distribution images through {name}")
        if ood is not None:
            trace = images.trace(one.path, one.record, partial(_advance_part, advance, 4 * share))
            with naming(one.path):
                reading.ood = OOD(**vars(ood_auroc(one.test, trace, one.val)), task=ood, images=trace.num_samples)
    return readings


def _advance_part(advance: Callable[[float, str], None], share: float, part: float) -> None:
    advance(share * part, "")


def seed_means(readings: Sequence[Reading]) -> list[SeedMeans]:
    """Per method with several seeds: the mean over its seeds, with the lowest and the highest seed.

    The stopping rules' difference has an interval over images and seeds instead.
    """
    rows: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        record = reading.answers.record
        rows.setdefault((record.task.sha256, row_key(record)), []).append(reading)
    return [_mean(seeds) for seeds in rows.values() if len({each.answers.seed for each in seeds}) > 1]


def _mean(seeds: Sequence[Reading]) -> SeedMeans:
    record = seeds[0].answers.record
    spearman = [each.typicality.spearman.value for each in seeds if isinstance(each.typicality, Typicality)]
    tables = [each.stopping.expected for each in seeds if isinstance(each.stopping, LearnedStopping)]
    scores = [each.ood for each in seeds if isinstance(each.ood, OOD)]
    return SeedMeans(
        record.method.name,
        record.task.name,
        [each.answers.seed for each in seeds],
        _range(spearman) if len(spearman) == len(seeds) and np.isfinite(spearman).all() else None,
        {
            budget: rule_difference(*(np.stack([table[budget][rule] for table in tables]) for rule in RULES))
            for budget in tables[0]
            if all(budget in table for table in tables)
        }
        if len(tables) == len(seeds)
        else None,
        {each.name: _range([getattr(one, each.name).value for one in scores]) for each in fields(OODScores)}
        if len(scores) == len(seeds)
        else None,
    )


def _range(values: Sequence[float]) -> SeedRange:
    return SeedRange(float(np.mean(values)), float(min(values)), float(max(values)))
