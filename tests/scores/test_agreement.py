"""Kendall's tau and its interval."""

import numpy as np
import pytest
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


def test_orders_of_other_rows_cannot_agree():
    with pytest.raises(TraceError, match="the same two or more rows"):
        kendall([1.0, 2.0], [1.0], [[1.0, 2.0]], [[1.0]])
    assert kendall([1.0, 1.0], [1.0, 2.0], [[1.0, 1.0]], [[1.0, 2.0]]).value == 0.0
