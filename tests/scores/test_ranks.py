"""Ranks need all seeds, corrected pairs, and never improve when evidence is taken away."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anytime_bench.scores.horizons import GRID, holds_in
from anytime_bench.scores.ranks import PROTOCOL_SEEDS, Rank, ranks, standing, without_rank
from anytime_bench.scores.variance import Spread
from anytime_bench.scores.verdicts import differences, holm, seeds_to_decide


def spread(variance, count, df=4.0):
    return Spread(np.zeros(count), np.full(count, float(variance)), np.full(count, df))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.3))
def test_holm_rejects_what_the_stepwise_rule_rejects(p, alpha):
    rejected = set()
    for step, k in enumerate(np.argsort(p, kind="stable")):
        if p[k] * (len(p) - step) > alpha:
            break
        rejected.add(int(k))
    assert set(np.flatnonzero(holm(p) <= alpha)) == rejected


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.data())
def test_withdrawing_a_pair_makes_no_other_pair_significant(p, data):
    """A p-value that becomes 1 is evidence taken away."""
    k = data.draw(st.integers(0, len(p) - 1))
    without = [1.0 if i == k else value for i, value in enumerate(p)]
    others = [i for i in range(len(p)) if i != k]
    assert (holm(without)[others] >= holm(p)[others] - 1e-12).all()


def test_verdicts_on_clear_cases():
    pairs = differences([0.05, -0.05, 0.001, 0.02], spread(1e-6, 4))
    assert [pair.verdict for pair in pairs] == ["better", "worse", "equivalent", "better"]
    assert [pair.verdict for pair in differences([0.02, 0.001], spread(4e-4, 2))] == ["undecided", "undecided"]
    assert pairs[0].low < pairs[0].value < pairs[0].high


def test_equivalence_is_two_one_sided_tests():
    for gap in (0.0, 0.004, -0.004, 0.009):
        for sd in (0.001, 0.002, 0.003, 0.006):
            below, above = stats.t.sf((0.01 - gap) / sd, 4), stats.t.sf((0.01 + gap) / sd, 4)
            # Two further clear pairs leave the pair too few tests to be better or worse.
            pair = differences([gap], spread(sd**2, 1), alpha=0.05)[0]
            if pair.verdict in ("equivalent", "undecided"):
                assert (pair.verdict == "equivalent") == (max(below, above) <= 0.05)


def test_one_network_under_two_names_is_never_told_apart():
    gaps = np.array([0.3, 0.3])
    pairs = differences(gaps, spread(1e-8, 2), same=[True, False])
    assert [pair.verdict for pair in pairs] == ["undecided", "better"]


def test_more_seeds_decide_what_fewer_leave_open():
    few = seeds_to_decide(0.03, spread(1e-4, 1)[0], 5, level=0.05 / 45)
    many = seeds_to_decide(0.015, spread(1e-4, 1)[0], 5, level=0.05 / 45)
    assert 5 < few < many
    of_images = Spread(np.array(1e-3), np.array(0.0), np.array(4.0))
    assert seeds_to_decide(0.02, of_images, 5, level=0.01) is None


@given(st.integers(1, 7), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_rank_intervals_hold_the_order_of_the_values(count, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.02, count)
    result = standing(values[:, None] - values[None], spread(1e-5, (count, count)))
    for rank, place in zip(result.ranks, (-values).argsort().argsort() + 1, strict=True):
        assert rank.first <= place <= rank.last


def test_all_tied_rows_share_the_whole_board():
    assert ranks(np.zeros((3, 3))) == [Rank(1, 3)] * 3
    assert ranks(np.zeros((0, 0))) == []
    assert str(Rank(2, 2)) == "2"


@given(st.sets(st.sampled_from([*PROTOCOL_SEEDS, 5, 6, 7])))
def test_only_the_protocol_seeds_give_a_rank(seeds):
    assert (without_rank(seeds) is None) == (set(PROTOCOL_SEEDS) <= seeds)


def test_a_range_of_horizons_is_unbroken():
    holds = [0.5 <= h <= 2.5 for h in GRID]
    assert holds_in(holds) == (0.5, 2.5)
    holds[GRID.index(1.5)] = False
    assert holds_in(holds) == (0.5, 1.25)
