"""Shared by the tests of the harness."""

from __future__ import annotations

import pytest
from support.timed_models import FakeTime

from anytime_bench.harness import clocks


@pytest.fixture
def fake_time(monkeypatch):
    time = FakeTime()
    monkeypatch.setattr(clocks, "perf_counter_ns", lambda: time.now)
    monkeypatch.setattr(clocks.RunDelay, "__call__", lambda self: 0)
    return time
