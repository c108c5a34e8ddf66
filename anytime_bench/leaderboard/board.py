"""One group's rows to one board: a JSON-ready dictionary from which every format is rendered, and nothing else.

Numbers are rounded here, once, so that all formats agree: shares to 5 decimals, costs to 6 significant digits. That is
also what keeps the bytes stable where another BLAS adds in another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.ranking import intervals, ranks
from anytime_bench.leaderboard.rows import HORIZONS, SHARES, Row, labels, read_row
from anytime_bench.leaderboard.stopping_and_noise import noise_summary, stopping_curves
from anytime_bench.records.entries import Group
from anytime_bench.records.record import finite
from anytime_bench.scores.curve import regret, time_to
from anytime_bench.trace.axes import AXES

FORMAT = 1
#: Shares of a count of images often end on a half of the last decimal; sums in another order would round them apart.
OFF_TIES = 1e-9
#: Where no row of a group has comparable times, rows are ranked on this axis.
FALLBACK_AXIS = "macs"


def assemble(group: Group) -> dict[str, Any]:
    """The board of a group: identity, how it is sorted, rows best first, what is absent and why."""
    rows = [read_row(entries) for entries in group.rows.values()]
    if len({row.n for row in rows}) > 1:
        raise UserError(
            f"task '{group.task}' on '{group.device}': records hold {sorted({row.n for row in rows})} test images, so "
            "they cannot be paired. Publish only records of the whole test split."
        )
    axis = "latency" if any(row.timed and "latency" in row.cost for row in rows) else FALLBACK_AXIS
    ranked = [row for row in rows if axis in row.cost and (row.timed or not AXES[axis].measured)]
    places = dict(zip(map(id, ranked), ranks([row.samples[f"{axis}/auc_1"] for row in ranked]), strict=True))
    reference = reference_accuracy(rows)
    names = labels(rows)
    estimates = _estimates(rows)
    built = []
    for row, name, estimate in zip(rows, names, estimates, strict=True):
        built.append(_row(row, name, estimate, places.get(id(row)), rows, reference))
    by_axis = [axis, FALLBACK_AXIS]
    built.sort(key=lambda entry: _sort_key(entry, by_axis))
    record = rows[0].record if rows else group.absent[0].record
    return finite(
        {
            "format": FORMAT,
            "task": record.task.model_dump(mode="json"),
            "device": group.device,
            "protocol_version": group.key.protocol_version,
            "reference": {
                "method": record.reference.get("method"),
                "ticks": record.reference.get("ticks"),
                "macs": record.reference.get("macs"),
                "accuracy": _share(reference),
            },
            "chance": _share(1 / record.task.classes),
            "ranking": {"axis": axis, "score": "auc_1", "sorted_by": sorted_by(axis)},
            "axes": [name for name in AXES if any(name in row.cost for row in rows)],
            "rows": built,
            "absent": [
                {
                    "method": entry.record.method.name,
                    # A run that was not trained to its end has no training entry; its command says the rest.
                    "seed": entry.seed if entry.record.training else None,
                    "command": entry.record.command,
                    "status": entry.record.status,
                    "reason": entry.record.reason,
                    "record": entry.record.record_id,
                }
                for entry in group.absent
            ],
            "notes": group.notes,
        }
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
    own = [
        row
        for row in rows
        if row.record.method.name == row.record.reference.get("method")
        and row.record.exits[-1].macs_prefix == row.record.reference.get("macs")
    ]
    if own:
        # Trained in several ways, it is the way with most seeds.
        return float(max(own, key=lambda row: len(row.entries)).accuracy[-1])
    told = [row.record.reference.get("accuracy") for row in rows]
    known = [float(value) for value in told if isinstance(value, int | float)]
    return float(np.mean(known)) if known else None


def _estimates(rows: Sequence[Row]) -> list[dict[str, dict[str, float]]]:
    flat = [(index, name) for index, row in enumerate(rows) for name in row.samples]
    found = intervals([rows[index].samples[name] for index, name in flat])
    result: list[dict[str, dict[str, float]]] = [{} for _ in rows]
    for (index, name), (value, low, high) in zip(flat, found, strict=True):
        # A Student-t interval over few seeds may leave [0, 1], where no share lies.
        result[index][name] = {"value": _share(value), "low": _share(max(low, 0.0)), "high": _share(min(high, 1.0))}
    return result


def _row(
    row: Row,
    label: str,
    estimate: dict[str, dict[str, float]],
    rank: int | None,
    rows: Sequence[Row],
    reference: float | None,
) -> dict[str, Any]:
    record = row.record
    card = record.method.card
    axes = {}
    for axis, cost in row.cost.items():
        board = [
            (other.cost[axis], other.accuracy)
            for other in rows
            if axis in other.cost and (other.timed or not AXES[axis].measured)
        ]
        axes[axis] = {
            **{name: estimate[f"{axis}/{name}"] for name in HORIZONS},
            "regret": _share(regret(cost, row.accuracy, board, 1.0, row.chance)),
            "time_to": {
                str(share): _digits(time_to(cost, row.accuracy, share / 100, reference) if reference else None)
                for share in SHARES
            },
            "cost": [_digits(value) for value in cost],
            "cost_by_seed": [[_digits(value) for value in seed] for seed in row.cost_by_seed[axis]],
        }
    return {
        "rank": rank,
        "label": label,
        "method": record.method.name,
        "title": card.get("title", record.method.name),
        "paper": card.get("paper", ""),
        "year": card.get("year"),
        "url": card.get("url", ""),
        "tick": card.get("ticks", ""),
        "deviations": list(card.get("deviations", ())),
        "reported": (card.get("reported") or {}).get(record.task.name),
        "options": record.method.options,
        "origin": {key: value for key, value in record.method.origin.items() if key != "file"},
        "weights_from": record.method.weights_from,
        "seeds": row.seeds,
        "n": row.n,
        "parameters": record.parameters,
        "epochs": record.training.epochs if record.training else None,
        "recipe": record.training.recipe if record.training else {},
        "final": estimate["final"],
        "accuracy": [estimate[f"exit/{k}"] for k in range(len(row.accuracy))],
        "accuracy_by_seed": [[_share(value) for value in seed] for seed in row.by_seed],
        "axes": axes,
        "timed": row.timed,
        "untimed_reason": row.untimed_reason,
        "stopping": stopping_curves([entry.record for entry in row.entries]),
        "noise": noise_summary([entry.record for entry in row.entries]),
        "environment": record.environment,
        "records": [
            {
                "record": entry.record.record_id,
                "seed": entry.seed,
                "created": entry.record.created,
                "command": entry.record.command,
                "weights": entry.record.training.weights_sha256 if entry.record.training else None,
                "supersedes": entry.record.supersedes,
            }
            for entry in row.entries
        ],
    }


def _sort_key(entry: dict[str, Any], axes: Sequence[str]) -> tuple[Any, ...]:
    ranked = entry["rank"] is not None
    area = entry["axes"].get(axes[0] if ranked else axes[1], {}).get("auc_1", {"value": 0.0})
    return (not ranked, entry["rank"] or 0, -area["value"], entry["label"])


def _share(value: float | None) -> Any:
    return None if value is None else round(float(value) + OFF_TIES, 5)


def _digits(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
