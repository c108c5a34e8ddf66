"""Intervals cover what they promise, verdicts say what intervals say, and equal inputs give equal bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anytime_bench.scores import intervals
from anytime_bench.scores.intervals import accuracy_interval, bootstrap_mean, paired_difference
from anytime_bench.trace.answers import TraceError

#: Four times the 500 that were promised: the share covered then has a standard error of 0.005 instead of 0.010.
DATA_SETS, IMAGES = 2000, 400


def simulated(data_set, seeds, seed_effect=0.0, shift=0.0):
    """Correctness ``(seeds, IMAGES)`` of nets that agree on which images are hard, and its true mean."""
    rng = np.random.default_rng([77, data_set])
    ease = 0.1 + 0.8 * rng.beta(2, 0.5, size=IMAGES)
    chance_right = ease + seed_effect * rng.uniform(-1, 1, size=(seeds, 1)) + shift
    return rng.random((seeds, IMAGES)) < chance_right, 0.1 + 0.8 * 0.8 + shift


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "seed_effect"), [(1, 0.0), (5, 0.0), (5, 0.03), (3, 0.02)])
def test_the_bootstrap_interval_covers_the_true_mean(seeds, seed_effect):
    covered = 0
    for data_set in range(DATA_SETS):
        values, truth = simulated(data_set, seeds, seed_effect)
        interval = bootstrap_mean(values)
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / DATA_SETS <= 0.97


@pytest.mark.slow
def test_the_paired_interval_covers_the_true_difference():
    covered = 0
    for data_set in range(DATA_SETS):
        rng = np.random.default_rng([78, data_set])
        ease = rng.beta(2, 0.5, size=IMAGES)
        a = rng.random((3, IMAGES)) < 0.1 + 0.8 * ease
        b = rng.random((3, IMAGES)) < 0.05 + 0.8 * ease
        difference = paired_difference(a, b)
        covered += difference.low <= 0.05 <= difference.high
    assert 0.93 <= covered / DATA_SETS <= 0.97


@pytest.mark.slow
def test_wilson_covers_the_true_accuracy():
    rng = np.random.default_rng(5)
    intervals_ = [accuracy_interval(rng.random(IMAGES) < 0.92) for _ in range(DATA_SETS)]
    covered = np.mean([interval.low <= 0.92 <= interval.high for interval in intervals_])
    assert 0.93 <= covered <= 0.97


def test_wilson_equals_scipy():
    for right, n in [(0, 10), (10, 10), (7, 10), (9_312, 10_000)]:
        ours = accuracy_interval(np.arange(n) < right)
        theirs = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_bootstrap_equals_an_explicit_resampling_of_images():
    values = np.random.default_rng(1).random((1, 60))
    weights = intervals.image_weights(60, 200, 3)
    by_hand = [np.repeat(values[0], row).mean() for row in weights]
    np.testing.assert_allclose(intervals.resampled_means(values, 200, 3)[:, 0], by_hand, atol=1e-12)


def test_the_weights_are_multinomial():
    weights = intervals.image_weights(50, 2000, 0)
    assert (weights.sum(axis=1) == 50).all()
    # Each weight is binomial(50, 1/50): mean 1, variance 0.98, over 100,000 draws.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, abs=0.02)


def test_the_bootstrap_width_agrees_with_the_standard_error():
    values = np.random.default_rng(2).random((1, 2000))
    interval = bootstrap_mean(values)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.05)


@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_permuting_samples_changes_no_value_and_equal_inputs_give_equal_bits(seeds, images, seed):
    rng = np.random.default_rng(seed)
    values = rng.random((seeds, images)) < 0.5
    first, again = bootstrap_mean(values, resamples=50), bootstrap_mean(values.copy(), resamples=50)
    assert first == again
    shuffled = bootstrap_mean(values[:, rng.permutation(images)], resamples=50)
    assert shuffled.value == pytest.approx(first.value, abs=1e-12)


def test_images_times_one_seed_is_flagged():
    assert bootstrap_mean([[0, 1, 1, 0]]).seeds == 1
    assert paired_difference(np.ones((2, 4)), np.ones((3, 4))).seeds == (2, 3)


def test_seeds_widen_the_interval_only_where_seeds_differ():
    images = np.random.default_rng(3).random(300) < 0.7
    alike = np.stack([images] * 4)
    assert intervals.seed_variance(alike) == 0
    spread = alike + np.array([-0.1, -0.02, 0.03, 0.09])[:, None]
    assert intervals.seed_variance(spread) == pytest.approx(np.var([-0.1, -0.02, 0.03, 0.09], ddof=1))
    narrow, wide = bootstrap_mean(alike), bootstrap_mean(spread)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(4)
    hardness = rng.random(1000)
    a = hardness + 0.01 * rng.random(1000) + 0.005
    difference = paired_difference(a[None], hardness[None])
    assert difference.verdict == "BETTER"
    alone = bootstrap_mean(a[None])
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.002, "BETTER"),
        (-0.2, -0.1, "WORSE"),
        (-0.004, 0.004, "SAME"),
        (0.0, 0.0, "SAME"),
        (-0.02, 0.004, "AMBIGUOUS"),
        (-0.004, 0.02, "AMBIGUOUS"),
    ],
)
def test_verdicts(low, high, expected):
    assert intervals.verdict(low, high, 0.005) == expected
    mirrored = {"BETTER": "WORSE", "WORSE": "BETTER"}.get(expected, expected)
    assert intervals.verdict(low, high, 0.005, higher_is_better=False) == mirrored


def test_bad_tables_are_refused():
    with pytest.raises(TraceError, match="unequal sample counts, 3 and 4"):
        paired_difference(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(TraceError, match="values: holds NaN"):
        bootstrap_mean([[0.0, np.nan]])
    with pytest.raises(TraceError, match="values: expected"):
        bootstrap_mean(np.ones((1, 0)))
    with pytest.raises(TraceError, match="correct: expected a non-empty vector"):
        accuracy_interval([])
