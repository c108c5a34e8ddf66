"""Ranks, orders and gains of known rows: what is better is so, and taking evidence away helps nobody."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulated_boards import CHANCE, ROWS, SimulatedBoard, simulated_board

from anytime_bench.leaderboard.agreement import between_axes, between_horizons
from anytime_bench.leaderboard.moments import BoardMoments
from anytime_bench.leaderboard.ranking import ONE, AxisRanking
from anytime_bench.leaderboard.rows import AxisCosts, Row
from anytime_bench.scores.curve import auc
from anytime_bench.scores.horizons import GRID


def make_row(
    name: str, correct: np.ndarray, costs: AxisCosts, seeds=range(5), axis="latency", weights: str | None = None
) -> Row:
    entries = [
        SimpleNamespace(
            seed=seed,
            diverged=False,
            record=SimpleNamespace(
                training=SimpleNamespace(weights_sha256=f"{weights or name}-{seed}"),
                method=SimpleNamespace(name=name),
                exits=[SimpleNamespace(macs=k) for k in range(correct.shape[1])],
            ),
        )
        for seed in seeds
    ]
    correct = correct[: len(entries)]
    return Row(
        entries=entries,
        chance=CHANCE,
        correct=correct,
        guesses=np.full(correct.shape[:2], np.nan),
        validation=correct.mean(axis=(0, 2)),
        costs={axis: costs},
        behaviour={},
        improvable=np.zeros(correct.shape[1]),
        noise=None,
        timed=True,
        untimed_reason="",
    )


def rows_of(board: SimulatedBoard, seeds: dict[int, list[int]] | None = None) -> list[Row]:
    """Rows as a board reads them; the last two have the same weights."""
    rows = []
    for number, (correct, timing) in enumerate(zip(board.correct, board.timings, strict=True)):
        costs = AxisCosts(*timing.costs, timing.run_through, timing)
        weights = "shared" if number >= ROWS - 2 else None
        rows.append(make_row(f"row_{number}", correct, costs, (seeds or {}).get(number, range(5)), weights=weights))
    return rows


def ranking_of(rows: list[Row], axis: str = "latency") -> AxisRanking:
    return AxisRanking(BoardMoments(rows), axis)


def test_the_board_says_what_the_scores_say() -> None:
    board = simulated_board(1)
    ranking = ranking_of(rows_of(board))
    assert ranking.verdicts.ranks == board.standing().ranks
    for number, timing in enumerate(board.timings):
        area = ranking.scores[number].areas[ONE]
        accuracy = board.correct[number].mean(axis=(0, 2))
        assert area.value == pytest.approx(auc(timing.costs[0], accuracy, 1.0, CHANCE))
        assert area.low < area.value < area.high


@given(st.integers(0, 10_000), st.integers(0, ROWS - 1), st.sets(st.integers(0, 4), max_size=4))
@settings(max_examples=25, deadline=None)
def test_deleting_seeds_never_improves_a_rank(number, row, left) -> None:
    board = simulated_board(number)
    whole = ranking_of(rows_of(board))
    assert len(whole.ranked) == ROWS
    if left:
        fewer = ranking_of(rows_of(board, {row: sorted(left)}))
        assert row not in fewer.ranked
        assert "missing" in fewer.board.rows[row].unranked("latency")
        assert row in fewer.scores, "a row without a rank is shown"
        # To everyone else the row is as good as withdrawn: who stays gains no more than the place it leaves.
        without = ranking_of([each for k, each in enumerate(rows_of(board)) if k != row])
        assert fewer.verdicts.ranks == without.verdicts.ranks


def test_too_few_timing_processes_give_no_rank_on_times() -> None:
    ranking = ranking_of(rows_of(simulated_board(0, processes=2)))
    assert ranking.ranked == []
    assert ranking.board.rows[0].unranked("latency") == "timed in 2 processes, 3 are needed"


def test_one_network_under_two_names_is_seen_by_weights_answers_and_macs() -> None:
    board = simulated_board(2)
    moments = BoardMoments(rows_of(board))
    assert moments.one_network[-1, -2]
    assert moments.one_network.sum() == ROWS + 2
    other = rows_of(board)
    other[-1].correct[0, 0, :5] ^= True
    assert not BoardMoments(other).one_network[-1, -2]


def counted(run_through: list[float], prefix: list[float] | None = None) -> AxisCosts:
    costs = np.array(run_through)
    return AxisCosts(costs, costs if prefix is None else np.array(prefix), costs[None])


def answers(rng: np.random.Generator, accuracy: list[float], images: int = 2000) -> np.ndarray:
    return rng.random((5, len(accuracy), images)) < np.array(accuracy)[:, None]


def test_gains_and_regret_by_hand() -> None:
    rng = np.random.default_rng(0)
    rows = [
        make_row("anytime", answers(rng, [0.5, 0.55, 0.9]), counted([0.2, 0.5, 0.9], [0.2, 0.4, 0.5]), axis="macs"),
        make_row("small", answers(rng, [0.6]), counted([0.1]), axis="macs"),
        make_row("large", answers(rng, [0.95]), counted([0.6]), axis="macs"),
    ]
    ranking = ranking_of(rows, "macs")
    scores = ranking.scores[0]
    means = [row.accuracy for row in rows]
    own = auc([0.2, 0.5, 0.9], means[0], 1.0, CHANCE)
    fixed = auc([0.5], means[0][2:], 1.0, CHANCE)
    envelope = auc([0.1, 0.6], [means[1][0], means[2][0]], 1.0, CHANCE)
    assert scores.fixed_exit == 2
    assert scores.gain_over_fixed_exit.value == pytest.approx(own - fixed)
    # Exit 0 adds 0.1 to exit 2 and exit 1 adds 0.3 for less, so exit 1 is left out: 0.5 + 0.1 for the last.
    assert scores.exit_set == [0, 2]
    assert scores.exit_set_area.value == pytest.approx(auc([0.2, 0.6], means[0][[0, 2]], 1.0, CHANCE))
    assert scores.gain_over_static is not None
    assert scores.gain_over_static.value == pytest.approx(own - envelope)
    assert scores.regret.value == pytest.approx(envelope - own)
    assert scores.regret.low < scores.regret.value < scores.regret.high
    assert ranking.scores[1].gain_over_static is None
    assert ranking.scores[2].regret.value == pytest.approx(envelope - auc([0.6], means[2], 1.0, CHANCE))


def test_the_range_in_which_an_order_holds_ends_where_it_turns() -> None:
    rng = np.random.default_rng(1)
    rows = [
        make_row("early", answers(rng, [0.6]), counted([0.1]), axis="macs"),
        make_row("late", answers(rng, [0.9]), counted([0.9]), axis="macs"),
    ]
    ranking = ranking_of(rows, "macs")
    # 0.1 * 0.1 + 0.6 (h - 0.1) = 0.1 * 0.9 + 0.9 (h - 0.9) at h = 2.23.
    low, high = ranking.orders[0, 1]
    assert (low, high) == (0.5, 2.0)
    assert (1, 0) not in ranking.orders
    (half, double, fourfold) = between_horizons(ranking)
    assert (half.tau.value, double.tau.value, fourfold.tau.value) == (1.0, 1.0, -1.0)
    assert GRID[ONE] == 1.0


def test_agreement_of_axes() -> None:
    rng = np.random.default_rng(2)
    costs = {"macs": counted([0.1]), "ticks": counted([0.2])}
    rows = []
    for number in range(4):
        row = make_row(f"net_{number}", answers(rng, [0.5 + 0.1 * number]), costs["macs"], axis="macs")
        row.costs["ticks"] = costs["ticks"]
        rows.append(row)
    moments = BoardMoments(rows)
    rankings = [AxisRanking(moments, axis) for axis in ("macs", "ticks")]
    (both,) = between_axes(rankings)
    assert (both.first, both.second, both.rows) == ("macs", "ticks", 4)
    assert both.tau.value == 1.0


def test_shares_of_the_reference_are_reached_with_an_interval() -> None:
    rng = np.random.default_rng(3)
    rows = [
        make_row("reference", answers(rng, [0.9]), counted([1.0]), axis="macs"),
        make_row("other", answers(rng, [0.5, 0.855, 0.89]), counted([0.2, 0.4, 0.6]), axis="macs"),
    ]
    half, nearly, never = BoardMoments(rows).reached([0.5, 0.95, 1.2], 0)[1]
    assert (half.exit, half.earliest, half.latest) == (0, 0, 0)
    # Exit 1 has 95 % of 0.9 as nearly as can be told.
    assert nearly.earliest == 1
    assert nearly.latest == 2
    assert (never.exit, never.earliest, never.latest) == (None, None, None)
    assert BoardMoments(rows).reached([0.5], 0.9)[1] == [half]
