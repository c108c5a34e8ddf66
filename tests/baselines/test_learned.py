"""The stored weights of the published cascades' trace GRUs are those that training gives, one lesson per record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anytime_bench.analysis.answers import Answers, read_answers
from anytime_bench.analysis.learned_stopping import lesson
from anytime_bench.records import store
from anytime_bench.scores import stopping_contract
from anytime_bench.scores.trace_gru import TraceGru, stop_probabilities, train
from baselines.reproduction.evidence import read_evidence
from baselines.reproduction.learned import METHOD, learned, with_learned

RESULTS = Path(__file__).resolve().parents[2] / "results"
FIX = "run: python -m baselines.reproduction.learned"


def published(task: str = "*") -> list[Answers]:
    paths = sorted(RESULTS.glob(f"{task}/*/{METHOD}/*.json"))
    return [read_answers(path, record) for path in paths if (record := store.load(path)).status == "ok"]


def check_training(answers: Answers) -> None:
    """Weights differ in last digits between processors; what they say of an image does not."""
    asked = stopping_contract.Answers.of(answers.test)
    anew = stop_probabilities(train(TraceGru().halves(answers.val)[0]), asked)
    np.testing.assert_allclose(stop_probabilities(with_learned(answers).gru, asked), anew, atol=1e-3)


def test_one_stored_gru_is_what_training_gives():
    check_training(published("digits")[0])


@pytest.mark.slow
def test_every_stored_gru_is_what_training_gives_and_none_is_stored_in_vain():
    every = [each for newest in read_evidence(RESULTS) for each in newest.with_older]
    rows = [row for evidence in every if (row := evidence.row(METHOD))]
    cascades = [read_answers(entry.path, entry.record) for row in rows for entry in row.entries]
    assert {lesson(each.val) for each in cascades if not each.gru} == set(learned()), FIX
    for each in cascades:
        check_training(each)


def test_other_answers_are_another_lesson():
    val = published("digits")[0].val
    assert lesson(val) in learned()
    assert lesson(replace(val, predictions=val.predictions[:, ::-1])) not in learned()
