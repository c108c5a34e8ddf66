"""Every rule of the table: fast decisions equal step-by-step ones, budgets are spent, nothing later is seen."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from anytime_bench.errors import UserError
from anytime_bench.scores import stopping, trace_gru
from anytime_bench.scores.eenet import FittedEENet
from anytime_bench.scores.stopping_budgets import rules_at_budgets
from anytime_bench.scores.stopping_contract import Answers, FittedRule, LearnedRule, StoppingRule
from anytime_bench.scores.stopping_rules import RULES, at_budgets, register_stopping_rule, stopping_rules
from anytime_bench.trace.answers import Trace, TraceError

COST = np.array([0.2, 0.35, 0.6, 0.9, 1.3])


def random_trace(seed: int, images: int = 300, exits: int = 5, classes: int = 10) -> Trace:
    """Exits that get better and surer with depth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    signal = np.linspace(0.5, 3, exits)[:, None, None] * np.eye(classes)[labels] * rng.gamma(2, 0.5, (1, images, 1))
    return Trace.from_logits(2 * signal + rng.standard_normal((exits, images, classes)), labels)


VAL, TEST = random_trace(0), random_trace(1)


@pytest.fixture(scope="module", params=sorted(RULES.names()))
def fitted(request: pytest.FixtureRequest) -> FittedRule:
    rule: StoppingRule = stopping_rules()[request.param]
    return rule.fit(VAL, COST)


def test_deciding_at_once_is_deciding_answer_by_answer(fitted: FittedRule) -> None:
    answers = Answers.of(TEST)
    for setting in fitted.settings:
        np.testing.assert_array_equal(fitted.exits(answers, setting), FittedRule.exits(fitted, answers, setting))


def test_an_image_leaves_alone_as_it_leaves_among_others(fitted: FittedRule) -> None:
    answers = Answers.of(TEST)
    alone = Answers(10, *(getattr(answers, f.name)[:, 7:8] for f in fields(answers)[1:]))
    for setting in fitted.settings:
        assert fitted.exits(alone, setting)[0] == fitted.exits(answers, setting)[7]


def test_the_curve_is_what_each_setting_gives(fitted: FittedRule) -> None:
    fast, slow = fitted.curve(TEST, COST), FittedRule.curve(fitted, TEST, COST)
    np.testing.assert_allclose(fast.accuracy, slow.accuracy, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.cost, slow.cost, rtol=0, atol=1e-12)


def test_a_budget_is_spent_where_it_was_fitted(fitted: FittedRule) -> None:
    spends = fitted.curve(VAL, COST).cost
    budgets = [0.1, 0.4, 0.7, 1.0, 9.0]
    for budget, result in zip(budgets, at_budgets(fitted, VAL, VAL, COST, budgets), strict=True):
        if budget < spends.min():
            assert result is None
        else:
            assert result is not None
            assert result.cost == pytest.approx(min(budget, spends.max()), abs=1e-12)


def test_the_oracle_is_above_every_rule(fitted: FittedRule) -> None:
    most = TEST.correct.any(axis=0).mean()
    assert (fitted.curve(TEST, COST).accuracy <= most + 1e-12).all()


def test_confidence_at_a_budget_is_the_mixture_of_neighbouring_thresholds() -> None:
    fitted = stopping_rules()["confidence"].fit(VAL, COST)
    result = at_budgets(fitted, VAL, TEST, COST, [0.5])[0]
    assert result is not None
    low, high = (list(fitted.settings).index(setting) for setting in result.settings)
    assert high == low + 1
    expected, cost = np.zeros(TEST.num_samples), 0.0
    for threshold, share in zip(result.settings, (1 - result.weight, result.weight), strict=True):
        leave = stopping.exits_by_threshold(TEST.confidence, threshold)
        expected += share * TEST.correct[leave, np.arange(TEST.num_samples)]
        cost += share * COST[leave].mean()
    np.testing.assert_allclose(result.correct, expected, rtol=0, atol=1e-12)
    assert result.cost == pytest.approx(cost, abs=1e-12)


def test_what_a_rule_sees_holds_no_label() -> None:
    assert {field.name for field in fields(Answers)} == {"num_classes", "predictions", "confidence", "squared_norm"}
    assert Answers.of(TEST).until(1).shape == (2, 300)


class _Coin(StoppingRule, FittedRule):
    name, title = "coin", "coin"
    settings = (0.0, 1.0)

    def fit(self, val: Trace, cost: np.ndarray) -> FittedRule:
        return self

    def stop(self, answers: Answers, setting: float) -> np.ndarray:
        return answers.confidence[-1] > setting


def test_a_registered_rule_is_in_the_table_and_a_taken_name_is_refused() -> None:
    with RULES.temporary():
        assert register_stopping_rule(_Coin) is _Coin
        assert isinstance(stopping_rules()["coin"], _Coin)
        assert RULES.names()[-1] == "coin"
    assert "coin" not in RULES.names()
    with pytest.raises(UserError, match="'confidence' is taken by the suite"):
        register_stopping_rule(type("Mine", (_Coin,), {"name": "confidence"}))


def test_a_rule_without_a_title_is_refused() -> None:
    nameless = type("Nameless", (StoppingRule,), {"name": "nameless"})
    with pytest.raises(UserError, match="'Nameless' has no title"):
        register_stopping_rule(nameless)


def test_an_object_in_place_of_the_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"'coin': expected a class, got an object: register_stopping_rule\(_Coin\)"):
        register_stopping_rule(_Coin())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stop": lambda self, a, s: a.confidence[-1]}, r"stop gave float64 of shape \(300,\), expected bool \(300,\)"),
        ({"stop": lambda self, a, s: a.confidence > s}, r"stop gave bool of shape \(4, 300\), expected bool \(300,\)"),
        ({"stop": lambda self, a, s: True}, r"stop gave bool of shape \(\), expected"),
        ({"exits": lambda self, a, s: np.full(300, 5)}, r"Odd gave leaves of shape \(300,\), expected 300 exits"),
        ({"fit": lambda self, val, cost: None}, "fit gave NoneType, expected an object of a class derived"),
        ({"settings": ()}, "Odd has no settings"),
    ],
)
def test_what_no_rule_may_give_is_said_with_the_rules_name(changed: dict[str, object], words: str) -> None:
    with RULES.temporary():
        register_stopping_rule(type("Odd", (_Coin,), {"name": "odd", **changed}))
        with pytest.raises(TraceError, match=f"^stopping rule 'odd': {words}"):
            rules_at_budgets(TEST, VAL, {"macs": COST}, {}, ["odd"])


def test_a_rule_that_names_exits_there_are_not_is_refused() -> None:
    class Beyond(_Coin):
        def exits(self, answers: Answers, setting: float) -> np.ndarray:
            return np.full(answers.shape[1], answers.shape[0])

    with pytest.raises(TraceError, match=r"expected 300 exits in 0\.\.4"):
        Beyond().curve(TEST, COST)


def test_the_gru_in_numpy_is_the_one_that_was_trained() -> None:
    import torch

    learned = trace_gru.train(VAL)
    gru, head = torch.nn.GRU(3, trace_gru.HIDDEN).double(), torch.nn.Linear(trace_gru.HIDDEN, 1).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(gru, f"{name}_l0").data = torch.from_numpy(learned[name]).double()
    head.weight.data, head.bias.data = (
        torch.from_numpy(learned["head_weight"])[None].double(),
        torch.from_numpy(learned["head_bias"]).double(),
    )
    seen = (trace_gru.features(Answers.of(TEST)) - learned["mean"]) / learned["spread"]
    with torch.inference_mode():
        expected = head(gru(torch.from_numpy(seen))[0])[..., 0].sigmoid().numpy()
    np.testing.assert_allclose(trace_gru.stop_probabilities(learned, Answers.of(TEST)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["trace_gru", "eenet"])
def test_what_was_learned_and_stored_decides_as_before(name: str) -> None:
    rule = stopping_rules()[name]
    assert isinstance(rule, LearnedRule)
    learned = rule.learn(VAL, COST)
    assert sum(values.nbytes for values in learned.values()) < 10_000
    fitted, directly = rule.fit_learned(VAL, COST, learned), rule.fit(VAL, COST)
    for setting in fitted.settings:
        np.testing.assert_array_equal(
            fitted.exits(Answers.of(TEST), setting), directly.exits(Answers.of(TEST), setting)
        )
    first, other = rule.halves(VAL)
    assert first.num_samples + other.num_samples == VAL.num_samples
    assert rule.calibration(VAL).num_samples == other.num_samples


def test_eenet_spends_about_the_budget_that_it_learned_for(fitted: FittedRule) -> None:
    if not isinstance(fitted, FittedEENet):
        return
    rule = stopping_rules()["eenet"]
    spent = fitted.curve(rule.calibration(VAL), COST).cost
    np.testing.assert_allclose(spent, fitted.settings, rtol=0.15)
