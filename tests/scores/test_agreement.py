"""Kendall's tau and the draws its interval comes from."""

import numpy as np
import pytest
from scipy import stats

from anytime_bench.scores.agreement import joint_draws, kendall
from anytime_bench.scores.moments import Moments
from anytime_bench.trace.answers import TraceError


def test_draws_have_the_variance_of_their_scores():
    rng = np.random.default_rng(0)
    ease = rng.uniform(-0.1, 0.1, 300) + 0.03 * rng.standard_normal((5, 1, 1))
    moments = Moments.of(rng.random((5, 4, 300)) < 0.7 + ease)
    weights = np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]])
    draws = joint_draws(moments, weights, clock=[0.0, 4e-4], clock_df=8.0, draws=40_000)
    spread = moments.spread(weights)
    # A t variable with d degrees of freedom varies d / (d - 2) times as much as its scale says.
    expected = spread.normal + 2 * spread.student + np.array([0, 4e-4]) * 8 / 6
    np.testing.assert_allclose(draws.mean(axis=0), moments.value(weights), atol=5e-4)
    np.testing.assert_allclose(draws.var(axis=0), expected, rtol=0.1)


def test_one_seed_moves_with_its_images_alone():
    moments = Moments.of(np.random.default_rng(0).random((1, 2, 200)) < 0.7)
    draws = joint_draws(moments, np.eye(2), draws=20_000)
    np.testing.assert_allclose(draws.var(axis=0), moments.spread(np.eye(2)).normal, rtol=0.05)


def test_tau_is_scipys_and_lies_in_its_interval():
    rng = np.random.default_rng(1)
    a, b = rng.random(8), rng.random(8)
    tau = kendall(a, b, a + 0.01 * rng.standard_normal((500, 8)), b + 0.01 * rng.standard_normal((500, 8)))
    assert tau.value == pytest.approx(stats.kendalltau(a, b).statistic)
    assert tau.low <= tau.value <= tau.high
    wide = kendall(a, b, a + rng.standard_normal((500, 8)), b + rng.standard_normal((500, 8)))
    assert wide.high - wide.low > tau.high - tau.low


def test_orders_of_other_rows_cannot_agree():
    with pytest.raises(TraceError, match="the same two or more rows"):
        kendall([1.0, 2.0], [1.0], [[1.0, 2.0]], [[1.0]])
    assert kendall([1.0, 1.0], [1.0, 2.0], [[1.0, 1.0]], [[1.0, 2.0]]).value == 0.0
