"""Scores of one's own: what is registered wrongly is refused by name, and what is undefined is said."""

from __future__ import annotations

import numpy as np
import pytest
from support.generated_records import make_record

from anytime_bench.errors import UserError
from anytime_bench.records.scoring import undefined
from anytime_bench.scores.catalogue import SCORES, register_score
from anytime_bench.scores.run_scores import image_scores
from anytime_bench.trace.answers import Trace, TraceError

LABELS = np.arange(12) % 3
TRACE = Trace.from_logits(np.stack([np.eye(3)[LABELS] * k for k in range(1, 3)]), LABELS)


@pytest.mark.parametrize(
    ("key", "value", "known"),
    [("per", "images", "exit or image"), ("better", "up", "higher or lower or neither"), ("better", None, "higher or")],
)
def test_an_unknown_kind_or_direction_of_a_score_is_refused(key: str, value: object, known: str) -> None:
    with SCORES.temporary():
        with pytest.raises(UserError, match=rf"^score 'mine': {key}={value!r}, expected {known}"):
            register_score("mine", lambda trace, cost: trace.accuracy, **{key: value})  # type: ignore[arg-type]
        assert "mine" not in SCORES.names()


def test_images_without_a_number_are_counted_with_the_scores_name() -> None:
    with SCORES.temporary():
        register_score("mine", lambda t, c: np.where(t.correct[0] & (t.labels > 0), np.nan, 1.0), per="image")
        with pytest.raises(TraceError, match=r"^score 'mine': expected a finite number per image, 8 of 12 have none"):
            image_scores(TRACE, [0.5, 1.0])


def test_a_score_that_is_defined_at_no_exit_is_told_from_one_that_is_at_some() -> None:
    with SCORES.temporary():
        register_score("nowhere", lambda trace, cost: trace.accuracy * np.nan)
        register_score("last", lambda t, c: np.where(np.arange(t.num_exits) < t.num_exits - 1, np.nan, t.accuracy))
        record, _ = make_record("quick")
        assert undefined(record) == ["nowhere"]
