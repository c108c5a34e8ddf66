"""One pass over the traces gives what the tables of every score would give one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.scores.moments import Moments
from anytime_bench.scores.variance import spread_of, spread_of_difference
from anytime_bench.trace.answers import TraceError


def parts(spread, index=...):
    return [np.asarray(part)[index] for part in (spread.normal, spread.student, spread.df)]


@given(st.integers(1, 5), st.integers(2, 40), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_scores_and_differences_have_the_spread_of_their_own_tables(seeds, images, seed):
    rng = np.random.default_rng(seed)
    right = rng.random((seeds, 6, images)) < 0.6
    weights = rng.random((3, 6))
    tables = np.einsum("kc,scn->ksn", weights, right)
    moments = Moments.of(right)
    gaps, paired = moments.pairs(weights)
    _, unpaired = moments.pairs(weights, by_seed=np.zeros((3, 3), dtype=bool))
    np.testing.assert_allclose(moments.value(weights), tables.mean(axis=(1, 2)))
    for i in range(3):
        np.testing.assert_allclose(parts(moments.spread(weights), i), parts(spread_of(tables[i])), atol=1e-12)
        for j in range(3):
            assert gaps[i, j] == pytest.approx(tables[i].mean() - tables[j].mean())
            alone = spread_of_difference(tables[i], tables[j], by_seed=True)
            np.testing.assert_allclose(parts(paired, (i, j)), parts(alone), atol=1e-12)
            if i != j:
                # Two rows whose rests are not independent, as in these tables, share less than independent ones would.
                alone = spread_of_difference(tables[i], tables[j])
                np.testing.assert_allclose(parts(unpaired, (i, j))[1:], parts(alone)[1:], atol=1e-12)


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
