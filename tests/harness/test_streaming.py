"""When which frame is answered, and what that is worth: against a clock that ticks, and in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.harness.streaming import WAYS, Clock, Finished, Way, follow, streaming_accuracy, ways_of

TIMES = st.integers(1, 9)


@st.composite
def plays(draw: st.DrawFn) -> tuple[Clock, int, int]:
    """A clock whose times are whole ticks, a period, and how many frames come."""
    exits = np.cumsum(draw(st.lists(TIMES, min_size=1, max_size=5)))
    clock = Clock(tuple(float(each) for each in exits), float(draw(st.integers(1, 30))), float(draw(TIMES)))
    return clock, draw(st.integers(1, 12)), draw(st.integers(1, 9))


def ticked(way: Way, clock: Clock, period: int, frames: int) -> list[Finished]:
    """The same by a machine that looks at its clock every tick: what is finished, what is newest, what is begun."""
    answers: list[Finished] = []
    begun, frame, k, busy = 0, -1, 0, False
    slowest = max(np.diff([0.0, *clock.exits]))
    for now in range(frames * period + 1):
        newest = min(now // period, frames - 1)
        if way == "watch":
            if now and now % int(clock.step or 1) == 0:
                seen = min((now - int(clock.step or 1)) // period, frames - 1)
                answers.append(Finished(now, seen, len(answers)))
            continue
        if way == "pipelined":
            if newest > frame and (frame < 0 or now >= begun + slowest):
                begun, frame = now, newest
                answers.append(Finished(now + clock.exits[-1], frame, len(clock.exits) - 1))
            continue
        if busy and way == "restart" and now == begun + clock.full:
            answers.append(Finished(now, frame, len(clock.exits) - 1))
            busy = False
        if busy and way == "ask" and now == begun + clock.exits[k]:
            answers.append(Finished(now, frame, k))
            busy = newest == frame and k + 1 < len(clock.exits)
            k += 1
        if not busy and newest > frame:
            begun, frame, k, busy = now, newest, 0, True
    return [each for each in answers if each.at <= frames * period]


@pytest.mark.parametrize("way", WAYS)
@given(play=plays())
@settings(max_examples=60, deadline=None)
def test_every_way_is_what_a_ticking_clock_does(way: Way, play: tuple[Clock, int, int]) -> None:
    clock, period, frames = play
    assert follow(way, clock, period, frames) == ticked(way, clock, period, frames)


@given(play=plays(), way=st.sampled_from(WAYS), scale=st.sampled_from([0.25, 0.5, 4.0]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_accuracy_is_the_share_of_ticks_with_a_right_newest_answer(
    play: tuple[Clock, int, int], way: Way, scale: float, seed: int
) -> None:
    clock, period, frames = play
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (frames, 4))
    answers = follow(way, clock, period, frames)
    classes = rng.integers(0, 3, (len(answers), 4))
    right = np.zeros(4)
    for tick in range(frames * period):
        ready = [index for index, each in enumerate(answers) if each.at <= tick]
        right += (classes[ready[-1]] == labels[tick // period]) if ready else 1 / 3
    expected = right / (frames * period)
    assert streaming_accuracy(answers, classes, labels, period, 1 / 3) == pytest.approx(expected)
    # The unit of time is of no account.
    scaled = Clock(tuple(scale * each for each in clock.exits), scale * clock.full, scale * (clock.step or 1))
    again = follow(way, scaled, scale * period, frames)
    assert [(each.frame, each.exit) for each in again] == [(each.frame, each.exit) for each in answers]
    assert streaming_accuracy(again, classes, labels, scale * period, 1 / 3) == pytest.approx(expected)


@pytest.mark.parametrize("full", [0.1, 0.5, 1.0])
def test_a_model_that_is_always_right_loses_what_its_answers_take(full: float) -> None:
    labels = np.arange(10)[:, None]
    answers = follow("restart", Clock((full,), full), 1.0, 10)
    classes = labels[[each.frame for each in answers]]
    assert streaming_accuracy(answers, classes, labels, 1.0, 0.0) == pytest.approx([1 - full])


def test_where_nothing_changes_only_the_first_answer_is_waited_for() -> None:
    labels = np.full((8, 1), 3)
    clock = Clock((0.5, 1.0, 3.0), 2.0, 0.25)
    first = {"restart": 2.0, "ask": 0.5, "pipelined": 3.0, "watch": 0.25}
    for way in WAYS:
        answers = follow(way, clock, 1.0, 8)
        accuracy = streaming_accuracy(answers, np.full((len(answers), 1), 3), labels, 1.0, 0.1)
        assert accuracy == pytest.approx([1 - 0.9 * first[way] / 8]), way


def test_frames_too_fast_for_a_full_answer_are_skipped_by_restart_and_entered_by_a_pipeline() -> None:
    clock = Clock((1.0, 2.0, 3.0), 3.0)
    assert [each.frame for each in follow("restart", clock, 1.0, 9)] == [0, 3, 6]
    assert [each.frame for each in follow("pipelined", clock, 1.0, 9)] == [0, 1, 2, 3, 4, 5, 6]
    assert [(each.frame, each.exit) for each in follow("ask", clock, 1.0, 3)] == [(0, 0), (1, 0), (2, 0)]


def test_only_a_model_with_state_watches() -> None:
    assert ways_of(Clock((1.0,), 1.0)) == ("restart", "ask", "pipelined")
    with pytest.raises(ValueError, match="no state"):
        follow("watch", Clock((1.0,), 1.0), 1.0, 3)


@pytest.mark.parametrize("exits", [(), (0.0, 1.0), (2.0, 1.0)])
def test_times_that_cannot_be_are_refused(exits: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected positive times"):
        Clock(exits, 1.0)
