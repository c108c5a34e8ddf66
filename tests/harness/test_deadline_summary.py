"""From draws to numbers: what was delivered, promised, missed and late, in closed form where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.errors import UserError
from anytime_bench.harness.deadline_summary import (
    KINDS,
    MODES,
    DeadlineBlock,
    DeadlineMeta,
    paired_difference,
    summarise_deadlines,
)
from anytime_bench.harness.deadlines import DeadlineSettings, draw_deadlines
from anytime_bench.scores.curve import accuracy_at, auc

TRACE = generated.make_trace(0.6, 5, 400, 0)
META = DeadlineMeta(device="generated", threads=1, seed=0, jitter="drawn")
#: By which exit k costs (k + 1) / 5 of the reference, as the samples are made.
RATIOS = {"run_through": [0.2, 0.4, 0.6, 0.8, 1.0]}


def samples(**options: Any) -> dict[str, Any]:
    made = generated.make_deadlines(TRACE, 1.0, "x", **options)
    return {name.removeprefix("deadlines_"): array for name, array in made.items()}


def block(**options: Any) -> DeadlineBlock:
    return summarise_deadlines(samples(**options), META, TRACE, RATIOS)


def test_a_promise_that_is_kept_to_the_letter_has_no_difference() -> None:
    made = block(draws=6000)
    for mode in MODES:
        row = made.row(mode)
        assert abs(row.difference.value) < 0.01, "but for draws at an exit's very time, which the clock decides"
        assert row.promise == "kept"
        assert row.verdict.startswith("kept")
        assert row.misses.value == pytest.approx(row.promised_misses, abs=0.01)


def test_answers_that_come_later_break_the_promise_by_what_they_are_late() -> None:
    row = block(behind=0.2, draws=6000).row("ask")
    # The answers of every deadline are one exit earlier than promised: a fifth of H from each exit to the next.
    accuracy = TRACE.accuracy
    promised, delivered = (
        auc(RATIOS["run_through"], accuracy, 1.0, 0.1),
        auc([0.4, 0.6, 0.8, 1.0, 1.2], accuracy, 1, 0.1),
    )
    assert row.promise == "broken"
    assert row.difference.low <= delivered - promised <= row.difference.high
    assert row.verdict.startswith(f"broken by {-100 * row.difference.value:.1f} points")


def test_under_uniform_deadlines_the_promise_is_the_auc() -> None:
    made = samples(draws=60_000)
    made["kind"][:] = 0
    row = summarise_deadlines(made, META, TRACE, RATIOS).row("run_ahead")
    assert row.promised == pytest.approx(float(auc(RATIOS["run_through"], TRACE.accuracy, 1.0, 0.1)), abs=0.01)


def test_log_uniform_deadlines_weigh_as_the_alc_does_and_uniform_ones_as_the_auc() -> None:
    kinds, deadlines = draw_deadlines(DeadlineSettings(uniform=100_000, others=100_000))
    cost, accuracy = [0.1, 0.5, 0.9], [0.4, 0.6, 0.9]
    for number, log in ((0, False), (1, True)):
        drawn = accuracy_at(cost, accuracy, deadlines[kinds == number], 0.1).mean()
        assert drawn == pytest.approx(float(auc(cost, accuracy, 1.0, 0.1, log=log)), abs=0.005)


def test_jitter_is_replayed_in_its_order_and_otherwise_drifts() -> None:
    kinds, deadlines = draw_deadlines(DeadlineSettings(uniform=10, others=5, jitter=(0.1, 0.2, 0.7)))
    assert deadlines[kinds == 2].tolist() == [0.1, 0.2, 0.7, 0.1, 0.2]
    kinds, deadlines = draw_deadlines(DeadlineSettings(uniform=10, others=5000))
    walk = deadlines[kinds == 2]
    assert 0 <= walk.min() <= walk.max() <= 1
    assert np.corrcoef(walk[1:], walk[:-1])[0, 1] > 0.7, "a neighbour stays for a while"


def test_equal_seeds_draw_equal_deadlines() -> None:
    first, second = (draw_deadlines(DeadlineSettings(seed=3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], draw_deadlines(DeadlineSettings(seed=4))[1])


def test_no_difference_in_few_draws_is_no_proof_that_there_is_none() -> None:
    few, many = paired_difference(np.zeros(40)), paired_difference(np.zeros(4000))
    assert few.value == many.value == 0
    assert few.high > 0.02 > many.high > 0
    assert few.low == -few.high


def test_a_record_without_times_is_judged_by_the_sessions_own() -> None:
    made = summarise_deadlines(samples(), META, TRACE, {})
    assert made.curve == "session"
    assert made.exits == pytest.approx(RATIOS["run_through"], rel=0.01)
    assert block().curve == "timing"


def test_lateness_release_and_points_are_those_of_the_draws() -> None:
    made, raw = block(), samples()
    for row, mode in enumerate(MODES):
        for number, kind in enumerate(KINDS):
            own = raw["late"][row, raw["kind"] == number].astype(float)
            assert made.row(mode, kind).lateness.max == pytest.approx(own.max())
            assert made.row(mode, kind).late.value == pytest.approx((own > 0).mean())
        points = made.points[mode]
        assert sum(point.draws for point in points) == int((raw["kind"] == 0).sum())
        weights = np.array([point.draws for point in points])
        mean = np.average([point.accuracy.value for point in points], weights=weights)
        assert mean == pytest.approx(made.row(mode).accuracy.value)


def test_a_short_horizon_and_a_drifting_machine_are_said() -> None:
    raw = samples()
    raw["horizon"] = np.array(0.001)
    made = summarise_deadlines(raw, META, TRACE, RATIOS)
    assert any(line.startswith("H is 1.0 ms, below the 20 ms") for line in made.notes)
    assert not made.comparable
    assert "was not idle" in made.reasons[0]
    assert block().comparable
    assert block().notes == []


@pytest.mark.parametrize("name", ["horizon", "late", "run_through", "reference"])
def test_samples_that_lack_an_array_or_a_row_are_refused_by_name(name: str) -> None:
    raw = samples()
    with pytest.raises(ValueError, match=f"'{name}' of the deadline samples is missing"):
        summarise_deadlines({key: value for key, value in raw.items() if key != name}, META, TRACE, RATIOS)
    raw[name] = np.stack([raw[name]] * 2)
    with pytest.raises(ValueError, match=f"'{name}' of the deadline samples has shape"):
        summarise_deadlines(raw, META, TRACE, RATIOS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"uniform": 0}, "expected at least 1"), ({"seconds": 0}, "more than 0"), ({"jitter": (-1.0,)}, "negative")],
)
def test_settings_that_cannot_be_served_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DeadlineSettings(**settings)
