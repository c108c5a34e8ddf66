"""Choices among exits: never worse than any other on the split that chose, and priced as the costs say."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.scores.curve import auc, envelope, exit_shares
from anytime_bench.scores.exit_sets import (
    best_exit_set,
    best_fixed_exit,
    emissions,
    set_costs,
    set_weights,
)

CHANCE = 0.1


@st.composite
def rows(draw):
    """Costs of answers alone and after all earlier ones, accuracies, and a horizon that cuts some of them off."""
    exits = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    prefix = np.cumsum(0.05 + rng.random(exits))
    run_through = prefix + np.concatenate([[0.0], np.cumsum(rng.random(exits - 1) * rng.choice([0, 0.2, 1.0]))])
    return prefix, run_through, rng.uniform(0.05, 1, exits), float(prefix[-1] * rng.uniform(0.5, 3))


def area(weights, accuracy):
    return float(weights @ np.concatenate([[CHANCE], accuracy]))


@given(rows())
@settings(max_examples=150, deadline=None)
def test_the_best_set_is_the_best_of_all_sets(row):
    prefix, run_through, accuracy, horizon = row
    exits = range(len(prefix))
    every = [chosen for size in range(len(prefix) + 1) for chosen in combinations(exits, size)]
    best = max(area(set_weights(prefix, run_through, list(chosen), horizon), accuracy) for chosen in every)
    chosen = best_exit_set(prefix, run_through, accuracy, horizon, CHANCE)
    assert area(set_weights(prefix, run_through, chosen, horizon), accuracy) == pytest.approx(best)


@given(rows())
@settings(max_examples=100, deadline=None)
def test_the_best_fixed_exit_is_the_best_set_of_one(row):
    prefix, run_through, accuracy, horizon = row
    areas = [area(set_weights(prefix, run_through, [k], horizon), accuracy) for k in range(len(prefix))]
    assert areas[best_fixed_exit(prefix, accuracy, horizon, CHANCE)] == pytest.approx(max(areas))


@given(rows())
@settings(max_examples=100, deadline=None)
def test_a_known_deadline_is_worth_at_least_every_single_answer(row):
    prefix, _, accuracy, horizon = row
    single = [([cost], [value]) for cost, value in zip(prefix, accuracy, strict=True)]
    best = area(envelope(single, horizon, CHANCE).shares, accuracy)
    for k in range(len(prefix)):
        assert best >= auc(prefix[k : k + 1], accuracy[k : k + 1], horizon, CHANCE) - 1e-12


@given(rows())
@settings(max_examples=100, deadline=None)
def test_asking_for_every_exit_costs_its_run_through(row):
    prefix, run_through, _, horizon = row
    every = list(range(len(prefix)))
    np.testing.assert_allclose(set_costs(prefix, run_through, every), run_through, rtol=1e-12)
    np.testing.assert_allclose(set_weights(prefix, run_through, every, horizon), exit_shares(run_through, horizon))


def test_weights_of_every_choice_sum_to_one():
    prefix, run_through = [1.0, 2.0, 5.0], [1.0, 2.5, 6.0]
    for chosen in ([], [0], [0, 2], [0, 1, 2]):
        assert set_weights(prefix, run_through, chosen, 4.0).sum() == pytest.approx(1)


def test_an_emission_that_noise_made_negative_costs_nothing():
    assert emissions([1.0, 2.0, 3.0], [1.1, 2.05, 3.2]).tolist() == pytest.approx([0.0, 0.15, 0.0])
