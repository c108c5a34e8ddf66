"""TwoExits keeps the promises of the plugin contract: one test per check."""

from collections.abc import Callable

from minimal_plugin import TwoExits

from anytime_bench.conformance import parametrize_with_checks


@parametrize_with_checks([TwoExits()])
def test_contract(check: Callable[[], None]) -> None:
    check()
