"""The anytime curve and its areas: hand-computed values, invariants, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anytime_bench.scores import curve
from anytime_bench.trace.answers import TraceError

CHANCE = 0.1


@st.composite
def rows(draw):
    """(cost, accuracy, horizon): increasing costs, accuracies no worse than chance."""
    exits = draw(st.integers(1, 8))
    gaps = draw(hnp.arrays(np.float64, exits, elements=st.floats(0.01, 5)))
    accuracy = draw(hnp.arrays(np.float64, exits, elements=st.floats(CHANCE, 1)))
    return np.cumsum(gaps), accuracy, draw(st.floats(0.1, 40))


def test_the_curve_is_a_step_function_that_holds_the_last_answer():
    cost, accuracy = [2.0, 5.0], [0.6, 0.4]
    budgets = [0.0, 1.99, 2.0, 4.99, 5.0, 1e9]
    assert curve.accuracy_at(cost, accuracy, budgets, 0.1).tolist() == [0.1, 0.1, 0.6, 0.6, 0.4, 0.4]


def test_areas_by_hand():
    # Chance on [0,2), 0.6 on [2,5), 0.4 on [5,10): (0.2 + 1.8 + 2.0) / 10.
    assert curve.auc([2, 5], [0.6, 0.4], 10, 0.1) == pytest.approx(0.4, abs=1e-15)
    # Truncated at 4: (0.2 + 1.2) / 4; the second exit is beyond the horizon.
    assert curve.auc([2, 5], [0.6, 0.4], 4, 0.1) == pytest.approx(0.35, abs=1e-15)
    # A row whose first answer comes after the horizon is worth a guess.
    assert curve.auc([20], [0.9], 10, 0.1) == pytest.approx(0.1, abs=1e-15)


def test_alc_by_hand():
    # t0 = 1, u(b) = log(1+b)/log(21): chance up to u(2), then 0.9.
    u = np.log(3) / np.log(21)
    assert curve.auc([2], [0.9], 20, 0.1, log=True) == pytest.approx(0.1 * u + 0.9 * (1 - u), abs=1e-15)


def test_auc_equals_a_riemann_sum_of_the_curve():
    rng = np.random.default_rng(0)
    cost, accuracy = np.cumsum(rng.random(6)), rng.random(6)
    middles = (np.arange(200_000) + 0.5) / 200_000 * 4
    assert curve.auc(cost, accuracy, 4, 0.1) == pytest.approx(
        curve.accuracy_at(cost, accuracy, middles, 0.1).mean(), abs=1e-4
    )


def test_a_trapezoid_would_give_another_number():
    """CascadedCE of the source paper on CIFAR-10: late and steep, where the trapezoid flatters most."""
    accuracy = np.array([10.0, 10.2, 10.3, 11.5, 33.4, 62.8, 77.3, 91.8]) / 100
    ticks = np.arange(2, 10)
    steps = curve.auc(ticks, accuracy, 9, 0.1)
    trapezoid = np.trapezoid(np.concatenate([[0.1, 0.1], accuracy]), np.arange(10)) / 9
    assert steps < 0.28
    assert trapezoid > steps + 0.04


@given(rows())
def test_areas_lie_between_chance_and_the_best_accuracy(row):
    cost, accuracy, horizon = row
    for log in (False, True):
        value = curve.auc(cost, accuracy, horizon, CHANCE, log=log)
        assert CHANCE - 1e-12 <= value <= accuracy.max() + 1e-12


@given(rows(), st.data())
def test_an_inserted_exit_with_the_same_answers_changes_nothing(row, data):
    cost, accuracy, horizon = row
    k = data.draw(st.integers(0, len(cost) - 1))
    following = cost[k + 1] if k + 1 < len(cost) else cost[k] + 1
    more_cost = np.insert(cost, k + 1, (cost[k] + following) / 2)
    more_accuracy = np.insert(accuracy, k + 1, accuracy[k])
    for log in (False, True):
        assert curve.auc(more_cost, more_accuracy, horizon, CHANCE, log=log) == pytest.approx(
            curve.auc(cost, accuracy, horizon, CHANCE, log=log), abs=1e-12
        )


@given(rows(), st.data())
def test_the_area_rises_when_an_exit_that_helps_gets_cheaper(row, data):
    cost, accuracy, horizon = row
    k = data.draw(st.integers(0, len(cost) - 1))
    before = accuracy[k - 1] if k else CHANCE
    accuracy = accuracy.copy()
    accuracy[k] = max(accuracy[k], before + 0.01)
    cheaper = cost.copy()
    cheaper[k] -= 0.5 * (cost[k] - (cost[k - 1] if k else 0))
    for log in (False, True):
        before, after = (curve.auc(each, accuracy, horizon, CHANCE, log=log) for each in (cost, cheaper))
        gain = after - before
        assert gain >= -1e-12
        if cost[k] <= horizon:
            assert gain > 0


@given(rows())
def test_an_exit_that_gets_worse_costs(row):
    cost, accuracy, horizon = row
    worse = np.append(accuracy, 0.0)
    longer = np.append(cost, cost[-1] + 1)
    assert curve.auc(longer, worse, horizon + longer[-1], CHANCE) < curve.auc(
        longer, np.append(accuracy, accuracy[-1]), horizon + longer[-1], CHANCE
    )


@given(st.integers(1, 6), st.integers(1, 50), st.integers(0, 2**31), st.booleans())
@settings(max_examples=50)
def test_the_mean_of_the_images_areas_is_the_area(exits, images, seed, log):
    rng = np.random.default_rng(seed)
    correct = rng.random((exits, images)) < 0.5
    cost = np.cumsum(rng.random(exits) + 0.01)
    expected = curve.auc(cost, correct.mean(axis=1), 2.0, 0.1, log=log)
    assert curve.auc(cost, correct, 2.0, 0.1, log=log).mean() == pytest.approx(expected, abs=1e-12)


def envelope_area(board, horizon):
    accuracies = np.concatenate([[CHANCE], *(accuracy for _, accuracy in board)])
    return float(curve.envelope(board, horizon, CHANCE).shares @ accuracies)


@given(rows(), st.permutations(range(3)))
def test_the_envelope_of_a_board_does_not_depend_on_the_order_of_its_rows(row, order):
    cost, accuracy, horizon = row
    costs = np.asarray(cost, dtype=np.float64)
    board = [(costs, accuracy), (costs * 0.7, accuracy * 0.8), (costs * 1.3, np.minimum(accuracy * 1.2, 1))]
    area = envelope_area(board, horizon)
    assert area >= max(curve.auc(*each, horizon, CHANCE) for each in board) - 1e-12
    assert envelope_area([board[i] for i in order], horizon) == pytest.approx(area, abs=1e-12)
    assert curve.envelope(board, horizon, CHANCE).shares.sum() == pytest.approx(1)
    dominant = (costs * 0.5, np.ones(len(costs)))
    assert envelope_area([*board, dominant], horizon) == pytest.approx(curve.auc(*dominant, horizon, CHANCE))


def test_the_envelope_less_a_row_is_its_regret():
    a, b = ([1, 4], [0.5, 0.9]), ([2], [0.8])
    # A lacks 0.3 on [2, 4); B lacks 0.4 on [1, 2) and 0.1 on [4, 10).
    assert envelope_area([a, b], 10) - curve.auc(*a, 10, 0.1) == pytest.approx(0.06)
    assert envelope_area([a, b], 10) - curve.auc(*b, 10, 0.1) == pytest.approx(0.10)


@given(rows(), st.data())
def test_slopes_are_the_derivatives_of_the_area(row, data):
    cost, accuracy, horizon = row
    costs = np.asarray(cost, dtype=np.float64)
    board = [(costs, accuracy), (costs * 0.77, accuracy * 0.9)]
    together = np.concatenate([accuracy, accuracy * 0.9])
    slopes = curve.envelope(board, horizon, CHANCE).slopes(together, CHANCE)
    k = data.draw(st.integers(0, len(costs) - 1))
    step = 1e-7 * horizon
    moved = costs.copy()
    moved[k] += step
    gaps = np.abs(np.concatenate([costs[np.arange(len(costs)) != k], costs * 0.77, [horizon]]) - costs[k])
    if gaps.min() > 3 * step:
        change = envelope_area([(moved, accuracy), board[1]], horizon) - envelope_area(board, horizon)
        assert change / step == pytest.approx(slopes[k], abs=1e-5 / horizon)


def test_time_to_is_the_first_exit_that_has_the_share():
    cost, accuracy = [1, 2, 3], [0.50, 0.81, 0.80]
    assert curve.time_to(cost, accuracy, 1.0, 0.8) == 2
    assert curve.time_to(cost, accuracy, 0.5, 0.8) == 1
    assert curve.time_to(cost, accuracy, 1.0, 0.82) is None


def test_settled_times_increase_and_charge_the_slower_time():
    settled = curve.settle([1.0, 3.0, 2.0, 3.0, 5.0])
    assert (np.diff(settled) > 0).all()
    np.testing.assert_allclose(settled, [1, 3, 3, 3, 5], rtol=1e-15)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ([1.0, 1.0], r"cost\[macs\]: costs must increase, got 1 and then 1 at exit 1"),
        ([2.0, 1.0], r"cost\[macs\]: costs must increase"),
        ([1.0, np.nan], r"cost\[macs\]: exit 1 holds NaN"),
        ([-1.0, 1.0], r"cost\[macs\]: expected costs of at least 0"),
        ([], r"cost\[macs\]: expected one number per exit"),
    ],
)
def test_costs_that_cannot_be_are_refused_with_the_field_named(cost, message):
    with pytest.raises(TraceError, match=message):
        curve.check_cost(cost, "cost[macs]")


def test_unequal_shapes_and_bad_horizons_are_refused():
    with pytest.raises(TraceError, match="accuracy: expected one row for each of 2 exits"):
        curve.auc([1, 2], [0.5], 1, 0.1)
    with pytest.raises(TraceError, match="accuracy: exit 1 holds NaN"):
        curve.auc([1, 2], [0.5, np.nan], 1, 0.1)
    with pytest.raises(TraceError, match="horizon"):
        curve.auc([1, 2], [0.5, 0.6], 0, 0.1)
    with pytest.raises(TraceError, match="accuracy: expected one row for each of 2 exits"):
        curve.auc([1, 2], np.ones((3, 4)), 1, 0.1)
