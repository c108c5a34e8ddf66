"""Boards of which the truth is known: answers of trainings that vary, costs of timing processes that vary."""

from dataclasses import dataclass

import numpy as np

from anytime_bench.scores.curve import exit_shares
from anytime_bench.scores.joint import JointMoments
from anytime_bench.scores.measured import ProcessCosts, Timing, clock_variance
from anytime_bench.scores.ranks import Standing, standing

ROWS, EXITS, SEEDS, IMAGES, CHANCE = 10, 4, 5, 450, 0.1
#: Accuracy between trainings of one row, as standard deviations; and of a cost between timing processes, as on the
#: published boards (log ratios to the reference: 1 to 9 %).
SEED_SD, CLOCK_SD = (0.003, 0.015), (0.01, 0.08)


@dataclass(frozen=True)
class SimulatedBoard:
    """Correctness ``(S, E, N)`` and timing of each row, and ``truth (K,)``: AUC@1 of endless seeds, images and
    processes. The last two rows are one network, timed twice."""

    correct: list[np.ndarray]
    timings: list[Timing]
    truth: np.ndarray

    @property
    def same(self) -> np.ndarray:
        same = np.zeros((len(self.truth), len(self.truth)), dtype=bool)
        same[-1, -2] = same[-2, -1] = True
        return same

    def standing(self, *, one_network: bool = True) -> Standing:
        """What the suite says of it; without ``one_network`` it is not told that two rows are one."""
        moments = JointMoments.of(self.correct, paired=[(len(self.truth) - 2, len(self.truth) - 1)])
        weights, clocks = [], []
        for row, timing in zip(moments.rows, self.timings, strict=True):
            answers = np.concatenate([[CHANCE], row.means])
            weights.append(exit_shares(timing.costs[0], 1.0))
            clocks.append(
                float(clock_variance(timing, lambda run, _, answers=answers: exit_shares(run, 1.0) @ answers))
            )
        gaps, spread = moments.gaps([each[1:] for each in weights], [each[0] * CHANCE for each in weights])
        clock, df = np.array(clocks), np.array([timing.df for timing in self.timings])
        spread = spread.plus(np.broadcast_to(clock[:, None], gaps.shape), np.broadcast_to(df[:, None], gaps.shape))
        spread = spread.plus(np.broadcast_to(clock, gaps.shape), np.broadcast_to(df, gaps.shape))
        return standing(gaps, spread, self.same if one_network else None, planned=False)


def simulated_board(number: int, *, tied: bool = False, processes: int = 5) -> SimulatedBoard:
    """Row by row better by 0, 0.2, 0.6 or 2 points and at other costs, or all ``tied``: equally good at equal costs."""
    rng = np.random.default_rng([91, number])
    steps = np.zeros(ROWS) if tied else rng.choice([0.0, 0.002, 0.006, 0.02], size=ROWS)
    accuracy = 0.6 + np.cumsum(steps)[:, None] + np.linspace(0, 0.08, EXITS)
    accuracy[-1] = accuracy[-2]
    cost = np.linspace(0.2, 1, EXITS) * (np.ones(ROWS) if tied else rng.uniform(0.8, 1.1, ROWS))[:, None]
    cost[-1] = cost[-2]
    hard = rng.uniform(-0.12, 0.12, IMAGES)
    seeds = rng.normal(0, rng.uniform(*SEED_SD, size=ROWS)[:, None], (ROWS, SEEDS))
    right = rng.random((ROWS, SEEDS, EXITS, IMAGES)) < (accuracy[:, None] + seeds[..., None])[..., None] + hard
    right[-1] = right[-2]
    sd = rng.uniform(*CLOCK_SD, size=(ROWS, 1, 1))
    shared, alone = rng.standard_normal((ROWS, processes, 1)), rng.standard_normal((ROWS, processes, EXITS))
    measured = cost[:, None] * np.exp(sd * (shared + 0.3 * alone))
    none = np.zeros(EXITS)
    timings = [Timing.of([ProcessCosts(each, each, none, none) for each in row]) for row in measured]
    truth = [exit_shares(c, 1.0) @ np.concatenate([[CHANCE], a]) for c, a in zip(cost, accuracy, strict=True)]
    return SimulatedBoard(list(right), timings, np.array(truth))
