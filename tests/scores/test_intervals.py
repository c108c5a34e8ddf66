"""Intervals of accuracies, of means over seeds and images, and the resampling behind all that is no mean."""

import numpy as np
import pytest

from anytime_bench.scores import intervals
from anytime_bench.scores.intervals import accuracy_interval, mean_interval
from anytime_bench.scores.verdicts import paired_difference
from anytime_bench.trace.answers import TraceError

DATA_SETS, IMAGES = 2000, 400


@pytest.mark.slow
def test_wilson_covers_the_true_accuracy():
    rng = np.random.default_rng(5)
    intervals_ = [accuracy_interval(rng.random(IMAGES) < 0.92) for _ in range(DATA_SETS)]
    covered = np.mean([interval.low <= 0.92 <= interval.high for interval in intervals_])
    assert 0.93 <= covered <= 0.97


def test_wilson_gives_newcombes_published_examples():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = accuracy_interval(np.arange(n) < right)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert accuracy_interval(np.ones(10)).high == 1.0


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


def test_means_are_as_certain_as_resampling_says():
    values = np.random.default_rng(2).random((1, 2000))
    low, high = intervals.percentiles(intervals.resampled_means(values)[:, 0])
    interval = mean_interval(values)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)
    assert (interval.seeds, interval.images) == (1, 2000)


def test_seeds_widen_the_interval_only_where_seeds_differ():
    images = np.random.default_rng(3).random(300) < 0.7
    alike = np.stack([images] * 4)
    apart = alike + np.array([-0.1, -0.02, 0.03, 0.09])[:, None]
    narrow, wide = mean_interval(alike), mean_interval(apart)
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * images.std() / np.sqrt(300), rel=0.01)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(4)
    hardness = rng.random(1000)
    a = hardness + 0.01 * rng.random(1000) + 0.005
    difference = paired_difference(a[None], hardness[None])
    assert difference.verdict == "better"
    alone = mean_interval(a[None])
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)


def test_where_less_is_better_the_verdict_turns_and_the_value_does_not():
    a, b = np.full((1, 50), 0.3), np.full((1, 50), 0.2)
    assert (paired_difference(a, b).verdict, paired_difference(b, a).verdict) == ("better", "worse")
    turned = paired_difference(a, b, higher_is_better=False)
    assert turned.verdict == "worse"
    assert turned.value == pytest.approx(0.1)


def test_bad_tables_are_refused():
    with pytest.raises(TraceError, match="unequal sample counts, 3 and 4"):
        paired_difference(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(TraceError, match="values: holds NaN"):
        mean_interval([[0.0, np.nan]])
    with pytest.raises(TraceError, match="values: expected"):
        mean_interval(np.ones((1, 0)))
    with pytest.raises(TraceError, match="correct: expected a non-empty vector"):
        accuracy_interval([])
