"""What the trace is read for: typicality, out-of-distribution images, and when to stop."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from anytime_bench.analysis import learned_stopping, ood, typicality
from anytime_bench.trace.answers import Trace, TraceError

COST = np.arange(1.0, 6.0)


def trace_of(seed, images=600, ease=None, exits=5, classes=10):
    """Images with a larger ``ease`` are answered earlier and more surely."""
    labels = np.random.default_rng(0).integers(0, classes, images)
    rng = np.random.default_rng(seed)
    ease = np.ones(images) if ease is None else ease
    signal = np.linspace(0.3, 4, exits)[:, None, None] * (ease[:, None] * np.eye(classes)[labels])[None]
    return Trace.from_logits(2 * (signal + 0.5 * rng.standard_normal((exits, images, classes))), labels)


@pytest.fixture(scope="module")
def ease():
    return np.random.default_rng(9).gamma(3, 0.4, 600)


@pytest.mark.parametrize("levels", [9, 1000])
def test_spearman_equals_scipy(levels):
    rng = np.random.default_rng(1)
    x = rng.random(300).round(2)
    y = (x * levels / 3 + rng.random(300) * levels / 2).round()
    assert typicality.spearman(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("levels", [9, 1000])
def test_weighted_spearman_equals_scipy_on_repeated_and_missing_images(levels):
    rng = np.random.default_rng(2)
    x = rng.random(80).round(2)
    y = (x * levels / 3 + rng.random(80) * levels / 2).round()
    weights = rng.integers(0, 3, (10, 80)).astype(np.uint8)
    ours = typicality._spearman(x, y, weights)
    theirs = [stats.spearmanr(np.repeat(x, row), np.repeat(y, row)).statistic for row in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_spearman_interval_agrees_with_a_bootstrap():
    rng = np.random.default_rng(6)
    x = rng.random(600)
    y = (5 * (x + 0.6 * rng.random(600))).round()
    rho = typicality.spearman(x, y)
    drawn = [stats.spearmanr(x[chosen], y[chosen]).statistic for chosen in rng.integers(0, 600, (400, 600))]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert rho.high - rho.low == pytest.approx(high - low, rel=0.25)
    assert rho.low < rho.value < rho.high


def test_typical_images_are_answered_earlier_where_both_follow_from_ease(ease):
    others = [trace_of(seed, ease=ease) for seed in (11, 12)]
    rho = typicality.response_against_typicality(trace_of(10, ease=ease), others)
    assert rho.low <= rho.value <= rho.high < 0
    by_hand = stats.spearmanr(
        typicality.typicality(others), typicality.response_time(trace_of(10, ease=ease), COST)
    ).statistic
    assert rho.value == pytest.approx(by_hand, abs=1e-12)


def test_typicality_is_the_mean_true_probability_of_the_others():
    a, b = trace_of(1), trace_of(2)
    expected = (np.exp(a.true_log_probability[-1].astype(float)) + np.exp(b.true_log_probability[-1].astype(float))) / 2
    np.testing.assert_allclose(typicality.typicality([a, b]), expected, atol=1e-15)
    with pytest.raises(TraceError, match="others"):
        typicality.typicality([])


def test_placements_give_scikit_learns_auroc():
    rng = np.random.default_rng(3)
    inside, away = rng.normal(0.5, 1, 200).round(1), rng.normal(0, 1, 150).round(1)
    above, below = ood.placements(inside, away)
    expected = roc_auc_score(np.repeat([1, 0], [200, 150]), np.concatenate([inside, away]))
    assert above.mean() == pytest.approx(expected, abs=1e-12)
    assert below.mean() == pytest.approx(expected, abs=1e-12)


def test_the_auroc_interval_agrees_with_a_bootstrap():
    rng = np.random.default_rng(4)
    inside, away = rng.normal(1, 1, 300), rng.normal(0, 1, 300)
    interval = ood._interval(*ood.placements(inside, away))
    drawn = [ood.placements(rng.choice(inside, 300), rng.choice(away, 300))[0].mean() for _ in range(500)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.15)


def test_other_images_are_known_by_their_trace_where_only_the_trace_differs():
    """Own answers grow surer exit by exit; the others are as sure at the end, but from the first exit on."""
    inside, val = trace_of(1), trace_of(2)
    logits = np.repeat(
        2 * (4 * np.eye(10)[inside.labels] + np.random.default_rng(5).standard_normal((600, 10)) / 2)[None], 5, axis=0
    )
    away = Trace.from_logits(logits, inside.labels)
    result = ood.ood_auroc(inside, away, val)
    assert result.trace_density.low > 0.95
    assert result.last_exit.low < 0.5 < result.last_exit.high
    assert result.trace_density_minus_last_exit.low > 0
    same = ood.ood_auroc(inside, trace_of(6), val)
    assert same.trace_density.low < 0.5 < same.trace_density.high


def test_ood_needs_the_same_exits():
    with pytest.raises(TraceError, match="ood_predictions: expected 5 exits"):
        ood.ood_auroc(trace_of(1), trace_of(1, exits=3), trace_of(2))


def test_the_gru_learns_when_the_answer_is_final(ease):
    test, val = trace_of(1, ease=ease), trace_of(2, ease=ease)
    first = learned_stopping.learned_stopping(test, val, COST, 5.0)
    again = learned_stopping.learned_stopping(test, val, COST, 5.0)
    assert first == again
    # A random reading of the trace would have 0.5 at every exit; confidence alone is the bar to come near.
    gru, bare = (np.array(rule.auroc, dtype=float) for rule in (first.gru, first.confidence))
    assert np.nanmean(gru) > 0.7
    assert np.nanmean(gru) > np.nanmean(bare) - 0.05
    assert set(first.gru.at_budget) == {"25", "50", "75", "100"}
    # All the budget of the last exit buys the last exit's accuracy.
    assert first.gru.at_budget["100"].accuracy >= test.accuracy[-1] - 0.05


def test_the_grus_target_is_agreement_with_the_last_exit():
    trace = trace_of(1)
    target = learned_stopping.answer_is_final(trace)
    assert target[-1].all()
    assert (target[0] == (trace.predictions[0] == trace.predictions[-1])).all()


def test_learned_stopping_refuses_what_it_cannot_fit():
    with pytest.raises(TraceError, match="at least 4 validation images"):
        learned_stopping.learned_stopping(trace_of(1), trace_of(2, images=3), COST, 5.0)
    with pytest.raises(TraceError, match="expected 5 exits"):
        learned_stopping.learned_stopping(trace_of(1), trace_of(2, exits=3), COST, 5.0)
    with pytest.raises(TraceError, match="a single exit"):
        learned_stopping.learned_stopping(trace_of(1, exits=1), trace_of(2, exits=1), [1.0], 1.0)
