"""From the seeds of a row to its numbers: curves, areas with intervals, time to a share, noise, provenance.

Everything is recomputed from the ``.npz`` files by the functions that made the records' own scores; costs are multiples
of the reference's full answer, so the horizon of AUC@h is h on every axis. Accuracies and areas are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.noise import NoiseTables
from anytime_bench.leaderboard.ranking import Sample
from anytime_bench.records import store
from anytime_bench.records.axes import comparable, exit_costs
from anytime_bench.records.entries import Entry
from anytime_bench.records.record import Record
from anytime_bench.scores import per_sample
from anytime_bench.scores.curve import per_sample_auc, settle
from anytime_bench.trace.axes import AXES

Floats = NDArray[np.float64]

HORIZONS = {"auc_1": 1.0, "auc_2": 2.0}
SHARES = (50, 90, 95, 99)
#: A fall of the true class's probability that counts as one.
FALL = 0.1
#: What is read of a record's ``.npz``, if it is there.
READ = (
    "test_labels", "test_predictions", "test_true_log_probability", "noise_correct", "noise_run", "noise_severity",
    "noise_images", "noise_classes", "noise_kind", "noise_mode", "noise_policy",
    "noise_ticks",
)  # fmt: skip


@dataclass
class Row:
    """One method with one set of options, over its seeds."""

    entries: list[Entry]
    chance: float
    n: int
    #: Mean accuracy per exit over seeds, ``(E,)``, and per seed, ``(S, E)``.
    accuracy: Floats
    by_seed: Floats
    #: Mean cost per exit over seeds per axis, ``(E,)``, and per seed, ``(S, E)``.
    cost: dict[str, Floats]
    cost_by_seed: dict[str, Floats]
    #: Scores that get intervals, by name: ``exit/<k>``, ``<axis>/auc_1``, ``<axis>/auc_2``, and behaviour.
    samples: dict[str, Sample]
    #: Per exit, the share of its errors that an earlier exit had right, mean over seeds; NaN where it makes none.
    improvable: Floats
    noise: NoiseTables | None
    timed: bool
    untimed_reason: str

    @property
    def record(self) -> Record:
        """The first seed's record: what the seeds share is read off it."""
        return self.entries[0].record

    @property
    def is_reference(self) -> bool:
        """Whether this is the row of the model that every horizon is a multiple of."""
        reference = self.record.reference
        return (self.record.method.name, self.record.exits[-1].macs_prefix) == (
            reference.get("method"),
            reference.get("macs"),
        )

    @property
    def seeds(self) -> list[int]:
        return [entry.seed for entry in self.entries]


def read_row(entries: Sequence[Entry]) -> Row:
    """Read the seeds' traces and reduce them; every array of a record is read once."""
    chance = 1 / entries[0].record.task.classes
    arrays = [store.load_arrays(entry.path, entry.record, READ) for entry in entries]
    correct = [_correct(entry, seed) for entry, seed in zip(entries, arrays, strict=True)]
    shape = correct[0].shape
    for entry, table in zip(entries, correct, strict=True):
        if table.shape != shape or len(entry.record.exits) != shape[0]:
            raise UserError(
                f"record '{entry.path}' has {len(entry.record.exits)} exits and a trace of shape {table.shape}, "
                f"but seed {entries[0].seed} of the same row has {shape}. One of them is not of this method."
            )
    cost_by_seed = _costs(entries)
    stack = np.stack(correct)  # (S, E, N)
    samples = {f"exit/{k}": Sample.of(stack[:, k].astype(np.float64), paired=False) for k in range(shape[0])}
    for axis, per_seed in cost_by_seed.items():
        for name, horizon in HORIZONS.items():
            tables = [
                per_sample_auc(cost, right, horizon, chance) for cost, right in zip(per_seed, correct, strict=True)
            ]
            samples[f"{axis}/{name}"] = Sample.of(np.stack(tables), paired=name == "auc_1")
    samples |= _behaviour(arrays, correct, cost_by_seed["macs"])
    verdicts = [comparable(entry.record) for entry in entries]
    by_seed = stack.mean(axis=2, dtype=np.float64)
    return Row(
        entries=list(entries),
        chance=chance,
        n=shape[1],
        accuracy=by_seed.mean(axis=0),
        by_seed=by_seed,
        cost={axis: settle(per_seed.mean(axis=0)) for axis, per_seed in cost_by_seed.items()},
        cost_by_seed=cost_by_seed,
        samples=samples,
        improvable=np.mean([per_sample.hindsight_improvability(right) for right in correct], axis=0),
        noise=NoiseTables.of(arrays),
        timed=all(fair for fair, _ in verdicts),
        untimed_reason="; ".join(dict.fromkeys(reason for _, reason in verdicts if reason)),
    )


def _correct(entry: Entry, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Whether exit k is right about test image n, ``(E, N)``."""
    shapes = [arrays[name].shape if name in arrays else () for name in ("test_labels", "test_predictions")]
    if len(shapes[1]) != 2 or shapes[0] != shapes[1][1:]:
        raise UserError(f"the trace of record '{entry.path}' cannot be scored: labels and predictions are {shapes}.")
    return np.asarray(arrays["test_predictions"] == arrays["test_labels"][None])


def _costs(entries: Sequence[Entry]) -> dict[str, Floats]:
    """Costs per seed ``(S, E)`` on each axis that every seed was measured on."""
    per_axis = {axis: [exit_costs(entry.record, axis) for entry in entries] for axis in AXES}
    return {
        axis: np.stack(
            [settle(cost.relative) if AXES[axis].measured else np.asarray(cost.relative) for cost in measured]
        )
        for axis, costs in per_axis.items()
        if len(measured := [cost for cost in costs if cost is not None]) == len(entries)
    }


def _behaviour(
    arrays: Sequence[Mapping[str, NDArray[Any]]], correct: Sequence[NDArray[np.bool_]], macs: Floats
) -> dict[str, Sample]:
    """What single images do from exit to exit, one value per seed and image each."""
    tables: dict[str, list[NDArray[Any]]] = {
        "overthinking": [per_sample.destructive_overthinking(right) for right in correct],
        "wasted": [per_sample.wasted_cost(right, cost) for right, cost in zip(correct, macs, strict=True)],
        "flips": [per_sample.flips(seed["test_predictions"]) for seed in arrays],
        "falls": [per_sample.largest_fall(seed["test_true_log_probability"]) > FALL for seed in arrays],
    }
    return {name: Sample.of(np.stack(per_seed).astype(np.float64), paired=False) for name, per_seed in tables.items()}


def labels(rows: Sequence[Row]) -> list[str]:
    """A name per row: the method's, with the options in which it differs from its namesakes."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.record.method.name, []).append(row)
    result = []
    for row in rows:
        namesakes = by_name[row.record.method.name]
        name = row.record.method.name
        if len(namesakes) == 1:
            result.append(name)
            continue
        differing = [f"{key}={value}" for key, value in _settings(row).items()
                if any(_settings(other).get(key) != value for other in namesakes)]  # fmt: skip
        result.append(f"{name} ({', '.join(differing)})" if differing else f"{name} ({row.record.record_id[:8]})")
    return result


def _settings(row: Row) -> Mapping[str, Any]:
    record = row.record
    settings = dict(record.method.options)
    if record.training is not None:
        for part in record.training.recipe.values():
            settings |= part if isinstance(part, dict) else {}
        settings["epochs"] = record.training.epochs
    origin = record.method.origin
    settings["version"] = origin.get("version", "")
    settings["file"] = origin.get("sha256", "")[:8]
    return settings
