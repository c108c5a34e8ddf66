"""The kit: all checks in order, run on one method, as a list of results, one error, or pytest parameters."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anytime_bench.conformance import answers, costs, harness_pass, learning, portability
from anytime_bench.conformance.child_process import start_other_process
from anytime_bench.conformance.fixture import (
    CheckFailure,
    Doubt,
    NotApplicable,
    Subject,
    stream_answers,
    synthetic_task,
)
from anytime_bench.errors import UserError
from anytime_bench.harness.torch_settings import restored_settings
from anytime_bench.methods.contract import Method
from anytime_bench.runs.guard import time_limit
from anytime_bench.tasks.task import TaskCard

Status = Literal["pass", "fail", "skip", "warn"]
#: Image sizes tried where no task is given: the first that the method runs on is the fastest to check.
SIZES = (16, 32, 64)


@dataclass(frozen=True)
class CheckResult:
    """One check's verdict. ``why`` says how to fix a failure or what a warning or a skip is about; ``seconds`` is the
    check's wall time."""

    name: str
    status: Status
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Check:
    """A named check; it is not judged while one of ``after`` fails, so that one fault gives one failure."""

    name: str
    run: Callable[[Subject], None]
    after: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What holds where the check passes: the first line of its docstring."""
        return (self.run.__doc__ or self.name).strip().splitlines()[0]


#: Without these no answers can be compared at all.
FORM = ("builds", "ticks", "shapes", "input_untouched")
#: Without these two ways to ask differ for reasons of their own.
REPEATABLE = (*FORM, "deterministic", "independent_calls")

CHECKS: tuple[Check, ...] = (
    Check("card", portability.check_card),
    Check("builds", portability.check_builds),
    Check("config", portability.check_config),
    Check("ticks", costs.check_ticks, ("builds",)),
    Check("shapes", answers.check_shapes, ("builds", "ticks")),
    Check("input_untouched", answers.check_input_untouched, ("builds", "ticks", "shapes")),
    Check("finite", answers.check_finite, FORM),
    Check("deterministic", answers.check_deterministic, FORM),
    Check("independent_calls", answers.check_independent_calls, FORM),
    Check("interleaved_streams", answers.check_interleaved_streams, REPEATABLE),
    Check("prefix", answers.check_prefix, REPEATABLE),
    Check("answer", answers.check_answer, REPEATABLE),
    Check("batch_order", answers.check_batch_order, REPEATABLE),
    Check("independent_samples", answers.check_independent_samples, REPEATABLE),
    Check("timing_mode", answers.check_timing_mode, (*REPEATABLE, "prefix", "batch_order", "independent_samples")),
    Check("watch_causal", answers.check_watch_causal, REPEATABLE),
    Check("compacts", answers.check_compacts, (*REPEATABLE, "independent_samples")),
    Check("lazy", costs.check_lazy, FORM),
    Check("same_input_twice", costs.check_same_input_twice, FORM),
    Check("macs_increase", costs.check_macs_increase, (*FORM, "lazy")),
    Check("ticks_span", costs.check_ticks_span, FORM),
    Check("gradients", learning.check_gradients, (*FORM, "finite")),
    Check("finish", learning.check_finish, REPEATABLE),
    Check("checkpoint", learning.check_checkpoint, REPEATABLE),
    Check("pickles", portability.check_pickles, REPEATABLE),
    Check("harness", harness_pass.check_harness, (*REPEATABLE, "lazy", "macs_increase", "gradients", "answer")),
)


class Kit:
    """The checks of one method, each run at most once. Without a task, the smallest synthetic one that it runs on."""

    def __init__(
        self,
        method: Method | type[Method],
        task: TaskCard | None = None,
        seed: int = 0,
        expected_failures: Mapping[str, str] | None = None,
    ) -> None:
        self.method = method() if isinstance(method, type) else method
        self.expected_failures = dict(expected_failures or {})
        unknown = sorted(set(self.expected_failures) - {check.name for check in CHECKS})
        if unknown:
            raise ValueError(f"no check is named {', '.join(unknown)}; known: {', '.join(c.name for c in CHECKS)}")
        self._task, self._seed = task, seed
        self._subject: Subject | None = None
        self._results: dict[str, CheckResult] = {}
        self._blocked: set[str] = set()

    @property
    def subject(self) -> Subject:
        if self._subject is None:
            if self._task is None:
                self._subject = smallest_subject(self.method, self._seed)
            else:
                self._subject = Subject(self.method, self._task, self._seed)
        return self._subject

    def run(self, name: str) -> CheckResult:
        """The result of one check; the checks it waits for are run before it."""
        if name not in self._results:
            check = next(check for check in CHECKS if check.name == name)
            begun = time.perf_counter()
            try:
                with restored_settings(type(self.method).__name__), time_limit(f"check '{name}'"):
                    status, why = self._judge(check)
            except UserError as over_time:
                status, why = "fail", str(over_time)
            self._results[name] = CheckResult(name, status, why, time.perf_counter() - begun)
        return self._results[name]

    def _judge(self, check: Check) -> tuple[Status, str]:
        for before in check.after:
            if self.run(before).status == "fail" or before in self._blocked:
                self._blocked.add(check.name)
                return "skip", f"not judged until '{before}' passes"
        try:
            subject = self.subject
            reason = self.method.skip(subject.task)
            if reason is not None:
                return "skip", reason
            check.run(subject)
        except NotApplicable as reason:
            return "skip", str(reason)
        except Doubt as doubt:
            return "warn", str(doubt)
        except Exception as error:
            why = str(error) if isinstance(error, CheckFailure) else _raised(error)
            if check.name in self.expected_failures:
                self._blocked.add(check.name)
                return "skip", f"expected to fail: {self.expected_failures[check.name]} ({why})"
            return "fail", why
        if check.name in self.expected_failures:
            return "fail", "it passes but was expected to fail: take it out of expected_failures"
        return "pass", ""


def _raised(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = str(Path(__file__).parents[1])
    theirs = [frame for frame in frames if "/torch/" not in frame.filename and not frame.filename.startswith(own)]
    where = f" at {Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else ""
    message = (str(error).strip().splitlines() or [""])[0]
    return f"raised {type(error).__name__}{where}: {message}"


def smallest_subject(method: Method, seed: int = 0) -> Subject:
    """The method on the synthetic task of the smallest image size that it answers on; 32 pixels where on none."""
    for size in SIZES:
        subject = Subject(method, synthetic_task(size), seed)
        if method.skip(subject.task) is not None:
            continue
        try:
            stream_answers(subject.model(), subject.images("size"))
        except Exception:  # which error it is, the checks say on the task they end up with
            continue
        return subject
    return Subject(method, synthetic_task(32), seed)


def run_checks(
    method: Method | type[Method],
    task: TaskCard | None = None,
    seed: int = 0,
    *,
    expected_failures: Mapping[str, str] | None = None,
    on_result: Callable[[CheckResult], Any] | None = None,
) -> list[CheckResult]:
    """All checks of ``CHECKS``, in order, on the CPU.

    ``expected_failures`` gives a reason per check that is known to fail: it is then reported as a skip with that
    reason, and as a failure once it passes. ``on_result`` is called after each check, for a progress display.
    """
    kit = Kit(method, task, seed, expected_failures)
    start_other_process()  # it imports torch while the first checks run
    results = []
    for check in CHECKS:
        results.append(kit.run(check.name))
        if on_result is not None:
            on_result(results[-1])
    return results


def check_method(
    method: Method | type[Method],
    task: TaskCard | None = None,
    seed: int = 0,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    """Raise one ``AssertionError`` that lists every failing check and how to fix it."""
    results = run_checks(method, task, seed, expected_failures=expected_failures)
    failures = [result for result in results if result.status == "fail"]
    if failures:
        lines = "\n".join(f"  {result.name}: {result.why}" for result in failures)
        name = method.__name__ if isinstance(method, type) else type(method).__name__
        raise AssertionError(f"{name} fails {len(failures)} of {len(results)} checks\n{lines}")


def parametrize_with_checks(
    methods: Sequence[Method | type[Method]],
    task: TaskCard | None = None,
    seed: int = 0,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> Any:
    """A pytest decorator: one test per method and check, for a test that takes ``check`` and calls it.

    ::

        @parametrize_with_checks([MyMethod()])
        def test_my_method(check):
            check()
    """
    import pytest

    parameters = []
    for method in methods:
        kit = Kit(method, task, seed, expected_failures)
        for check in CHECKS:
            parameters.append(pytest.param(_PytestCheck(kit, check), id=f"{type(kit.method).__name__}-{check.name}"))
    return pytest.mark.parametrize("check", parameters)


@dataclass(frozen=True)
class _PytestCheck:
    kit: Kit
    check: Check

    def __call__(self) -> None:
        import pytest

        result = self.kit.run(self.check.name)
        if result.status == "skip":
            pytest.skip(result.why)
        if result.status == "warn":
            warnings.warn(f"{self.check.name}: {result.why}", stacklevel=2)
        if result.status == "fail":
            pytest.fail(f"{self.check.name}: {result.why}", pytrace=False)
