"""Stopping rules: the published budgeted batch to the last digit, the rest by hand and by brute force."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.scores import risk_control, simple_rules, stopping
from anytime_bench.scores.simple_rules import RiskControl, _PerExit
from anytime_bench.scores.stopping_contract import Answers
from anytime_bench.trace.answers import Trace

COST = np.arange(1.0, 6.0)

GOLDEN = Path(__file__).parents[1] / "golden" / "budgeted_batch.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def batch_inputs(golden):
    """Confidence and correctness of both splits, and the cost, as the published code sees them."""
    inputs = []
    for split in ("val", "test"):
        probabilities = golden[f"{split}_probs"]
        inputs += [probabilities.max(axis=2), probabilities.argmax(axis=2) == golden[f"{split}_targets"]]
    return (*inputs, golden["flops"])


def random_trace(seed, exits=5, images=300, classes=10, sharpness=2.0):
    """Exits that get better and surer with depth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    signal = np.linspace(0.5, 3, exits)[:, None, None] * np.eye(classes)[labels]
    ease = rng.gamma(2, 0.5, size=(1, images, 1))
    logits = sharpness * (signal * ease + 0.5 * rng.standard_normal((exits, images, classes)))
    return Trace.from_logits(logits, labels)


def test_budgeted_batch_equals_the_published_code(golden, batch_inputs):
    thresholds = stopping.batch_thresholds(batch_inputs[0], as_published=True)
    np.testing.assert_array_equal(thresholds.astype(np.float32), golden["main_T"])
    fitted = _PerExit(tuple(stopping.BATCH_Q), dict(zip(stopping.BATCH_Q, thresholds, strict=True)))
    cost = batch_inputs[-1]
    for split, confidence, correct in (("val", *batch_inputs[:2]), ("test", *batch_inputs[2:4])):
        leaves = fitted.exits_at(Answers(10, correct, confidence.astype(np.float64), confidence), stopping.BATCH_Q)
        accuracy, spent = np.array([stopping.outcome(leave, correct, cost) for leave in leaves]).T
        np.testing.assert_allclose(accuracy * 100, golden[f"main_acc_{split}"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(spent, golden[f"main_flops_{split}"], rtol=1e-9)


def test_the_default_lets_everybody_leave_where_too_few_remain():
    # Ties at exit 0 let all four leave although two were wanted, so exit 1 wants one and finds none.
    confidence = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]])
    published = stopping.batch_thresholds(confidence, [0.95], as_published=True)[0]
    corrected = stopping.batch_thresholds(confidence, [0.95])[0]
    assert published.tolist() == [pytest.approx(0.5), stopping.NOBODY, stopping.EVERYBODY]
    assert corrected.tolist() == [pytest.approx(0.5), stopping.EVERYBODY, stopping.EVERYBODY]


def test_both_rules_agree_where_enough_images_remain(batch_inputs):
    published = stopping.batch_thresholds(batch_inputs[0], as_published=True)
    np.testing.assert_array_equal(stopping.batch_thresholds(batch_inputs[0]), published)


@given(st.integers(1, 7), st.integers(1, 60), st.integers(0, 2**31), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_sweep_equals_leaving_image_by_image(exits, images, seed, coarse):
    rng = np.random.default_rng(seed)
    confidence = rng.random((exits, images))
    if coarse:  # ties between images, exits and thresholds
        confidence = np.round(confidence, 1)
    correct = rng.random((exits, images)) < 0.5
    cost = np.cumsum(rng.random(exits) + 0.01)
    grid = np.append(np.linspace(0, 1, 11), np.inf)
    swept = stopping.sweep(confidence, correct, cost, grid)
    expected = [stopping.outcome(stopping.exits_by_threshold(confidence, q), correct, cost) for q in grid]
    np.testing.assert_allclose(np.stack([swept.accuracy, swept.cost], axis=1), expected, atol=1e-12)


def test_a_threshold_nobody_reaches_means_the_last_exit():
    assert stopping.exits_by_threshold([[0.4, 1.0], [0.4, 0.2]], np.inf).tolist() == [1, 1]
    # A confidence of exactly 1 leaves at threshold 1.
    assert stopping.exits_by_threshold([[0.4, 1.0], [0.4, 0.2]], 1.0).tolist() == [1, 0]


def test_patience_counts_repeats_and_starts_again_at_a_change():
    answers = np.array([[3], [3], [5], [5], [5], [5]])
    assert stopping.exits_by_patience(answers, 1).tolist() == [1]
    assert stopping.exits_by_patience(answers, 2).tolist() == [4]
    assert stopping.exits_by_patience(answers, 3).tolist() == [5]
    assert stopping.exits_by_patience(answers, 9).tolist() == [5]
    with pytest.raises(ValueError, match="patience"):
        stopping.exits_by_patience(answers, 0)


def test_no_threshold_beats_the_oracle_at_its_cost():
    trace = random_trace(0)
    cost = np.arange(1.0, 6.0)
    accuracy, spent = stopping.outcome(stopping.oracle(trace.correct), trace.correct, cost)
    assert accuracy == trace.correct.any(axis=0).mean()
    swept = stopping.sweep(trace.confidence, trace.correct, cost)
    assert (swept.accuracy <= accuracy).all()
    assert (swept.accuracy[swept.cost <= spent] < accuracy).all()


def wsr_bound(losses, delta):
    """The bound as its definition reads: the first mean at which some prefix's wealth reaches 1/delta."""
    n = len(losses)
    for candidate in np.linspace(0, 1, 2001):
        wealth, best, total, squares = 1.0, 0.0, 0.5, 0.25
        variance = 0.25
        for i, loss in enumerate(losses, start=1):
            stake = min(1.0, np.sqrt(2 * np.log(1 / delta) / (n * variance)))
            wealth *= 1 - stake * (loss - candidate)
            best = max(best, wealth)
            total += loss
            squares += (loss - total / (1 + i)) ** 2
            variance = squares / (1 + i)
        if best > 1 / delta:
            return candidate
    return 1.0


def test_the_decision_agrees_with_the_bound_as_it_is_defined():
    rng = np.random.default_rng(6)
    for share in (0.0, 0.03, 0.3):
        losses = (rng.random(150) < share).astype(float)
        bound, bets = wsr_bound(losses, 0.1), risk_control.Bets.on(losses, 0.1)
        assert bets.below(bound + 1e-3, 0.1)
        assert not bets.below(bound - 1e-3, 0.1)


@pytest.mark.slow
def test_the_bound_fails_no_more_often_than_delta():
    rng = np.random.default_rng(8)
    failures = [risk_control.Bets.on(rng.random(300) < 0.05, 0.1).below(0.05, 0.1) for _ in range(1000)]
    assert np.mean(failures) <= 0.1


@pytest.mark.parametrize("unsafe", [0, 2])
def test_the_walk_ends_at_the_first_threshold_that_is_not_safe(unsafe, monkeypatch):
    losses = np.zeros((len(risk_control.THRESHOLDS), 400), dtype=bool)
    losses[unsafe] = True
    monkeypatch.setattr(simple_rules, "losses_by_threshold", lambda val: losses)
    last = risk_control.THRESHOLDS[unsafe - 1] if unsafe else np.inf
    assert set(RiskControl().fit(random_trace(1), COST).thresholds[0.05]) == {last}


def test_losses_by_hand():
    logits = np.zeros((2, 3, 2))
    # Image 0: right then wrong. Image 1: wrong then right. Image 2: wrong twice. All sure from exit 0 on.
    for k, answers in enumerate([[0, 1, 1], [1, 0, 1]]):
        logits[k, np.arange(3), answers] = 9
    trace = Trace.from_logits(logits, np.array([0, 0, 0]))
    assert risk_control.losses_by_threshold(trace, [0.5]).tolist() == [[False, True, False]]


def test_a_laxer_promise_never_costs_more_and_is_kept():
    test, val = random_trace(1, images=2000), random_trace(2, images=1000)
    fitted, costs = RiskControl().fit(val, COST), []
    for epsilon in (0.01, 0.02, 0.05):
        leave = fitted.exits(Answers.of(test), epsilon)
        right = test.correct[leave, np.arange(test.num_samples)]
        # The promise is about the expectation: on 2,000 images three standard errors of a share of epsilon.
        assert (test.correct[-1] & ~right).mean() <= epsilon + 3 * np.sqrt(epsilon / 2000)
        costs.append(leave.mean())
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < test.num_exits - 1, "some image must leave early, or nothing was tested"


def test_the_promise_is_broken_no_more_often_than_delta():
    """On random splits of one pool into 500 images to calibrate on and the rest, as in the published experiments."""
    pool = random_trace(1, images=2000)
    rng, broken = np.random.default_rng(0), []
    for _ in range(60):
        order = rng.permutation(2000)
        chosen = RiskControl().fit(pool.subset(order[:500]), COST).thresholds[0.02][0]
        broken.append(risk_control.losses_by_threshold(pool.subset(order[500:]), [chosen]).mean() > 0.02)
    assert np.mean(broken) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 60)
