"""Rows that share their trainings: what a seed does to both cancels in every score that they have a part in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anytime_bench.leaderboard.moments import BoardMoments
from anytime_bench.leaderboard.noise import NoiseTables, board_noise
from anytime_bench.leaderboard.rows import Row
from anytime_bench.records.compare import compare_records
from anytime_bench.scores.joint import JointMoments
from anytime_bench.trace.noise import NoiseRun, pack
from tests.leaderboard.test_ranking import answers, counted, make_row, ranking_of
from tests.support import generated_records as generated


def uneven(exits: int = 2, seeds: int = 5, images: int = 400) -> np.ndarray:
    """Correctness ``(S, E, N)`` of trainings that differ a lot in how good they are."""
    rng = np.random.default_rng(4)
    return rng.random((seeds, exits, images)) < np.linspace(0.5, 0.9, seeds)[:, None, None]


def test_a_score_over_paired_rows_has_the_spread_of_their_gap() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.random((4, exits, 60)) < 0.6 for exits in (3, 1, 2)]
    moments = JointMoments.of(rows, paired=[(0, 2)])
    weights = [rng.random(row.shape[1]) for row in rows]
    for i, j in ((0, 2), (0, 1), (1, 2)):
        value, spread = moments.score(moments.joined(weights)[i] - moments.joined(weights)[j])
        gaps, expected = moments.gaps(weights)
        assert value[0] == pytest.approx(gaps[i, j])
        for part in ("normal", "student", "df"):
            assert getattr(spread, part)[0] == pytest.approx(getattr(expected, part)[i, j])


def test_the_reference_under_another_name_reaches_all_of_itself_for_sure() -> None:
    """Its last exit is the reference's own, so 99 % of that is reached, whatever another seed would give."""
    table = uneven()
    rows = [
        make_row("reference", table[:, 1:], counted([1.0]), axis="macs", weights="same"),
        make_row("taker", table, counted([0.5, 1.5]), axis="macs", weights="same"),
    ]
    ((reached,),) = BoardMoments(rows).reached([0.99], 0)[1:]
    assert (reached.exit, reached.latest) == (1, 1)
    other = [rows[0], make_row("taker", table.copy(), counted([0.5, 1.5]), axis="macs", weights="others")]
    other[1].correct[0, 1, :1] ^= True
    ((reached,),) = BoardMoments(other).reached([0.99], 0)[1:]
    assert reached.latest is None, "independent trainings that scatter so much leave it open"


def test_equal_last_answers_in_every_seed_are_the_same_trainings_and_one_network_only_with_equal_weights() -> None:
    """As of a net whose trunk is the reference's, frozen, with heads of its own."""
    table = uneven(exits=3)
    rows = [
        make_row("reference", table[:, 2:], counted([1.0]), axis="macs"),
        make_row("frozen", table, counted([0.3, 0.6, 1.0]), axis="macs"),
        make_row("other", answers(np.random.default_rng(5), [0.7], 400), counted([1.0]), axis="macs"),
    ]
    moments = BoardMoments(rows)
    assert [moments.paired(0, k) for k in range(3)] == [True, True, False]
    assert not moments.one_network[0, 1]
    assert moments.reached([0.99], 0)[1][0].latest == 2


def test_identical_rows_have_identical_regrets() -> None:
    """Both are behind the envelope that the first of them is part of by the same, and as surely."""
    table = uneven(exits=1)
    ahead = answers(np.random.default_rng(6), [0.6], 400)
    rows = [
        make_row("early", ahead, counted([0.1]), axis="macs"),
        make_row("one", table, counted([0.2]), axis="macs", weights="same"),
        make_row("two", table, counted([0.2]), axis="macs", weights="same"),
    ]
    scores = ranking_of(rows, "macs").scores
    one, two = scores[1].regret, scores[2].regret
    assert one is not None
    assert two is not None
    assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))


def test_no_regret_without_an_envelope_to_be_behind() -> None:
    rows: list[Row] = [
        make_row("fair", uneven(), counted([0.2, 0.5])),
        make_row("disturbed", uneven()[:, ::-1], counted([0.2, 0.5])),
    ]
    rows[1] = Row(**{**rows[1].__dict__, "timed": False})
    ranking = ranking_of(rows)
    assert [scores.regret for scores in ranking.scores.values()] == [None, None]
    assert ranking.scores[1].areas[0].value > 0, "what else is known is still shown"


def test_the_reference_under_noise_is_as_good_as_itself_for_sure_over_seeds() -> None:
    def seed(right: int) -> dict[str, np.ndarray]:
        parts = {("clean", "clean"): 90, ("persistent", "focus"): right}
        return pack([NoiseRun(kind, 0, mode, "onset", (np.arange(100) < count)[None],
                              {"ticks": np.array([1.0]), "macs": np.array([1e6])})
                     for (mode, kind), count in parts.items()], 10)  # fmt: skip

    own = NoiseTables.of([seed(50), seed(80)])
    twin = NoiseTables.of([seed(50), seed(80)])
    late = NoiseTables.of([{}, seed(50), seed(80)])
    reference, same, open_ = board_noise([own, twin, late], own, 0.1, [True, True, True])
    assert reference is not None
    assert same is not None
    assert open_ is not None
    for noise in (reference, same):
        assert noise.mce is not None
        assert (noise.mce.low, noise.mce.value, noise.mce.high) == (1.0, 1.0, 1.0)
    assert open_.mce is not None
    assert open_.mce.low < 1.0 < open_.mce.high, "other seeds of the row were examined"


def test_records_of_the_same_weights_are_compared_seed_by_seed(tmp_path: Path) -> None:
    """Two rows with the same answers are equivalent, however much their seeds differ."""
    for seed, skill in enumerate((0.1, 0.5, 0.9)):
        traces = (generated.make_trace(skill, 3, 300, seed), generated.make_trace(skill, 3, 95, seed, split="val"))
        for method in ("plain", "taker"):
            generated.save(tmp_path / method, method, seed=seed, traces=traces)
    rows = {row.score: row.difference for row in compare_records(tmp_path / "plain", tmp_path / "taker").rows}
    for score in ("accuracy", "nll", "auc_1[macs]"):
        assert (rows[score].low, rows[score].high, rows[score].verdict) == (0.0, 0.0, "equivalent")
