"""A Poisson load on a model with known sleeps: light loads are served in full, heavy ones by answering early."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from support.sleeping_models import Sleeper

from anytime_bench.errors import UserError
from anytime_bench.harness.load import LoadSettings, play_load

IMAGES = torch.zeros(4, 1, 4, 4)


def test_every_policy_meets_the_same_requests_and_leaves_no_thread() -> None:
    threads = threading.active_count()
    settings = LoadSettings(rate=0.8, requests=12, seconds=5.0)
    first, second = (play_load(Sleeper(0.001), IMAGES, settings) for _ in range(2))
    assert np.array_equal(first.images, second.images)
    assert [each.policy for each in first.played] == ["exit 0", "exit 1", "exit 3", "ask", "run_ahead"]
    assert all(len(each.exits) == len(first.images) == 12 for each in first.played)
    assert threading.active_count() == threads


def test_a_load_is_bounded_in_time_and_refused_where_nothing_arrives() -> None:
    begun = time.perf_counter()
    load = play_load(Sleeper(0.001), IMAGES, LoadSettings(rate=0.5, requests=100_000, seconds=0.3))
    assert len(load.images) < 1000
    assert time.perf_counter() - begun < 30
    with pytest.raises(UserError, match="give a larger load"):
        play_load(Sleeper(0.01), IMAGES, LoadSettings(rate=1e-6, requests=10, seconds=0.1))


@pytest.mark.slow
def test_a_light_load_is_answered_in_full_and_a_heavy_one_early_or_not_at_all() -> None:
    light = {
        each.policy: each
        for each in play_load(Sleeper(0.02), IMAGES, LoadSettings(rate=0.2, deadline=3.0, requests=12)).played
    }
    assert (light["exit 3"].exits == 3).mean() > 0.8
    assert (light["ask"].exits == 3).mean() > 0.8
    heavy = {
        each.policy: each
        for each in play_load(Sleeper(0.02), IMAGES, LoadSettings(rate=3.0, deadline=1.5, requests=60)).played
    }
    in_time = {policy: (each.exits >= 0).mean() for policy, each in heavy.items()}
    assert in_time["exit 0"] > 0.7, "three quarters of a full answer's time is enough for three first exits"
    assert in_time["exit 3"] < 0.5
    assert heavy["ask"].exits.max() < 3 or in_time["ask"] < 1
