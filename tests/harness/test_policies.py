"""The six policies, checked by hand on small models: which outputs they average, when they answer, what it costs."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytime_bench.errors import UserError
from anytime_bench.harness.policies import POLICIES, PassCosts, Schedule, answers, burst, clean, persistent, transient

#: Three blocks: exits after ticks 1, 2, 3 and 10, 30, 60 MACs.
COSTS = PassCosts((1, 2, 3), (10, 30, 60))
STEPS = (10.0, 40.0, 100.0)


def told(policy: str, schedule: Schedule) -> list[tuple[tuple[int, ...], int, float, float]]:
    return [(a.members, a.exit, a.ticks, a.macs) for a in answers(policy, schedule, COSTS, STEPS)]


def test_schedules() -> None:
    assert transient(6, 1).seen == (0, 1, 2, 3, 4, 5)
    assert transient(6, 4).seen == (0, 0, 0, 0, 1, 1)
    assert transient(6, 4).arrivals == ((0, 0), (4, 1))
    assert persistent(3).seen == (0, 0, 0)
    assert clean(3).seen == (-1, -1, -1)
    assert burst(6, 2, 4).seen == (-1, -1, 2, 3, -1, -1)
    assert transient(6, math.inf) == persistent(6)


def test_onset_sees_the_first_frame_only() -> None:
    assert told("onset", transient(3, 1)) == [((0,), 0, 1, 10), ((0,), 1, 2, 30), ((0,), 2, 3, 60)]


def test_restart_takes_frames_in_turn() -> None:
    first = told("onset", transient(3, 1))
    assert told("restart", transient(3, 1)) == [*first, ((1,), 2, 6, 120), ((2,), 2, 9, 180)]
    assert told("restart_mean", transient(3, 1)) == [*first, ((0, 1), 2, 6, 120), ((0, 1, 2), 2, 9, 180)]
    # A frame that arrives after the pass before it is done has to be waited for.
    assert told("restart", transient(9, 4))[-2:] == [((1,), 2, 7, 120), ((2,), 2, 11, 180)]


def test_later_frames_cost_a_plain_answer() -> None:
    """Only the first frame is answered at every exit; 55 MACs without the heads on the way."""
    costs = PassCosts((1, 2, 3), (10, 30, 60), answer=55)
    assert [a.macs for a in answers("restart", transient(3, 1), costs)] == [10, 30, 60, 60 + 55, 60 + 2 * 55]
    assert answers("pipelined_mean", transient(3, 1), costs)[-1].macs == 60 + 2 * 55


def test_pipelined_answers_every_tick_once_it_is_full() -> None:
    """Frame j enters at tick j: at time 3 the stages have done 60 + 30 + 10 MACs, at time 5 all three frames."""
    assert told("pipelined_mean", transient(3, 1)) == [
        ((0,), 0, 1, 10),
        ((0,), 1, 2, 30 + 10),
        ((0,), 2, 3, 60 + 30 + 10),
        ((0, 1), 2, 4, 60 + 60 + 30),
        ((0, 1, 2), 2, 5, 180),
    ]
    assert told("pipelined_mean", transient(4, 2))[-1] == ((0, 1), 2, 5, 120)


def test_watch_steps() -> None:
    assert told("watch", transient(3, 1)) == [((0,), 0, 1, 10), ((1,), 1, 2, 40), ((2,), 2, 3, 100)]
    assert [a.members for a in answers("watch_mean", transient(3, 1), COSTS, STEPS)] == [(0,), (0, 1), (0, 1, 2)]


@given(st.integers(1, 12), st.integers(1, 12))
def test_time_and_macs_never_run_backwards_and_equal_frames_cost_equal_macs(frames: int, period: int) -> None:
    schedule = transient(frames, period)
    for policy in POLICIES:
        found = answers(policy, schedule, COSTS, STEPS)
        assert all(later.ticks > earlier.ticks for earlier, later in pairwise(found))
        assert all(later.macs > earlier.macs for earlier, later in pairwise(found))
    passes = len(schedule.arrivals)
    for policy in ("restart", "restart_mean", "pipelined_mean"):
        assert answers(policy, schedule, COSTS)[-1].macs == pytest.approx(60 * passes)


@given(st.sampled_from(POLICIES[:4]), st.integers(1, 12))
def test_one_held_frame_leaves_every_stateless_policy_the_same(policy: str, frames: int) -> None:
    assert told(policy, persistent(frames)) == told("onset", persistent(frames))


@pytest.mark.parametrize("period", [0, -1, 1.5])
def test_bad_periods(period: float) -> None:
    with pytest.raises(UserError, match="frame period: expected a whole number of ticks"):
        transient(5, period)


def test_bad_bursts_and_policies() -> None:
    with pytest.raises(UserError, match=r"burst: expected 0 <= start < stop <= 5 ticks, got 4 and 6"):
        burst(5, 4, 6)
    with pytest.raises(UserError, match=r"unknown policy 'pipelined'\. Did you mean pipelined_mean"):
        answers("pipelined", persistent(3), COSTS)
    with pytest.raises(UserError, match=r"step_macs: expected one cost per step \(3\), got 0"):
        answers("watch", persistent(3), COSTS)
    with pytest.raises(UserError, match=r"macs: expected one cost per exit \(2\), got 1"):
        PassCosts((1, 2), (1,))
