"""What records say about stopping and about noise, averaged over seeds, as boards show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anytime_bench.records.record import Record

#: Under persistent noise every frame is the same one, so these are one answer on one noisy image.
HEADLINE_POLICIES = ("onset", "watch")
EXPLAINED = (
    "Share of the clean final accuracy that is kept (%). Noise retention in the ranking is the mean over kinds under "
    "persistent noise. Under transient noise every method sees the same frozen frames; the policy says what it does "
    "with them."
)
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
    """Share of the clean final accuracy kept under noise: ``{"retention", "explained", "modes"}``; empty if unmeasured.

    ``modes[mode][policy][kind]`` is the mean over the seeds that were examined; ``retention`` the mean over kinds under
    persistent noise with the policy that a single answer follows (``HEADLINE_POLICIES``).
    """
    kept: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in records:
        for row in record.robustness.get("rows", ()):
            if row.get("kept"):
                cell = kept.setdefault(row["mode"], {}).setdefault(row["policy"], {}).setdefault(row["kind"], [])
                cell.append(row["kept"]["value"])
    if not kept:
        return {}
    modes = {
        mode: {policy: {kind: _rounded(np.mean(v)) for kind, v in kinds.items()} for policy, kinds in policies.items()}
        for mode, policies in kept.items()
    }
    persistent = modes.get("persistent", {})
    headline = next((persistent[policy] for policy in HEADLINE_POLICIES if policy in persistent), {})
    return {
        "retention": _rounded(np.mean(list(headline.values()))) if headline else None,
        "explained": EXPLAINED,
        "modes": modes,
    }


def _rounded(value: Any) -> float:
    return round(float(value), 5)
