"""Deadlines on a board: a column beside the ranking, a table per way of serving, points over the promised curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anytime_bench.harness.deadline_summary import DeliveredPoint, _share
from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.build import boards
from anytime_bench.leaderboard.deadlines import _points, over_draws
from anytime_bench.leaderboard.figures import board_figure, figure_names
from anytime_bench.leaderboard.page import board_page
from anytime_bench.leaderboard.tables import table
from anytime_bench.leaderboard.text import to_csv, to_markdown
from anytime_bench.scores.results import Estimate
from tests.support.generated_records import fill, save


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    root: Path = tmp_path_factory.mktemp("deadlines")
    fill(root, methods=3, seeds=2, deadlines=True)
    save(root, "silent", skill=0.4)
    (placed,) = boards(root)
    return placed.board


def test_every_interrupted_row_has_its_delivered_auc_and_the_others_say_how_to_get_one(board: Board) -> None:
    shown = table(board, "ranking")
    column = next(each for each in shown.columns if each.name == "delivered_auc")
    for line, row in enumerate(board.rows):
        cell = shown.cell(line, column)
        if row.method == "silent":
            assert row.interrupted is None
            assert "anytime-bench deadlines" in cell.reason
        else:
            assert row.interrupted is not None
            asked = row.interrupted.modes[0]
            assert cell.value == asked.delivered.value
            assert asked.delivered.value == pytest.approx(row.axes["latency"].auc_1.value, abs=0.1)
            assert asked.verdict.startswith(("kept", "undecided")), "it was delivered as promised"


def test_the_table_has_a_line_per_way_of_serving(board: Board) -> None:
    shown = table(board, "deadlines")
    assert shown.values["serving"] == ["ask", "run ahead", "known"] * 3
    assert set(shown.values["idle"]) == {"yes"}
    assert all(0 < late < 0.003 for late in shown.values["late_max"])


def test_files_page_and_figure_show_them_only_where_they_are(board: Board, tmp_path: Path) -> None:
    assert figure_names(board)[-1] == "deadlines"
    ((_, drawn),) = board_figure(board, "deadlines", forms=["svg"])
    assert all(row.label in drawn.decode() for row in board.rows if row.interrupted)
    assert "silent" not in drawn.decode()
    assert "## Interrupted for real" in to_markdown(board, "x", [])
    assert "delivered_auc" in to_csv(board).splitlines()[0]
    page = board_page(board)
    assert page.count("Interrupted for real") >= 1
    assert "Accuracy delivered at deadlines" in page
    fill(tmp_path, methods=2, seeds=1)
    (bare,) = boards(tmp_path)
    assert "deadlines" not in figure_names(bare.board)
    assert "Interrupted for real" not in to_markdown(bare.board, "x", [])
    assert "Accuracy delivered at deadlines" not in board_page(bare.board)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("scatter", [0.0, 0.03])
@pytest.mark.parametrize("shared", [False, True], ids=["own draws", "one draw"])
def test_the_interval_over_seeds_covers_the_truth_whether_or_not_they_share_a_draw(seeds, scatter, shared) -> None:
    """300 rows: a seed answers 300 deadlines, right where its skill exceeds the difficulty of what was drawn."""
    rng = np.random.default_rng(seeds)
    covered, truth = 0, 0.7
    for _ in range(300):
        difficulty = np.tile(rng.random(300), (seeds, 1)) if shared else rng.random((seeds, 300))
        right = difficulty < truth + scatter * rng.standard_normal((seeds, 1))
        estimate = over_draws([_share(each) for each in right], [0] * seeds if shared else range(seeds))
        covered += estimate.low <= truth <= estimate.high
    assert covered / 300 >= 0.93


def test_a_draw_that_some_seeds_share_weighs_as_much_as_it_does_in_the_mean() -> None:
    def width(draws: list[int]) -> float:
        estimate = over_draws([Estimate(value=v, low=v - 0.05, high=v + 0.05) for v in (0.5, 0.6, 0.7)], draws)
        assert estimate.value == 0.6
        return estimate.high - estimate.low

    assert width([0, 1, 2]) < width([0, 0, 1]) < width([0, 0, 0])
    alone = over_draws([Estimate(value=0.5, low=0.4, high=0.65)], [0])
    assert (alone.low, alone.value, alone.high) == (0.4, 0.5, 0.65)
    sure = over_draws([Estimate(value=1.0, low=0.97, high=1.0)] * 2, [0, 0])
    assert sure.high == 1.0 > sure.low


def test_points_of_seeds_are_of_the_same_part_of_h() -> None:
    def points(*deadlines: float) -> list[DeliveredPoint]:
        accuracy = Estimate(value=0.5, low=0.4, high=0.6)
        return [DeliveredPoint(deadline=each, draws=1, accuracy=accuracy, promised=0.5) for each in deadlines]

    joined = _points([points(0.05, 0.15, 0.95), points(0.11, 0.99)])
    assert [[each.deadline for each in part] for part in joined] == [[0.15, 0.11], [0.95, 0.99]]
