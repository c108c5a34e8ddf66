"""From the records of a row to what its scores are made of: answers, costs, and who may be ranked.

Everything is recomputed from the ``.npz`` files by the functions that made the records' own scores; costs are multiples
of the reference's full answer, so the horizon of AUC@h is h on every axis. Accuracies are in [0, 1].

Of a row's seeds those of the protocol count (``scores.ranks.PROTOCOL_SEEDS``), and others only where there are none of
those. A training that diverged is a seed whose every answer is a guess. Costs are the row's, not a seed's: seeds share
a network's shape, and so the mean over all of their timing processes is the better measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.noise import NoiseTables
from anytime_bench.records import store
from anytime_bench.records.axes import comparable, exit_costs, span_disturbances, timing_processes
from anytime_bench.records.entries import Entry, with_guesses
from anytime_bench.records.record import Record
from anytime_bench.scores import per_sample
from anytime_bench.scores.curve import settle
from anytime_bench.scores.measured import Timing
from anytime_bench.scores.ranks import PROTOCOL_SEEDS, without_rank
from anytime_bench.trace import noise
from anytime_bench.trace.axes import AXES

Floats = NDArray[np.float64]

#: A fall of the true class's probability that counts as one.
FALL = 0.1
#: What is read of a record's ``.npz``, if it is there.
READ = (
    "test_labels", "test_predictions", "test_true_log_probability", "val_labels", "val_predictions",
    *noise.NAMES, "noise_ticks",
)  # fmt: skip


@dataclass(frozen=True)
class AxisCosts:
    """Costs ``(E,)`` of a row's exits on one axis: after all earlier answers and alone; ``timing`` where measured."""

    run_through: Floats
    prefix: Floats
    by_seed: Floats
    timing: Timing | None = None


@dataclass(frozen=True)
class Row:
    """One method with one set of options, over its seeds.

    ``correct (S, E, N)`` says whether exit k of seed s is right about test image n, ``guesses (S, E)`` are chance where
    the seed diverged and NaN elsewhere; ``validation (E,)`` are the mean accuracies by which exits are chosen.
    """

    entries: list[Entry]
    chance: float
    correct: NDArray[np.bool_]
    guesses: Floats
    validation: Floats
    costs: Mapping[str, AxisCosts]
    #: What single images do from exit to exit, by name, ``(S, N)`` over the seeds that did not diverge.
    behaviour: Mapping[str, Floats]
    #: Per exit, the share of its errors that an earlier exit had right, mean over seeds; NaN where it makes none.
    improvable: Floats
    noise: NoiseTables | None
    timed: bool
    untimed_reason: str

    @property
    def records(self) -> list[Record]:
        """Of the seeds that did not diverge."""
        return [entry.record for entry in self.entries if not entry.diverged]

    @property
    def record(self) -> Record:
        """The first of them: what the seeds share is read off it."""
        return self.records[0]

    @property
    def is_reference(self) -> bool:
        """Whether this is the row of the model that every horizon is a multiple of."""
        record, reference = self.record, self.record.reference
        if reference is None:
            return False
        return (record.method.name, record.exits[-1].macs_prefix) == (reference.method, reference.costs["macs"])

    @property
    def seeds(self) -> list[int]:
        return [entry.seed for entry in self.entries]

    @property
    def n(self) -> int:
        return int(self.correct.shape[2])

    @property
    def by_seed(self) -> Floats:
        """Accuracy per seed and exit, ``(S, E)``."""
        return np.where(np.isnan(self.guesses), self.correct.mean(axis=2, dtype=np.float64), self.guesses)

    @property
    def accuracy(self) -> Floats:
        """Mean accuracy per exit over seeds, ``(E,)``."""
        accuracy: Floats = self.by_seed.mean(axis=0)
        return accuracy

    @property
    def weights(self) -> tuple[str, ...]:
        """SHA-256 of each seed's weights; empty where one is unknown."""
        known = [entry.record.training.weights_sha256 for entry in self.entries if entry.record.training]
        return tuple(known) if all(known) and len(known) == len(self.entries) else ()

    def untimed(self, axis: str) -> str:
        """Why the row's costs on ``axis`` may not be compared; empty where they may, as counted ones always."""
        if not AXES[axis].measured:
            return ""
        if not self.timed:
            return self.untimed_reason or "no reason given"
        return "; ".join(span_disturbances(self.records)) if axis == "span" else ""

    def unranked(self, axis: str) -> str:
        """Why the row has no rank on ``axis``; empty where it has one."""
        if reason := self.untimed(axis):
            return reason
        if axis not in self.costs:
            return f"not measured on {AXES[axis].title}"
        costs = self.costs[axis]
        if costs.run_through[0] >= 1:
            return f"no answer within H: the first one costs {costs.run_through[0]:.3g} x H"
        return without_rank(self.seeds, None if costs.timing is None else costs.timing.processes) or ""


def read_row(entries: Sequence[Entry]) -> Row:
    """Read the seeds' traces and reduce them; every array of a record is read once."""
    counted = [entry for entry in entries if entry.seed in PROTOCOL_SEEDS] or list(entries)
    trained = [entry for entry in counted if not entry.diverged]
    arrays = [store.load_arrays(entry.path, entry.record, READ) for entry in trained]
    right = [entry.correct("test", seed) for entry, seed in zip(trained, arrays, strict=True)]
    shape = right[0].shape
    for entry, table in zip(trained, right, strict=True):
        if table.shape != shape or len(entry.record.exits) != shape[0]:
            raise UserError(
                f"record '{entry.path}' has {len(entry.record.exits)} exits and a trace of shape {table.shape}, "
                f"but seed {trained[0].seed} of the same row has {shape}. One of them is not of this method."
            )
    validation = [entry.correct("val", seed) for entry, seed in zip(trained, arrays, strict=True)]
    correct, guesses = with_guesses(counted, right)
    costs = {axis: costs for axis in AXES if (costs := _costs([entry.record for entry in trained], axis))}
    verdicts = [comparable(entry.record) for entry in trained]
    return Row(
        entries=counted,
        chance=1 / trained[0].record.task.classes,
        correct=correct,
        guesses=guesses,
        validation=np.mean([split.mean(axis=1, dtype=np.float64) for split in validation], axis=0),
        costs=costs,
        behaviour=_behaviour(arrays, right, costs["macs"].by_seed),
        improvable=np.mean([per_sample.hindsight_improvability(seed) for seed in right], axis=0),
        noise=NoiseTables.of(arrays),
        timed=all(fair for fair, _ in verdicts),
        untimed_reason="; ".join(dict.fromkeys(reason for _, reason in verdicts if reason)),
    )


def _costs(records: Sequence[Record], axis: str) -> AxisCosts | None:
    """Costs of a row on an axis that every seed was measured on, else None."""
    per_seed = [exit_costs(record, axis) for record in records]
    by_seed = [np.asarray(costs.relative) for costs in per_seed if costs is not None]
    if len(by_seed) < len(records):
        return None
    if AXES[axis].measured:
        timing = Timing.of([process for record in records for process in timing_processes(record, axis)])
        return AxisCosts(*timing.costs, np.stack([settle(seed) for seed in by_seed]), timing)
    alone = [_alone(record, axis, run_through) for record, run_through in zip(records, by_seed, strict=True)]
    return AxisCosts(settle(np.mean(by_seed, axis=0)), settle(np.mean(alone, axis=0)), np.stack(by_seed))


def _alone(record: Record, axis: str, run_through: Floats) -> Floats:
    """Costs of each exit asked for alone, where the record counts them on this axis."""
    if record.reference is None or axis not in record.exits[0].prefix_costs:
        return run_through
    return np.array([entry.alone(axis) / record.reference.costs[axis] for entry in record.exits])


def _behaviour(
    arrays: Sequence[Mapping[str, NDArray[Any]]], correct: Sequence[NDArray[np.bool_]], macs: Floats
) -> dict[str, Floats]:
    """What single images do from exit to exit, one value per seed and image each."""
    tables: dict[str, list[NDArray[Any]]] = {
        "overthinking": [per_sample.destructive_overthinking(right) for right in correct],
        "wasted": [per_sample.wasted_cost(right, cost) for right, cost in zip(correct, macs, strict=True)],
        "flips": [per_sample.flips(seed["test_predictions"]) for seed in arrays],
        "falls": [per_sample.largest_fall(seed["test_true_log_probability"]) > FALL for seed in arrays],
    }
    return {name: np.stack(per_seed).astype(np.float64) for name, per_seed in tables.items()}
