"""Variances by source add up, tails are those of the laws they claim, and intervals cover what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from anytime_bench.scores.variance import Spread, half_width, spread_of, spread_of_difference, tail
from anytime_bench.trace.answers import TraceError


def single(normal, student, df):
    return Spread(np.array([float(normal)]), np.array([float(student)]), np.array([float(df)]))


@pytest.mark.parametrize("df", [2, 2.7, 4, 8.5, 40, 3000])
def test_without_images_the_tail_is_student_t(df):
    gaps = np.array([0.3, 2.0, 9.0])
    spread = Spread(np.zeros(3), np.full(3, 4.0), np.full(3, df))
    np.testing.assert_allclose(tail(2 * gaps, spread), stats.t.sf(gaps, df), rtol=2e-7)


def test_without_seeds_the_tail_is_normal():
    np.testing.assert_allclose(tail([3.0], single(1, 0, 0)), special.ndtr(-3.0))


@pytest.mark.parametrize("gap", [1.0, 4.0, 8.0])
def test_the_tail_of_the_sum_equals_the_convolution(gap):
    sum_of_both, _ = integrate.quad(lambda z: stats.norm.pdf(z) * stats.t.sf((gap - z) / 0.7, 4), -12, 12, limit=400)
    assert tail([gap], single(1, 0.49, 4)) == pytest.approx([sum_of_both], rel=1e-7)


@given(st.floats(0, 1), st.floats(2, 60), st.floats(0.5, 0.9999))
@settings(max_examples=60, deadline=None)
def test_half_width_inverts_the_tail(share, df, level):
    spread = single(share, 1 - share, df)
    assert tail(half_width(spread, level), spread) == pytest.approx([(1 - level) / 2], rel=1e-8)


def test_nothing_uncertain_is_certain():
    assert half_width(single(0, 0, 4)).tolist() == [0.0]
    assert tail([0.0], single(0, 0, 4)).tolist() == [0.5]
    assert tail([1e-9], single(0, 0, 4)).tolist() == [0.0]


@given(st.integers(2, 5), st.integers(2, 30), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_parts_add_up_to_the_crossed_random_effects_estimate(seeds, images, seed):
    table = np.random.default_rng(seed).random((seeds, images))
    mean, by_seed, by_image = table.mean(), table.mean(axis=1), table.mean(axis=0)
    of_seeds = images * ((by_seed - mean) ** 2).sum() / (seeds - 1)
    of_images = seeds * ((by_image - mean) ** 2).sum() / (images - 1)
    rest = ((table - by_seed[:, None] - by_image + mean) ** 2).sum() / (seeds - 1) / (images - 1)
    spread = spread_of(table)
    assert spread.student == pytest.approx(max(of_seeds, rest) / table.size)
    assert spread.normal == pytest.approx(max(of_images - rest, 0) / table.size, abs=1e-15)
    assert spread.df == seeds - 1


def test_one_seed_says_nothing_about_other_seeds():
    spread = spread_of([[1.0, 0.0, 1.0, 1.0]])
    assert (float(spread.student), float(spread.df)) == (0.0, 0.0)
    assert spread.normal == pytest.approx(np.var([1, 0, 1, 1], ddof=1) / 4)


def test_rows_with_the_same_weights_differ_by_nothing_when_paired_by_seed():
    table = np.random.default_rng(0).random((5, 40))
    assert spread_of_difference(table, table, by_seed=True).variance == 0
    assert spread_of_difference(table, table).variance > 0


def test_tables_that_cannot_be_compared_are_refused():
    with pytest.raises(TraceError, match="unequal sample counts, 3 and 4"):
        spread_of_difference(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(TraceError, match="2 and 3 seeds cannot be paired"):
        spread_of_difference(np.ones((2, 3)), np.ones((3, 3)), by_seed=True)
    with pytest.raises(TraceError, match="NaN"):
        spread_of([[0.0, np.nan]])
    with pytest.raises(TraceError, match="at least one"):
        spread_of(np.ones((1, 0)))


def right(rng, seeds, images, seed_sd, ease=0.0):
    """Correctness ``(seeds, images)`` of trainings of which each is better or worse by ``seed_sd``."""
    hard = rng.uniform(-0.2, 0.2, images)
    return rng.random((seeds, images)) < 0.7 + ease + hard + seed_sd * rng.standard_normal((seeds, 1))


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "most"), [(1, 0.0, 0.98), (5, 0.08, 0.98), (5, 0.0, 1.0), (5, 0.01, 1.0), (3, 0.02, 1.0)]
)
def test_intervals_cover_the_true_mean_and_the_true_difference(seeds, seed_sd, most):
    rng = np.random.default_rng([7, seeds, round(1000 * seed_sd)])
    spreads, values = [], []
    for _ in range(600):
        a, b = right(rng, seeds, 300, seed_sd), right(rng, seeds, 300, seed_sd)
        spreads += [spread_of(a), spread_of_difference(a, b)]
        values += [a.mean() - 0.7, a.mean() - b.mean()]
    together = Spread(*(np.array([getattr(s, part) for s in spreads]) for part in ("normal", "student", "df")))
    inside = np.abs(values) <= half_width(together)
    for share in (inside[::2].mean(), inside[1::2].mean()):
        # Where seeds and images weigh alike the law is conservative; where one of them does, it is exact.
        assert 0.93 <= share <= most
