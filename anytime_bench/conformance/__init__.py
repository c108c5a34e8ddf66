"""The conformance kit for authors of anytime methods: every promise of the plugin contract as a named check.

``check_method(MyMethod())`` raises one error that lists what is wrong and how to fix it; ``run_checks`` gives the
verdicts one by one; ``parametrize_with_checks`` makes them tests of a plugin's own suite. Everything runs on the CPU
on small random images and needs no data; one check trains an epoch and times it with the suite's own harness.
"""

from anytime_bench.conformance.fixture import CheckFailure, synthetic_task
from anytime_bench.conformance.kit import CHECKS, Check, CheckResult, check_method, parametrize_with_checks, run_checks

__all__ = [
    "CHECKS",
    "Check",
    "CheckFailure",
    "CheckResult",
    "check_method",
    "parametrize_with_checks",
    "run_checks",
    "synthetic_task",
]
