"""One group's rows to one board: ranks, intervals, and everything that needs more than one row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.added import added_by_name, budget_lines, extra_exits, extra_scores
from anytime_bench.leaderboard.agreement import between_axes, between_horizons
from anytime_bench.leaderboard.board import Absent, Board, BoardRow, Ranking, RecordFacts, Reference
from anytime_bench.leaderboard.deadlines import interrupted
from anytime_bench.leaderboard.execution import execution
from anytime_bench.leaderboard.lanes import parallel_rows
from anytime_bench.leaderboard.moments import BoardMoments
from anytime_bench.leaderboard.noise import board_noise
from anytime_bench.leaderboard.ranking import AxisRanking
from anytime_bench.leaderboard.row_parts import (
    AxisScores,
    Behaviour,
    Noise,
    Parallel,
    Quality,
    digits_or_none,
    mean_digits,
    share,
)
from anytime_bench.leaderboard.rows import Row, read_row
from anytime_bench.leaderboard.speed import promises, seconds, throughput
from anytime_bench.leaderboard.standing import SHARES, axis_scores, estimate, pairs
from anytime_bench.leaderboard.stopping import real_stops, stopping_curves
from anytime_bench.leaderboard.streaming import streamed
from anytime_bench.records.entries import Entry, Group, labels
from anytime_bench.records.frame import exit_means
from anytime_bench.scores.horizons import GRID
from anytime_bench.scores.intervals import Interval, mean_interval
from anytime_bench.scores.ranks import PROTOCOL_SEEDS
from anytime_bench.trace.axes import AXES, timed

#: Where no row of a group has comparable times, rows are ranked on this axis.
FALLBACK_AXIS = "macs"


def assemble(group: Group) -> Board:
    """The board of a group. Raises ``UserError`` where its rows answered different numbers of images."""
    rows = [read_row(entries) for entries in group.rows.values()]
    if len({row.n for row in rows}) > 1:
        raise UserError(
            f"task '{group.task}' on '{group.device}': records hold {sorted({row.n for row in rows})} test images, so "
            "they cannot be paired. Publish only records of the whole test split."
        )
    timed_axis = timed()[0]
    axis = timed_axis if any(row.timed and timed_axis in row.costs for row in rows) else FALLBACK_AXIS
    moments = BoardMoments(rows)
    rankings = {name: AxisRanking(moments, name) for name in AXES if any(name in row.costs for row in rows)}
    reference = reference_row(rows)
    accuracy = None if reference is None else float(rows[reference].accuracy[-1])
    level = accuracy if reference is None else reference
    reached = None if level is None else moments.reached([percent / 100 for percent in SHARES], level)
    record = rows[0].record if rows else group.absent[0].record
    examined = next((number for number, row in enumerate(rows) if row.is_reference and row.noise), None)
    noises = board_noise(
        [row.noise for row in rows],
        None if examined is None else rows[examined].noise,
        1 / record.task.classes,
        [] if examined is None else [moments.paired(number, examined) for number in range(len(rows))],
    )
    names = labels([row.record for row in rows])
    parallel = parallel_rows(moments, names)
    built = []
    for number, (row, noise) in enumerate(zip(rows, noises, strict=True)):
        axes = {
            name: axis_scores(row, ranking, number, None if reached is None else reached[number])
            for name, ranking in rankings.items()
            if number in ranking.scores
        }
        built.append(_row(row, names[number], moments.accuracies(number), axes, axis, noise, parallel[number]))
    full = record.reference.costs if record.reference else {}
    return Board(
        task=record.task,
        device=group.device,
        protocol_version=group.key.protocol_version,
        reference=Reference(
            method=record.reference.method if record.reference else None,
            costs={axis: cost for axis, cost in full.items() if not AXES[axis].measured},
            accuracy=None if accuracy is None else share(accuracy),
        ),
        chance=share(1 / record.task.classes),
        ranking=Ranking(axis=axis, sorted_by=sorted_by(axis)),
        axes=list(rankings),
        horizons=list(GRID),
        rows=sorted(built, key=lambda row: _sort_key(row, axis)),
        added=added_by_name([each for row in rows for each in row.records]),
        pairs=pairs(rankings[axis], names) if axis in rankings else [],
        agreement=[
            *between_axes(list(rankings.values())),
            *(each for ranking in rankings.values() for each in between_horizons(ranking)),
        ],
        absent=[_absent(entry) for entry in group.absent],
        notes=[*group.notes, *_beyond_protocol(group, rows, names), *_trained_in(rows, names)],
    )


def _beyond_protocol(group: Group, rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """A sentence per row with seeds that do not count beside the protocol's."""
    first, last = PROTOCOL_SEEDS[0], PROTOCOL_SEEDS[-1]
    notes = []
    for entries, row, name in zip(group.rows.values(), rows, names, strict=True):
        seeds = [str(seed) for seed in sorted({entry.seed for entry in entries} - set(row.seeds))]
        if seeds:
            which, rest = (f"Seed {seeds[0]}", "is") if len(seeds) == 1 else (f"Seeds {', '.join(seeds)}", "are")
            verb = "does" if len(seeds) == 1 else "do"
            notes.append(f"{which} of {name} {rest} beyond the protocol's {first} to {last} and {verb} not count.")
    return notes


def _trained_in(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """In which precision the networks were trained: of all, or of each row where they differ.

    A recipe's "auto" is what the machine multiplies in, so that seeds of one row may differ by more than the seed.
    """
    seeds: dict[str, dict[str, list[int]]] = {}
    for row, name in zip(rows, names, strict=True):
        for record in row.records:
            if record.training and record.training.precision:
                seeds.setdefault(record.training.precision, {}).setdefault(name, []).append(record.training.seed)
    if len(seeds) == 1:
        return [f"All networks were trained in {next(iter(seeds))}."]
    return [
        f"Trained in {precision}: "
        + ", ".join(f"{name} ({', '.join(map(str, sorted(own)))})" for name, own in of_rows.items())
        + ". Seeds in brackets."
        for precision, of_rows in sorted(seeds.items())
    ]


def sorted_by(axis: str) -> str:
    """The sort key in one sentence, as it stands on every board."""
    first, last = PROTOCOL_SEEDS[0], PROTOCOL_SEEDS[-1]
    rule = (
        "from 1 + the number of rows that are better, to the number of ranked rows less those that are worse, over "
        "seeds, test images and, for times, timing processes; corrected for all pairs, so that all ranks hold "
        f"together with 95 %. A row without all of the seeds {first} to {last} is shown and not ranked; a training "
        "that diverged counts as guesses. Sorted by the ends of the rank, then by AUC@1, then by name."
    )
    if AXES[axis].measured:
        return f"Rank on AUC@1 over {AXES[axis].title}: {rule} Unranked rows come last, by AUC@1 over MACs."
    return f"Rank on AUC@1 over {AXES[axis].title}, because no row has comparable times: {rule}"


def reference_row(rows: Sequence[Row]) -> int | None:
    """The number of the reference model's own row; trained in several ways, it is the way with most seeds."""
    own = [number for number, row in enumerate(rows) if row.is_reference]
    return max(own, key=lambda number: len(rows[number].entries)) if own else None


def _row(
    row: Row,
    label: str,
    accuracies: Sequence[Interval],
    axes: dict[str, AxisScores],
    axis: str,
    noise: Noise | None,
    parallel: Parallel | None,
) -> BoardRow:
    record, records = row.record, row.records
    accuracy = [estimate(exit_, 0.0, 1.0) for exit_ in accuracies]
    card, training = record.method.card, record.training
    means = exit_means(records)
    trained = [each.training.seconds for each in records if each.training]
    return BoardRow(
        place=axes[axis].place if axis in axes else None,
        unranked=row.unranked(axis),
        label=label,
        method=record.method.name,
        title=card.title or record.method.name,
        paper=card.paper,
        year=card.year,
        url=card.url,
        tick=card.ticks,
        deviations=card.deviations,
        reported=card.reported.get(record.task.name),
        options=record.method.options,
        origin={key: value for key, value in record.method.origin.items() if key != "file"},
        weights_from=record.method.weights_from,
        seeds=row.seeds,
        n=row.n,
        parameters=record.parameters,
        epochs=training.epochs if training else None,
        training_seconds=mean_digits(trained) if trained else None,
        recipe=training.recipe if training else {},
        final=accuracy[-1],
        accuracy=accuracy,
        accuracy_by_seed=[[share(value) for value in seed] for seed in row.by_seed],
        axes=axes,
        timed=row.timed,
        untimed_reason=row.untimed_reason,
        stopping=stopping_curves(records),
        stops=real_stops(records, row.timed),
        budgets=budget_lines(records),
        throughput=throughput(records),
        promises=promises(records) if row.timed else [],
        behaviour=Behaviour(
            # Answers change any number of times; all else is a share.
            **{
                name: estimate(mean_interval(table), 0.0, math.inf if name == "flips" else 1.0)
                for name, table in row.behaviour.items()
            },
            improvable=[None if math.isnan(value) else share(value) for value in row.improvable],
        ),
        quality=_quality(means),
        extra=extra_scores(records),
        extra_exits=extra_exits(records, means),
        seconds=seconds(records),
        noise=noise,
        parallel=parallel,
        interrupted=interrupted(row.records),
        streaming=streamed(row.records),
        execution=execution(records),
        environment=record.environment.model_dump(exclude_unset=True),
        records=[_facts(entry) for entry in row.entries],
    )


def _quality(means: pd.DataFrame) -> list[Quality]:
    scores = means.reindex(columns=list(Quality.model_fields))
    lines = scores.to_dict("records")
    return [Quality.model_validate({name: digits_or_none(line[name]) for name in scores}) for line in lines]


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
        timing=[*timing.headline.reasons, *timing.notes] if timing else [],
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


def _sort_key(row: BoardRow, axis: str) -> tuple[bool, int, int, float, str]:
    scores = row.axes.get(FALLBACK_AXIS if row.place is None else axis)
    ends = (0, 0) if row.place is None else (row.place.first, row.place.last)
    return row.place is None, *ends, -(scores.auc_1.value if scores else 0.0), row.label
