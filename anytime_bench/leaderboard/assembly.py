"""One group's rows to one board: ranks, intervals, and everything that needs more than one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.board import (
    Absent,
    AxisScores,
    Behaviour,
    Board,
    BoardRow,
    Quality,
    Ranking,
    RecordFacts,
    Reference,
    digits,
    digits_or_none,
    share,
)
from anytime_bench.leaderboard.noise import board_noise
from anytime_bench.leaderboard.ranking import intervals, ranks
from anytime_bench.leaderboard.rows import SHARES, Row, labels, read_row
from anytime_bench.leaderboard.speed import promises, seconds, throughput
from anytime_bench.leaderboard.stopping import real_stops, stopping_curves
from anytime_bench.records.entries import Entry, Group
from anytime_bench.records.record import Estimate, ExitEntry, Record, finite
from anytime_bench.scores.curve import regrets, time_to
from anytime_bench.trace.axes import AXES, counted

#: Where no row of a group has comparable times, rows are ranked on this axis.
FALLBACK_AXIS = "macs"

Estimates = dict[str, Estimate]


def assemble(group: Group) -> Board:
    """The board of a group. Raises ``UserError`` where its rows answered different numbers of images."""
    rows = [read_row(entries) for entries in group.rows.values()]
    if len({row.n for row in rows}) > 1:
        raise UserError(
            f"task '{group.task}' on '{group.device}': records hold {sorted({row.n for row in rows})} test images, so "
            "they cannot be paired. Publish only records of the whole test split."
        )
    axis = "latency" if any(row.timed and "latency" in row.cost for row in rows) else FALLBACK_AXIS
    left_out = [_unranked(row, axis) for row in rows]
    ranked = [row for row, why in zip(rows, left_out, strict=True) if not why]
    places = dict(zip(map(id, ranked), ranks([row.samples[f"{axis}/auc_1"] for row in ranked]), strict=True))
    accuracy = reference_accuracy(rows)
    record = rows[0].record if rows else group.absent[0].record
    noises = board_noise(
        [row.noise for row in rows],
        next((row.noise for row in rows if row.is_reference and row.noise), None),
        1 / record.task.classes,
    )
    parts = zip(rows, labels(rows), _estimates(rows), _axes(rows, accuracy), noises, left_out, strict=True)
    built = [
        _row(row, label, estimates, axes, places.get(id(row)), why).model_copy(update={"noise": noise})
        for row, label, estimates, axes, noise, why in parts
    ]
    return Board(
        task=record.task,
        device=group.device,
        protocol_version=group.key.protocol_version,
        reference=Reference(
            method=record.reference.get("method"),
            costs={axis: record.reference[axis] for axis in counted() if record.reference.get(axis) is not None},
            accuracy=None if accuracy is None else share(accuracy),
        ),
        chance=share(1 / record.task.classes),
        ranking=Ranking(axis=axis, sorted_by=sorted_by(axis)),
        axes=[name for name in AXES if any(name in row.cost for row in rows)],
        rows=sorted(built, key=lambda row: _sort_key(row, axis)),
        absent=[_absent(entry) for entry in group.absent],
        notes=group.notes,
    )


def sorted_by(axis: str) -> str:
    """The sort key in one sentence, as it stands on every board."""
    better = (
        "1 + the number of rows that are better, better meaning that the 95 % interval of the paired difference "
        "(bootstrap over images and seeds) excludes 0; rows that nothing tells apart share a rank. Within a rank by "
        "AUC@1, then by name."
    )
    if AXES[axis].measured:
        last = "Rows without comparable times come last, unranked, by AUC@1 over MACs."
        return f"Rank on AUC@1 over {AXES[axis].title}: {better} {last}"
    return f"Rank on AUC@1 over {AXES[axis].title}, because no row has comparable times: {better}"


def reference_accuracy(rows: Sequence[Row]) -> float | None:
    """Final accuracy of the reference model: its own row's mean over seeds, else what the records say of it."""
    own = [row for row in rows if row.is_reference]
    if own:
        # Trained in several ways, it is the way with most seeds.
        return float(max(own, key=lambda row: len(row.entries)).accuracy[-1])
    stated = [row.record.reference.get("accuracy") for row in rows]
    known = [float(value) for value in stated if isinstance(value, int | float)]
    return float(np.mean(known)) if known else None


def _unranked(row: Row, axis: str) -> str:
    """Why a row has no rank; empty where it has one."""
    if AXES[axis].measured and not row.timed:
        return row.untimed_reason or "no reason given"
    if axis not in row.cost:
        return f"not measured on {AXES[axis].title}"
    first = row.cost[axis][0]
    return "" if first < 1 else f"no answer within H: the first one costs {first:.3g} x H"


def _estimates(rows: Sequence[Row]) -> list[Estimates]:
    flat = [(index, name) for index, row in enumerate(rows) for name in row.samples]
    computed = intervals([rows[index].samples[name] for index, name in flat])
    result: list[Estimates] = [{} for _ in rows]
    for (index, name), (value, low, high) in zip(flat, computed, strict=True):
        # A Student-t interval over few seeds may leave [0, 1], where no share lies. Answers change any number of times.
        most = math.inf if name == "flips" else 1.0
        result[index][name] = Estimate(value=share(value), low=share(max(low, 0.0)), high=share(min(high, most)))
    return result


@dataclass(frozen=True)
class _OnAxis:
    """What a row has on one axis without an interval."""

    regret: float
    time_to: dict[str, float | None]


def _axes(rows: Sequence[Row], reference: float | None) -> list[dict[str, _OnAxis]]:
    """Per row and axis: regret to the board's envelope, time to shares of the reference's accuracy."""
    result: list[dict[str, _OnAxis]] = [{} for _ in rows]
    for axis in AXES:
        measured = [(place, row) for place, row in enumerate(rows) if axis in row.cost]
        # Times that may not be compared make no envelope.
        fair = [(row.cost[axis], row.accuracy) for _, row in measured if row.timed or not AXES[axis].measured]
        lost = regrets([(row.cost[axis], row.accuracy) for _, row in measured], fair, 1.0, rows[0].chance)
        for (place, row), regret in zip(measured, lost, strict=True):
            reached = {str(percent): _time_to(row, axis, percent, reference) for percent in SHARES}
            result[place][axis] = _OnAxis(share(regret), reached)
    return result


def _time_to(row: Row, axis: str, percent: int, reference: float | None) -> float | None:
    return digits_or_none(time_to(row.cost[axis], row.accuracy, percent / 100, reference)) if reference else None


def _row(
    row: Row, label: str, estimates: Estimates, axes: dict[str, _OnAxis], rank: int | None, unranked: str
) -> BoardRow:
    record, records = row.record, [entry.record for entry in row.entries]
    card, training = record.method.card, record.training
    trained = [each.training.seconds for each in records if each.training]
    return BoardRow(
        rank=rank,
        unranked=unranked,
        label=label,
        method=record.method.name,
        title=card.get("title", record.method.name),
        paper=card.get("paper", ""),
        year=card.get("year"),
        url=card.get("url", ""),
        tick=card.get("ticks", ""),
        deviations=list(card.get("deviations", ())),
        reported=(card.get("reported") or {}).get(record.task.name),
        options=finite(record.method.options),
        origin={key: value for key, value in record.method.origin.items() if key != "file"},
        weights_from=record.method.weights_from,
        seeds=row.seeds,
        n=row.n,
        parameters=record.parameters,
        epochs=training.epochs if training else None,
        training_seconds=digits(float(np.mean(trained))) if trained else None,
        recipe=finite(training.recipe) if training else {},
        final=estimates[f"exit/{len(row.accuracy) - 1}"],
        accuracy=[estimates[f"exit/{k}"] for k in range(len(row.accuracy))],
        accuracy_by_seed=[[share(value) for value in seed] for seed in row.by_seed],
        axes={
            axis: AxisScores(
                auc_1=estimates[f"{axis}/auc_1"],
                auc_2=estimates[f"{axis}/auc_2"],
                regret=scores.regret,
                time_to=scores.time_to,
                cost=[digits(value) for value in row.cost[axis]],
                cost_by_seed=[[digits(value) for value in seed] for seed in row.cost_by_seed[axis]],
            )
            for axis, scores in axes.items()
        },
        timed=row.timed,
        untimed_reason=row.untimed_reason,
        stopping=stopping_curves(records),
        stops=real_stops(records),
        throughput=throughput(records),
        promises=promises(records) if row.timed else [],
        behaviour=Behaviour(
            **{name: estimates[name] for name in ("overthinking", "wasted", "flips", "falls")},
            improvable=[None if math.isnan(value) else share(value) for value in row.improvable],
        ),
        quality=_quality(records),
        seconds=seconds(records),
        noise=None,
        environment=finite(record.environment),
        records=[_facts(entry) for entry in row.entries],
    )


def _quality(records: Sequence[Record]) -> list[Quality]:
    def mean(exits: Sequence[ExitEntry], name: str) -> float | None:
        values = [getattr(entry, name) for entry in exits]
        return None if None in values else digits_or_none(float(np.mean(values)))

    return [
        Quality(**{name: mean(exits, name) for name in Quality.model_fields})  # type: ignore[arg-type]
        for exits in zip(*(record.exits for record in records), strict=True)
    ]


def _facts(entry: Entry) -> RecordFacts:
    record, training, timing = entry.record, entry.record.training, entry.record.timing
    return RecordFacts(
        record=record.record_id,
        seed=entry.seed,
        created=record.created,
        command=record.command,
        weights=training.weights_sha256 if training else None,
        supersedes=record.supersedes,
        training_seconds=training.seconds if training else None,
        final_loss=training.final_loss if training else None,
        timing=[*map(str, timing.get("reasons", ())), *map(str, timing.get("notes", ()))],
    )


def _absent(entry: Entry) -> Absent:
    record = entry.record
    return Absent(
        method=record.method.name,
        # A run that was not trained to its end has no training entry; its command says the rest.
        seed=entry.seed if record.training else None,
        command=record.command,
        status=record.status,
        reason=record.reason,
        record=record.record_id,
    )


def _sort_key(row: BoardRow, axis: str) -> tuple[bool, int, float, str]:
    scores = row.axes.get(FALLBACK_AXIS if row.rank is None else axis)
    return row.rank is None, row.rank or 0, -(scores.auc_1.value if scores else 0.0), row.label
