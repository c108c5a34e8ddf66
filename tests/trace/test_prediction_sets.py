"""Nested prediction sets: the guarantee at every exit at once, sets that only shrink, and what a trace refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.scores.catalogue import SCORES
from anytime_bench.trace.answers import Trace, TraceError
from anytime_bench.trace.prediction_sets import ALPHA, nested_sets, threshold


def draw(seed: int, images: int, exits: int = 4, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``(E, N, C)`` of exits that err together, and labels ``(N,)``."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(exits, images, classes)) + rng.normal(size=(1, images, classes))
    logits[:, np.arange(images), labels] += np.linspace(1, 3, exits)[:, None]
    return logits, labels


def with_sets(seed: int = 0, images: int = 300) -> Trace:
    (seen, seen_labels), (logits, labels) = draw(seed + 1000, images), draw(seed, images)
    size, own, covers = nested_sets(seen, seen_labels, logits, labels)
    return dataclasses.replace(Trace.from_logits(logits, labels), set_size=size, set_own=own, set_covers=covers)


def test_the_true_class_is_in_the_sets_of_all_exits_at_once_as_often_as_promised():
    covered = []
    for seed in range(200):
        seen, seen_labels = draw(seed + 10_000, 200)
        logits, labels = draw(seed, 200)
        covered.append(nested_sets(seen, seen_labels, logits, labels)[2][-1].mean())
    error = np.std(covered, ddof=1) / len(covered) ** 0.5
    assert np.mean(covered) > 1 - ALPHA - 2 * error
    # The union bound is not so loose that the sets say nothing.
    assert np.mean(covered) < 0.99


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), images=st.integers(3, 60), alpha=st.floats(0.01, 0.5))
def test_nested_sets_only_shrink_and_are_what_the_exits_have_in_common(seed, images, alpha):
    (seen, seen_labels), (logits, labels) = draw(seed, 80), draw(seed + 1, images)
    size, own, covers = nested_sets(seen, seen_labels, logits, labels, alpha)
    assert (np.diff(size.astype(int), axis=0) <= 0).all()
    assert (size <= own).all()
    assert np.array_equal(size[0], own[0])
    assert not (covers & (size == 0)).any()
    share = alpha / len(logits)
    single = [
        nested_sets(old[None], seen_labels, new[None], labels, share) for old, new in zip(seen, logits, strict=True)
    ]
    assert np.array_equal(own, np.concatenate([sizes for sizes, _, _ in single]))
    assert np.array_equal(covers, np.logical_and.accumulate(np.concatenate([holds for _, _, holds in single])))


def test_too_few_calibration_images_rule_out_nothing():
    (seen, seen_labels), (logits, labels) = draw(1, 9), draw(2, 50)
    size, _, covers = nested_sets(seen, seen_labels, logits, labels, alpha=0.1)
    assert (size == logits.shape[2]).all()
    assert covers.all()


def test_threshold_is_the_conformal_quantile():
    truth = np.arange(1, 100) / 100
    assert threshold(truth, 0.1) == pytest.approx(0.10)
    assert threshold(truth, 0.0) == 0.0
    # 98 images at 1 %: floor(0.99) = 0, so nothing may be ruled out.
    assert threshold(truth[:98], 0.01) == 0.0
    assert threshold(truth, 0.01) == pytest.approx(0.01)


def test_sets_survive_the_archive_and_are_scored():
    trace = with_sets()
    again = Trace.from_arrays(trace.to_arrays("test"), "test")
    assert np.array_equal(again.set_size, trace.set_size)
    assert np.array_equal(again.set_covers, trace.set_covers)
    cost = np.arange(1.0, 5.0)
    scores = {name: SCORES.resolve(name)[0].function(again, cost) for name in ("set_size", "coverage", "consistency")}
    assert scores["set_size"] == pytest.approx(trace.set_size.mean(axis=1))
    assert scores["coverage"][-1] == pytest.approx(trace.set_covers[-1].mean())
    assert scores["consistency"][0] == 1
    assert (np.diff(scores["coverage"]) <= 0).all()


def test_consistency_of_sets_by_hand():
    trace = with_sets(images=3)
    sizes, own = np.uint8([[2, 3, 4], [1, 0, 4]]), np.uint8([[2, 3, 4], [2, 0, 5]])
    trace = dataclasses.replace(
        trace, predictions=trace.predictions[:2], set_size=sizes, set_own=own, set_covers=sizes > 0
    )
    values = SCORES.resolve("consistency")[0].function(trace, np.ones(2))
    assert list(values) == pytest.approx([1, (1 / 2 + 1 + 4 / 5) / 3])


def test_a_trace_without_sets_has_no_such_score_and_no_such_array():
    trace = Trace.from_logits(*draw(3, 20))
    assert not any("set_" in name for name in trace.to_arrays("test"))
    assert np.isnan(SCORES.resolve("coverage")[0].function(trace, np.ones(4))).all()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("set_size", lambda table: table[::-1].copy(), "test_set_size: "),
        ("set_own", lambda table: np.zeros_like(table), "expected at most set_own"),
        ("set_own", lambda table: table + np.uint8(9), "that at most 5"),
        ("set_covers", lambda table: table.astype(np.uint8), "expected true or false"),
        ("set_covers", lambda table: table[:1], "expected shape"),
    ],
)
def test_impossible_sets_are_refused(name, change, message):
    arrays = with_sets().to_arrays("test")
    arrays[f"test_{name}"] = change(arrays[f"test_{name}"])
    with pytest.raises(TraceError, match=message):
        Trace.from_arrays(arrays, "test")


def test_sets_are_stored_together_or_not_at_all():
    arrays = with_sets().to_arrays("test")
    del arrays["test_set_own"]
    with pytest.raises(TraceError, match="test_set_own: missing"):
        Trace.from_arrays(arrays, "test")
