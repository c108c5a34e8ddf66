"""Records that were published before a field existed state nothing about it, and hold all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anytime_bench.records.verify_all import verify_paths

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("method", ["serial_ce", "cascaded_td"])
def test_a_published_record_without_a_later_field_holds(method: str) -> None:
    paths = sorted((RESULTS / "digits" / "cpu" / method).glob("*.json"))
    path = next(path for path in paths if json.loads(path.read_text())["protocol_version"] == "1")
    assert "span" not in json.loads(path.read_text()), "a record from before parallel time was recorded"
    assert [fault for faults in dict(verify_paths([path])).values() for fault in faults] == []
