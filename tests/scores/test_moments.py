"""One pass over the traces gives what the tables of every score would give one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.scores.joint import JointMoments
from anytime_bench.scores.moments import Moments
from anytime_bench.scores.variance import spread_of, spread_of_difference
from anytime_bench.trace.answers import TraceError


def parts(spread, index=...):
    return [np.asarray(part)[index] for part in (spread.normal, spread.student, spread.df)]


@given(st.integers(1, 5), st.integers(2, 40), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_scores_have_the_spread_of_their_own_tables(seeds, images, seed):
    rng = np.random.default_rng(seed)
    right = rng.random((seeds, 6, images)) < 0.6
    weights = rng.random((3, 6))
    tables = np.einsum("kc,scn->ksn", weights, right)
    moments = Moments.of(right)
    np.testing.assert_allclose(moments.value(weights), tables.mean(axis=(1, 2)))
    for i in range(3):
        np.testing.assert_allclose(parts(moments.spread(weights), i), parts(spread_of(tables[i])), atol=1e-12)


@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(2, 40), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_gaps_have_the_spread_of_the_differences_of_tables(seeds, images, seed):
    rng = np.random.default_rng(seed)
    rows = [rng.random((count, exits, images)) < 0.6 for count, exits in zip(seeds, (4, 1, 3), strict=True)]
    weights = [rng.random(row.shape[1]) for row in rows]
    tables = [np.einsum("c,scn->sn", w, row) for w, row in zip(weights, rows, strict=True)]
    paired = [(i, j) for i in range(3) for j in range(i + 1, 3) if seeds[i] == seeds[j]]
    apart, together = JointMoments.of(rows), JointMoments.of(rows, paired=paired)
    for moments, by_seed in ((apart, ()), (together, paired)):
        gaps, spread = moments.gaps(weights, constant=[0.0, 0.1, 0.2])
        for i in range(3):
            for j in range(3):
                assert gaps[i, j] == pytest.approx(tables[i].mean() - tables[j].mean() + 0.1 * (i - j))
                if i != j:
                    pair = (min(i, j), max(i, j)) in by_seed
                    alone = spread_of_difference(tables[i], tables[j], by_seed=pair)
                    np.testing.assert_allclose(parts(spread, (i, j)), parts(alone), atol=1e-12)
    values, spread = apart.score(apart.joined(weights)[0] - apart.joined(weights)[2], constant=-0.2)
    gaps, expected = apart.gaps(weights, constant=[0.0, 0.1, 0.2])
    assert values[0] == pytest.approx(gaps[0, 2])
    np.testing.assert_allclose(parts(spread, 0), parts(expected, (0, 2)), atol=1e-12)


def test_draws_vary_as_their_scores_do():
    rng = np.random.default_rng(0)
    ease = rng.uniform(-0.1, 0.1, 300)
    first, second = (rng.random((5, 2, 300)) < 0.7 + ease + 0.03 * rng.standard_normal((5, 1, 1)) for _ in range(2))
    moments = JointMoments.of([first, second, first], paired=[(0, 2)])
    weights = [np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.4]])] * 3
    clock = np.array([[0.0, 4e-4, 0.0], [0.0, 0.0, 0.0], [0.0, 1e-4, 0.0]])
    draws = moments.draws(weights, clock=clock, clock_df=8.0, draws=40_000)
    assert draws.shape == (40_000, 3, 3)
    for view in range(3):
        _, spread = moments.gaps([table[view] for table in weights])
        spread = spread.plus(clock[view][:, None] + clock[view], 8.0)
        i, j = np.triu_indices(3, 1)
        spread, variances = spread[i, j], (draws[:, view, i] - draws[:, view, j]).var(axis=0)
        # A t variable with d degrees of freedom varies d / (d - 2) times as much as its scale says.
        bound = spread.normal + spread.student * 2
        assert (variances <= 1.1 * bound + 1e-12).all()
        assert (variances >= 0.85 * spread.variance - 1e-12).all()
    np.testing.assert_allclose(draws[:, :, 0], draws[:, :, 2], atol=1e-6)


def test_the_order_of_images_changes_no_bit():
    rng = np.random.default_rng(1)
    right = rng.random((5, 20, 3000)) < 0.8
    one, other = Moments.of(right), Moments.of(right[:, :, rng.permutation(3000)])
    for name in ("by_seed", "between", "within"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_diverged_seed_counts_as_a_guess():
    right = np.ones((2, 1, 10), dtype=bool)
    right[1] = False
    moments = Moments.of(right, replaced=[[np.nan], [0.1]])
    assert moments.value([1.0]) == pytest.approx(0.55)
    assert moments.spread([1.0]).student == pytest.approx(np.var([1.0, 0.1], ddof=1) / 2)


def test_tables_of_other_images_are_refused():
    with pytest.raises(TraceError, match=r"tables\[1\]: expected shape \(2, 5\)"):
        Moments.of([np.ones((2, 5)), np.ones((2, 6))])
    with pytest.raises(TraceError, match="at least one"):
        Moments.of([])
