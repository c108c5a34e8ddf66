"""What interrupted models delivered is a claim's axis of its own: seeds are paired, because they share their draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.records.record import MethodEntry
from baselines.reproduction.cascade import cascade_beats_sdn
from baselines.reproduction.evidence import Row, read_evidence
from baselines.reproduction.findings import judge_delivered


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Row, Row]:
    for method, skill in (("cascaded_td", 3.0), ("sdn", 0.5)):
        for seed in (0, 1, 2):
            entry = MethodEntry(name=method, origin={"distribution": "anytime_bench"}, options={}, card={})
            generated.save(tmp_path, method, seed=seed, skill=skill, deadlines=True, change={"method": entry})
    (task,) = read_evidence(tmp_path)
    ours, theirs = task.row("cascaded_td"), task.row("sdn")
    assert ours is not None
    assert theirs is not None
    return ours, theirs


def test_the_difference_is_that_of_the_delivered_areas(rows: tuple[Row, Row], tmp_path: Path) -> None:
    (task,) = read_evidence(tmp_path)
    areas = [[e.record.deadlines.row().accuracy.value for e in row.trained if e.record.deadlines] for row in rows]
    (line,) = judge_delivered(task, "cascaded_td - sdn, delivered AUC", rows)
    assert line.value == pytest.approx(100 * (np.mean(areas[0]) - np.mean(areas[1])), abs=1e-4)
    assert line.low < line.value < line.high
    assert (line.axis, line.seeds, line.images, line.verdict) == ("delivered", "3", 100, "holds")
    assert line in cascade_beats_sdn(task)


def test_seeds_without_a_partner_or_with_other_draws_are_no_pairs(rows: tuple[Row, Row], tmp_path: Path) -> None:
    (task,) = read_evidence(tmp_path)
    ours, theirs = rows
    assert judge_delivered(task, "", (ours, Row(theirs.entries[:2]))) == []
    block = theirs.entries[0].record.deadlines
    assert block is not None
    for changed in (
        block.model_copy(update={"meta": block.meta.model_copy(update={"seed": 9})}),
        block.model_copy(update={"reasons": ["the machine was not idle"]}),
        None,
    ):
        record = theirs.entries[0].record.model_copy(update={"deadlines": changed})
        other = Row((replace(theirs.entries[0], record=record), *theirs.entries[1:]))
        assert judge_delivered(task, "", (ours, other)) == []
