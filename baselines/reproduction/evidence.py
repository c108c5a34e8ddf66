"""What the published records say, in the form in which claims are judged: per image, per seed, with intervals.

``Row`` is one method with one set of options over its seeds; ``Evidence`` the rows of one task on one device. Costs are
multiples of the reference model's full answer (``serial_ce``), so that a deadline of 1 is the moment at which a plain
ResNet has answered. Correctness is ``(seeds, images)`` in [0, 1]; the same images in the same order in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.harness.deadline_summary import MODES, UNIFORM
from anytime_bench.records import store
from anytime_bench.records.axes import comparable, exit_costs, span_disturbances, span_unit
from anytime_bench.records.consistency import read_entries
from anytime_bench.records.entries import Entry, Group, groups, with_guesses
from anytime_bench.records.record import Record
from anytime_bench.scores.curve import auc, settle
from anytime_bench.trace import noise
from anytime_bench.trace.axes import AXES

Floats = NDArray[np.float64]
#: A newer protocol is what papers are judged by once all of these rows are published under it.
RANKED = ("serial_ce", "serial_td_multihead", "cascaded_td", "cascaded_ce", "sdn", "msdnet")
#: Only the suite's own rows are evidence about the papers; a plugin may be called ``cascaded_td`` too.
DISTRIBUTION = "anytime_bench"
#: Hardware of so many lanes, each running one operator of this machine at a time, as axes of their own.
LANES: dict[str, int | str] = {"2 lanes": 2, "4 lanes": 4, "8 lanes": 8, "unlimited lanes": "inf"}
#: What is read of a session at deadlines.
DELIVERED = ("test_labels", *(f"deadlines_{name}" for name in ("kind", "image", "prediction", "exit")))
#: Of the published figures: parallel models were trained with lambda = 0, serial ones with lambda = 1.
PUBLISHED_LAMBDA = {"cascaded": 0.0, "serial": 1.0}


@dataclass(frozen=True)
class Row:
    """One method with one set of options; ``entries`` are its seeds, of which those that diverged answer by guess."""

    entries: tuple[Entry, ...]

    @cached_property
    def trained(self) -> tuple[Entry, ...]:
        """The seeds that did not diverge: only they have answers, costs and noise of their own."""
        return tuple(entry for entry in self.entries if not entry.diverged)

    @property
    def record(self) -> Record:
        return self.trained[0].record

    @property
    def name(self) -> str:
        return self.record.method.name

    @property
    def chance(self) -> float:
        return 1 / self.record.task.classes

    @property
    def seeds(self) -> int:
        return len(self.entries)

    @property
    def recipe(self) -> str:
        """SHA-256 of the training recipe."""
        return self.record.training.recipe_sha256 if self.record.training else ""

    @property
    def lam(self) -> float:
        """The row's lambda, 0 where it has none."""
        lam = self.record.method.options.get("lam", 0.0)
        return float(lam) if isinstance(lam, int | float) else 0.0

    def options_changed(self, usual: Row) -> dict[str, Any]:
        """Options in which this row differs from ``usual``."""
        theirs = usual.record.method.options
        return {key: value for key, value in self.record.method.options.items() if theirs.get(key) != value}

    def changed(self, usual: Row) -> dict[str, Any]:
        """Options and values of the recipe in which this row differs from ``usual``."""
        mine, theirs = (row.record.training.recipe if row.record.training else {} for row in (self, usual))
        values = {
            key: value
            for section, part in mine.items()
            for key, value in part.items()
            if theirs.get(section, {}).get(key) != value
        }
        return {**self.options_changed(usual), **values}

    @cached_property
    def correct(self) -> Floats:
        """Whether exit k of seed s is right about image n, ``(S, E, N)``: 1, 0, or chance where it guesses."""
        right, guesses = with_guesses(self.entries, [entry.correct() for entry in self.trained])
        return np.where(np.isnan(guesses), 0.0, guesses)[..., None] + right

    def of_all_seeds(self, tables: Sequence[Floats], diverged: Floats) -> Floats:
        """``tables`` of the seeds that did not diverge and ``diverged`` for each other one, in order of the seeds."""
        known = iter(tables)
        return np.stack([diverged if entry.diverged else next(known) for entry in self.entries])

    @property
    def timed(self) -> bool:
        """Whether every seed's times may be compared."""
        return all(comparable(entry.record)[0] for entry in self.trained)

    @property
    def span_timed(self) -> bool:
        """Whether every seed's parallel times may be compared."""
        return not span_disturbances(entry.record for entry in self.trained)

    def costs(self, axis: str) -> Floats | None:
        """Relative cost of each exit, ``(S, E)``; None where a seed has no comparable measurement.

        A seed that diverged costs what the others do on average.
        ``axis`` is one of the suite's, or one of ``LANES``.
        """
        if axis in LANES:
            return self._ready(LANES[axis])
        measured = [exit_costs(entry.record, axis) for entry in self.trained]
        if AXES[axis].measured and not self.timed:
            return None
        if axis == "span" and not self.span_timed:
            return None
        known = [cost.relative for cost in measured if cost is not None]
        if len(known) < len(measured):
            return None
        costs = [settle(cost) if AXES[axis].settled else np.asarray(cost) for cost in known]
        return self.of_all_seeds(costs, np.mean(costs, axis=0))

    def _ready(self, lanes: int | str) -> Floats | None:
        """When each exit is ready on so many lanes, edges between them free, ``(S, E)``."""
        if not self.span_timed:
            return None
        times = [
            settle(np.array(line.ready) * span_unit(entry.record))
            for entry in self.trained
            if entry.record.span is not None
            for line in entry.record.span.lanes
            if line.lanes == lanes and line.edge_us == 0
        ]
        return self.of_all_seeds(times, np.mean(times, axis=0)) if len(times) == len(self.trained) else None

    def exit(self, k: int) -> Floats:
        """Correctness of exit k, ``(S, N)``."""
        return self.correct[:, k]

    def owned(self, axis: str, deadline: float) -> Floats | None:
        """Expected correctness of the answer owned at ``deadline``, ``(S, N)``; chance before the first answer."""
        costs = self.costs(axis)
        if costs is None:
            return None
        owned = [int(np.searchsorted(cost, deadline * (1 + 1e-9), side="right")) - 1 for cost in costs]
        blind = np.full(self.correct.shape[2], self.chance)
        return np.stack([seed[k] if k >= 0 else blind for seed, k in zip(self.correct, owned, strict=True)])

    def area(self, axis: str, horizon: float) -> Floats | None:
        """AUC up to ``horizon`` per image, ``(S, N)``."""
        costs = self.costs(axis)
        if costs is None:
            return None
        return np.stack([auc(c, right, horizon, self.chance) for c, right in zip(costs, self.correct, strict=True)])

    @cached_property
    def delivered(self) -> Floats | None:
        """What mode ask delivered at each uniform deadline of a seed's draw, ``(S, D)``: 1, 0, or chance for nothing.

        None where a seed was not interrupted, or not on an idle machine, or where draws differ in number.
        """
        tables = []
        for entry in self.trained:
            block = entry.record.deadlines
            if block is None or not block.comparable:
                return None
            arrays = store.load_arrays(entry.path, entry.record, DELIVERED)
            uniform, ask = arrays["deadlines_kind"] == UNIFORM, MODES.index("ask")
            truth = arrays["test_labels"][arrays["deadlines_image"][uniform]]
            right = arrays["deadlines_prediction"][ask, uniform] == truth
            tables.append(np.where(arrays["deadlines_exit"][ask, uniform] < 0, self.chance, right))
        if len({len(table) for table in tables}) != 1:
            return None
        return self.of_all_seeds(tables, np.full_like(tables[0], self.chance))

    @cached_property
    def noise(self) -> list[list[noise.NoiseRun]]:
        """What was evaluated under noise, per seed that did not diverge; empty where one was not."""
        if not all(entry.record.robustness for entry in self.trained):
            return []
        names = (*noise.NAMES, *noise.COSTS)
        return [noise.unpack(store.load_arrays(entry.path, entry.record, names)) for entry in self.trained]

    def under_noise(self, mode: str, policy: str, *, axis: str = "", budget: float = np.inf) -> Floats | None:
        """Correctness ``(S, N)`` under noise, the mean over kinds and severities, None where it was not evaluated.

        Of the last answer, or of the one owned once ``budget`` (in ticks or MACs) is spent on ``axis``.
        """
        tables = []
        for runs in self.noise:
            chosen = [run for run in runs if run.mode == mode and run.policy == policy]
            kinds: dict[str, list[Floats]] = {}
            for run in chosen:
                right = run.at(axis, budget, self.chance) if axis else run.final.astype(np.float64)
                kinds.setdefault(run.kind, []).append(right)
            if not kinds:
                return None
            tables.append(np.mean([np.mean(severities, axis=0) for severities in kinds.values()], axis=0))
        return self.of_all_seeds(tables, np.full_like(tables[0], self.chance)) if tables else None

    def spent_under_noise(self, mode: str, policy: str, axis: str) -> float | None:
        """What ``policy`` has spent on ``axis`` when it is done."""
        for runs in self.noise[:1]:
            for run in runs:
                if run.mode == mode and run.policy == policy:
                    return float(run.costs[axis][-1])
        return None


@dataclass(frozen=True)
class Evidence:
    """The rows of one task on one device under one protocol; ``older`` are those of earlier ones, the newest first."""

    group: Group
    older: tuple[Evidence, ...] = ()

    @property
    def task(self) -> str:
        return self.group.task

    @property
    def device(self) -> str:
        return self.group.device

    @property
    def protocol(self) -> str:
        return self.group.key.protocol_version

    @property
    def with_older(self) -> tuple[Evidence, ...]:
        """This one and those before it, the newest first."""
        return (self, *self.older)

    @cached_property
    def rows(self) -> list[Row]:
        rows = [Row(tuple(entries)) for entries in self.group.rows.values()]
        return [row for row in rows if row.record.method.origin.get("distribution") == DISTRIBUTION]

    @property
    def records(self) -> int:
        return sum(row.seeds for row in self.rows)

    @property
    def complete(self) -> bool:
        """Whether all of ``RANKED`` are there, with however many seeds."""
        return all(self.row(method) for method in RANKED)

    @property
    def axes(self) -> list[str]:
        return [axis for axis in AXES if any(row.costs(axis) is not None for row in self.rows)]

    @property
    def lanes(self) -> list[str]:
        """Those of ``LANES`` for which some row has times."""
        return [name for name in LANES if any(row.costs(name) is not None for row in self.rows)]

    def full(self, axis: str) -> float:
        """The reference's full cost on a counted axis."""
        reference = self.rows[0].record.reference
        assert reference is not None  # as every record with results has one
        return float(reference.costs[axis])

    def row(self, method: str) -> Row | None:
        """The row of ``method`` at its published lambda, if it has one; of several such rows that with most seeds."""
        lam = PUBLISHED_LAMBDA.get(method.partition("_")[0])
        rows = [row for row in self.rows if row.name == method]
        if lam is not None:
            rows = [row for row in rows if row.record.method.options.get("lam", lam) == lam]
        return max(rows, key=lambda row: row.seeds) if rows else None

    def lambdas(self, method: str) -> list[dict[float, Row]]:
        """Rows of ``method`` that differ in lambda alone, by lambda: one sweep per recipe, the usual one first."""
        usual = self.row(method)
        sweeps: dict[str, dict[float, Row]] = {} if usual is None else {usual.recipe: {}}
        for row in self.rows:
            if usual is not None and row.name == method and not set(row.options_changed(usual)) - {"lam"}:
                sweeps.setdefault(row.recipe, {})[row.lam] = row
        return [dict(sorted(sweep.items())) for sweep in sweeps.values()]

    def variations(self, method: str) -> list[tuple[Row, Row | None]]:
        """Rows of ``method`` beside the usual one, each with serial_ce of the same recipe and width if there is one."""
        usual = self.row(method)
        pairs = []
        for row in self.rows:
            if usual is None or row.name != method or row is usual:
                continue
            width = row.record.method.options.get("width")
            serial = [
                other
                for other in self.rows
                if other.name == "serial_ce"
                and other.recipe == row.recipe
                and other.record.method.options.get("width") == width
            ]
            pairs.append((row, serial[0] if serial else None))
        return sorted(pairs, key=lambda pair: str(pair[0].changed(usual)) if usual else "")


def read_evidence(results: Path) -> list[Evidence]:
    """What every task and device is judged by: its newest group that has all of ``RANKED``, or else its newest.

    The groups before it are its ``older``. Only groups with rows of this suite's own distribution count.
    """
    current: dict[tuple[str, str], Evidence] = {}
    for group in groups(read_entries(results)):
        before = current.get((group.task, group.device))
        evidence = Evidence(group, before.with_older if before else ())
        if evidence.rows and (before is None or evidence.complete or not before.complete):
            current[group.task, group.device] = evidence
    return list(current.values())


def published(every: Sequence[Evidence]) -> int:
    """How many records all of ``every`` and their older ones hold."""
    return sum(each.records for evidence in every for each in evidence.with_older)
