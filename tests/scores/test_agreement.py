"""Kendall's tau and its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anytime_bench.scores.agreement import kendall
from anytime_bench.trace.answers import TraceError


def test_tau_is_scipys_and_lies_in_its_interval():
    rng = np.random.default_rng(1)
    a, b = rng.random(8), rng.random(8)
    tau = kendall(a, b, a + 0.01 * rng.standard_normal((500, 8)), b + 0.01 * rng.standard_normal((500, 8)))
    assert tau.value == pytest.approx(stats.kendalltau(a, b).statistic)
    assert tau.low <= tau.value <= tau.high
    wide = kendall(a, b, a + rng.standard_normal((500, 8)), b + rng.standard_normal((500, 8)))
    assert wide.high - wide.low > tau.high - tau.low


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_ties_count_as_in_scipy(pairs):
    a, b = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    theirs = stats.kendalltau(a, b).statistic
    assert kendall(a, b, a[None], b[None]).value == pytest.approx(0.0 if np.isnan(theirs) else theirs)


def test_orders_of_other_rows_cannot_agree():
    with pytest.raises(TraceError, match="the same two or more rows"):
        kendall([1.0, 2.0], [1.0], [[1.0, 2.0]], [[1.0]])
    assert kendall([1.0, 1.0], [1.0, 2.0], [[1.0, 1.0]], [[1.0, 2.0]]).value == 0.0
