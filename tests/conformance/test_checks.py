"""The conformance kit passes sound methods and catches each planted fault by the check that is meant for it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from anytime_bench.conformance import (
    CHECKS,
    CheckResult,
    check_method,
    parametrize_with_checks,
    run_checks,
    synthetic_task,
)
from anytime_bench.conformance.report import check_named
from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.methods.plugins import load_method, load_plugin
from anytime_bench.methods.scaffold import new_plugin
from anytime_bench.registry import METHODS
from anytime_bench.scores.catalogue import SCORES
from anytime_bench.scores.stopping_rules import RULES
from anytime_bench.training.recipes import recipes

FAULTS = sorted(p for p in (Path(__file__).parent / "planted_faults").glob("*.py") if p.stem != "conftest")
BASELINES = sorted(entry.name for entry in entry_points(group=METHODS) if entry.value.startswith("baselines."))


class SoundNet(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, task):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(c, 8, 3, padding=1) for c in (task.shape[0], 8, 8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(8, task.num_classes) for _ in range(3))

    def stream(self, images):
        for block, norm, head in zip(self.blocks, self.norms, self.heads, strict=True):
            images = norm(block(images)).relu()
            yield head(images.mean((2, 3)))


class Sound(Method):
    card = MethodCard(title="Sound")

    def build(self, task):
        return SoundNet(task)


class HeadsAlone(Sound):
    def parameter_groups(self, model):
        return [{"params": model.heads.parameters()}]


class OneExitNet(nn.Sequential, AnytimeModel):
    num_exits, ticks = 1, (1,)

    def stream(self, images):
        yield nn.Sequential.forward(self, images)

    def forward(self, images):
        return torch.stack(list(self.stream(images)))


class OneExit(Sound):
    def build(self, task):
        return OneExitNet(nn.Flatten(), nn.Linear(int(np.prod(task.shape)), task.num_classes))


class Lazy(Sound):
    """Layers that learn their input size from the first batch."""

    def build(self, task):
        net = SoundNet(task)
        net.heads = nn.ModuleList(nn.LazyLinear(task.num_classes) for _ in range(3))
        return net


class OnlyFloat32Net(SoundNet):
    def stream(self, images):
        for logits in super().stream(images):
            yield logits @ torch.eye(logits.shape[1])


class OnlyFloat32(Sound):
    def build(self, task):
        return OnlyFloat32Net(task)


class CheapTicks(Sound):
    def build(self, task):
        net = SoundNet(task)
        net.ticks = (1, 1.01, 1.02)
        return net


class Borrowed(Sound):
    weights_from = "sound"


class TooSmall(Sound):
    def skip(self, task):
        return "needs images of 64 pixels" if task.shape[1] < 64 else None


def verdicts(results: list[CheckResult], status: str) -> set[str]:
    return {result.name for result in results if result.status == status}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda path: path.stem)
def test_each_planted_fault_fails_exactly_the_check_meant_for_it(fault):
    (name,) = load_plugin(str(fault))["method"]
    results = run_checks(load_method(name))
    assert {r.name: r.why for r in results if r.status in ("fail", "warn")}.keys() == {fault.stem}


#: One of each kind: a serial net, a pipelined one, exits of a published net. The rest run with the slow tests.
QUICK = ("serial_ce", "cascaded_td", "sdn")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(e.name for e in entry_points(group=METHODS) if e.value.startswith("baselines."))
    ],
)
def test_every_baseline_passes_as_it_runs_on_digits(name):
    results = check_named(name, "digits")
    assert {result.name: result.why for _, result in results if result.status in ("fail", "warn")} == {}
    assert sum(result.status == "pass" for _, result in results) >= 20


SCORING = """
import anytime_bench as ab

class Fitted(ab.FittedRule):
    settings = (0.2, 0.5)

    def stop(self, answers, setting):
        return answers.confidence[-1] >= setting

@ab.register_stopping_rule
class Sound(ab.StoppingRule):
    name, title = "sound", "sound"

    def fit(self, val, cost):
        return Fitted()

@ab.register_stopping_rule
class Forgotten(Sound):
    name = "forgotten"

    def fit(self, val, cost):
        Fitted()

ab.register_score("wrong", lambda trace, cost: 1 - trace.accuracy)
ab.register_score("first", lambda trace, cost: trace.correct[0], per="image")
ab.register_score("scalar", lambda trace, cost: trace.accuracy.mean())
ab.register_score("bare", lambda trace: trace.accuracy)
ab.register_score("undefined", lambda trace, cost: trace.accuracy * float("nan"))
"""


def test_scores_and_rules_of_a_file_are_evaluated_by_name(tmp_path):
    path = tmp_path / "scoring.py"
    path.write_text(SCORING)
    with SCORES.temporary(), RULES.temporary():
        results = dict(check_named(str(path)))
        # Each is judged alone: what one of them breaks is no fault of another.
        assert {name: result.status for name, result in results.items()} == {
            "bare": "fail", "first": "pass", "scalar": "fail", "undefined": "warn", "wrong": "pass",
            "forgotten": "fail", "sound": "pass",
        }  # fmt: skip
        assert results["scalar"].why == "score 'scalar': expected 3 numbers, its function gave shape ()"
        assert results["forgotten"].why.startswith("stopping rule 'forgotten': fit gave NoneType")
        assert results["bare"].why.endswith("takes 1 positional argument but 2 were given")


def test_a_file_without_anything_to_check_is_said_so(tmp_path):
    path = tmp_path / "only_a_recipe.py"
    path.write_text('import anytime_bench as ab\nab.register_recipe("some", {"training": {"epochs": 1}})\n')
    with recipes.temporary(), pytest.raises(UserError, match=r"^nothing to check: .* registers recipe 'some'; check"):
        check_named(str(path))


def test_a_plugin_file_is_checked_with_its_options(tmp_path):
    (path,) = new_plugin("checked_by_path", tmp_path)
    results = check_named(str(path), overrides=["width=4"])
    assert [(name, result.status) for name, result in results if result.name == "shapes"] == [
        ("checked_by_path", "pass")
    ]
    with pytest.raises(UserError, match=r"'options' has no key 'widht'\. Did you mean width"):
        check_named(str(path), overrides=["widht=4"])


def test_every_check_has_a_planted_fault():
    assert {path.stem for path in FAULTS} == {check.name for check in CHECKS}


@pytest.mark.parametrize("method", [Sound, OneExit, Lazy, OnlyFloat32, Borrowed, TooSmall])
def test_sound_methods_pass(method):
    results = run_checks(method)
    assert [result for result in results if result.status == "fail"] == []
    assert [result.name for result in results] == [check.name for check in CHECKS]


def test_parameters_that_no_group_holds_fail_the_check_that_trains():
    (failed,) = [result for result in run_checks(HeadsAlone) if result.status == "fail"]
    assert failed.name == "harness"
    assert "parameter_groups leaves out blocks.0.weight, blocks.0.bias and 10 others" in failed.why


def test_skips_name_their_reason():
    assert {r.name: r.why for r in run_checks(OneExit) if r.status == "skip"} == {
        "lazy": "one exit: there is nothing to stop",
        "compacts": "the model does not accept keep-masks",
        "finish": "nothing is fitted after training",
    }
    assert {r.name for r in run_checks(Borrowed) if r.status == "skip"} == {"gradients", "compacts", "finish"}
    small = run_checks(TooSmall, synthetic_task(8))
    assert {r.why for r in small} == {"needs images of 64 pixels"}


def test_a_model_that_cannot_run_in_float64_is_compared_in_float32():
    from anytime_bench.conformance.fixture import Subject

    subject = Subject(OnlyFloat32(), synthetic_task())
    assert next(subject.model().parameters()).dtype == subject.dtype == torch.float32


def test_check_method_lists_every_failure_with_its_remedy():
    class Broken(Sound):
        card = MethodCard(title=" ")

        def build(self, task):
            net = SoundNet(task)
            net.ticks = (1, 2)
            return net

    with pytest.raises(AssertionError, match="Broken fails 2 of") as error:
        check_method(Broken())
    assert "card: card is MethodCard" in str(error.value)
    assert "ticks: ticks = [1.0, 2.0] for 3 exits: give one positive tick per exit" in str(error.value)


def test_ticks_that_no_hardware_could_keep_are_a_warning_with_both_lengths():
    (doubt,) = [r for r in run_checks(CheapTicks) if r.status != "pass" and r.status != "skip"]
    assert (doubt.name, doubt.status) == ("ticks_span", "warn")
    assert "from exit 0 to exit 2 ticks grow from 1 to 1.02" in doubt.why
    assert "MACs and 5 to 11 operators: " in doubt.why
    check_method(CheapTicks())  # a warning is no failure
    mark = parametrize_with_checks([CheapTicks()]).mark
    check = next(p.values[0] for p in mark.args[1] if p.id == "CheapTicks-ticks_span")
    with pytest.warns(UserWarning, match="ticks grow from 1 to 1.02"):
        check()


def test_an_exception_in_the_plugin_is_named_with_its_line():
    class Raises(Sound):
        def build(self, task):
            raise KeyError("no such layer")

    failures = {r.name: r.why for r in run_checks(Raises) if r.status == "fail"}
    assert failures.keys() == {"builds"}
    assert failures["builds"].startswith("raised KeyError at test_checks.py:")


def test_an_expected_failure_is_a_skip_with_its_reason_and_a_failure_once_mended():
    class NoTitle(Sound):
        card = MethodCard(title="")

    (card,) = [r for r in run_checks(NoTitle, expected_failures={"card": "title to come"}) if r.name == "card"]
    assert card.status == "skip"
    assert card.why.startswith("expected to fail: title to come")
    (card,) = [r for r in run_checks(Sound, expected_failures={"card": "title to come"}) if r.name == "card"]
    assert card.status == "fail"
    with pytest.raises(ValueError, match="no check is named crad"):
        run_checks(Sound, expected_failures={"crad": "a typo"})


def test_the_random_state_is_left_as_it_was():
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run_checks(Sound)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@dataclass
class Width:
    width: int = 8


class WithOptions(Sound):
    Config = Width


@parametrize_with_checks([WithOptions(Width(4)), Sound])
def test_parametrize_gives_one_test_per_method_and_check(check):
    check()


def test_parametrized_checks_fail_with_the_remedy_as_message():
    class NoTitle(Sound):
        card = MethodCard(title="")

    mark = parametrize_with_checks([NoTitle()]).mark
    card = next(p.values[0] for p in mark.args[1] if p.id == "NoTitle-card")
    with pytest.raises(pytest.fail.Exception, match="set card = MethodCard"):
        card()


def test_a_plugin_whose_import_kills_python_is_reported_and_the_next_check_still_runs(tmp_path):
    from anytime_bench.conformance.child_process import answers_elsewhere
    from anytime_bench.conformance.fixture import CheckFailure

    class Dies:
        def __reduce__(self):
            import os

            return os._exit, (3,)

    import pickle

    with pytest.raises(CheckFailure, match="the other process died"):
        answers_elsewhere(pickle.dumps((Sound, None, Dies())), torch.zeros(1, 3, 16, 16), Sound)
    assert verdicts(run_checks(Sound), "fail") == set()
