"""Calibration and per-image scores: equal to other libraries, and by hand."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from anytime_bench.scores import confidence, per_sample

EXITS, IMAGES, CLASSES = 3, 500, 7


@pytest.fixture(scope="module")
def answers():
    """Probabilities ``(E, N, C)`` and labels ``(N,)``."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, IMAGES)
    logits = rng.standard_normal((EXITS, IMAGES, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    return special.softmax(2 * logits, axis=2), labels


def true_log_probability(probabilities, labels):
    return np.log(probabilities[:, np.arange(len(labels)), labels])


def test_nll_equals_scikit_learn(answers):
    probabilities, labels = answers
    theirs = [metrics.log_loss(labels, p) for p in probabilities]
    np.testing.assert_allclose(confidence.nll(true_log_probability(*answers)), theirs, atol=1e-12)


def test_brier_equals_scikit_learn(answers):
    probabilities, labels = answers
    ours = confidence.brier(true_log_probability(*answers), (probabilities**2).sum(axis=2))
    theirs = [
        sum(metrics.brier_score_loss(labels == c, p[:, c], pos_label=True) for c in range(CLASSES))
        for p in probabilities
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_ece_equals_torchmetrics(answers):
    probabilities, labels = answers
    ours = confidence.ece(probabilities.max(axis=2), probabilities.argmax(axis=2) == labels)
    theirs = [
        multiclass_calibration_error(torch.tensor(p), torch.tensor(labels), CLASSES, n_bins=15).item()
        for p in probabilities
    ]
    # torchmetrics accumulates its bins in float32.
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_full_confidence_belongs_to_the_last_bin():
    # 1.0 and 0.95 share the bin from 14/15 to 1, so an error of one offsets the modesty of the other.
    assert confidence.ece([[1.0, 0.95]], [[False, True]])[0] == pytest.approx(abs(0.5 - 0.975))


@pytest.mark.parametrize("digits", [16, 1])
def test_auroc_equals_scikit_learn_with_and_without_ties(answers, digits):
    probabilities, labels = answers
    scores = probabilities.max(axis=2).round(digits)
    correct = probabilities.argmax(axis=2) == labels
    theirs = [metrics.roc_auc_score(c, s) for c, s in zip(correct, scores, strict=True)]
    np.testing.assert_allclose(confidence.auroc(scores, correct), theirs, atol=1e-12)


def test_auroc_is_undefined_without_a_wrong_answer():
    assert np.isnan(confidence.auroc([[0.5, 0.6]], [[True, True]])[0])


@pytest.mark.parametrize("digits", [16, 1])
def test_augrc_is_the_area_under_the_generalised_risk_coverage_curve(answers, digits):
    probabilities, labels = answers
    scores = probabilities[0].max(axis=1).round(digits)
    wrong = probabilities[0].argmax(axis=1) != labels
    thresholds = np.unique(scores)[::-1]
    coverage = np.array([0.0] + [(scores >= q).mean() for q in thresholds])
    risk = np.array([0.0] + [((scores >= q) & wrong).mean() for q in thresholds])
    area = np.trapezoid(risk, coverage)
    assert confidence.augrc(scores[None], ~wrong[None])[0] == pytest.approx(area, abs=1e-12)


def test_augrc_at_the_ends():
    assert confidence.augrc([[0.9, 0.8]], [[True, True]])[0] == 0
    assert confidence.augrc([[0.9, 0.8]], [[False, False]])[0] == 0.5


def test_permuting_samples_changes_nothing(answers):
    probabilities, labels = answers
    order = np.random.default_rng(1).permutation(IMAGES)
    conf, right = probabilities.max(axis=2), probabilities.argmax(axis=2) == labels
    for score in (confidence.ece, confidence.auroc, confidence.augrc):
        np.testing.assert_allclose(score(conf[:, order], right[:, order]), score(conf, right), atol=1e-12)


def test_overthinking_waste_and_improvability_by_hand():
    # Images: lost at the end; found late; right throughout; never right.
    correct = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool)
    assert per_sample.destructive_overthinking(correct).tolist() == [True, False, False, False]
    assert per_sample.wasted_cost(correct, [1.0, 2.0, 4.0]).tolist() == [0.75, 0.0, 0.75, 0.0]
    # Exit 2 is wrong on images 0 and 3, of which 0 was right before.
    assert per_sample.hindsight_improvability(correct).tolist() == [0.0, 0.0, 0.5]


def test_falls_count_from_any_earlier_exit():
    probability = np.array([[0.5, 0.3], [0.4, 0.2], [0.45, 0.9], [0.1, 0.95]])
    np.testing.assert_allclose(per_sample.largest_fall(np.log(probability)), [0.4, 0.1])


def test_a_single_exit_neither_overthinks_nor_flips():
    assert not per_sample.destructive_overthinking([[1, 0]]).any()
    assert per_sample.flips([[1, 0]]).tolist() == [0, 0]
    assert per_sample.largest_fall([[-1.0, -2.0]]).tolist() == [0, 0]


def test_equal_values_share_the_mean_of_their_places():
    values = np.random.default_rng(0).integers(0, 9, 50).astype(float)
    np.testing.assert_array_equal(confidence.midranks(values), stats.rankdata(values))
