"""Records of schema version 1, read into today's form.

Their files stay as they are, and their ids are hashes of the JSON as it is stored. What they state and no table shows
(times to a share of the reference's accuracy, recovery from bursts, SDN's confusion, memory, parameters used, copies of
the timing's meta) is left behind here. Malformed content may raise ``KeyError``, ``TypeError``, ``AttributeError`` or
``IndexError``; ``store.load`` says so in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anytime_bench.trace.axes import AXES, counted, timed

Json = dict[str, Any]

AREAS = ("auc_1", "auc_2", "alc_1")
EXIT_SCORES = ("top5", "nll", "brier", "ece", "auroc", "augrc")
IMAGE_SCORES = {"destructive_overthinking": "overthinking", "wasted_cost": "wasted", "flips": "flips"}
#: Of the falls of the true class's probability that were counted, the one that still is.
FALL = "0.1"
META = (
    "device", "engine", "engine_requested", "precision", "tf32", "cache", "threads", "seed", "num_exits", "batch_sizes",
    "clocks", "stop", "queue_wait_known", "stopped_because", "answers_agree", "disturbances", "watch", "notes",
)  # fmt: skip
EARLY_STOP = (
    "policy", "stop", "batch_size", "images", "accuracy", "final_accuracy", "mean_exit", "latency", "policy_share",
)  # fmt: skip


def upgraded(old: Json) -> Json:
    """A record of schema 1 as one of schema 2; fields that both have in common are passed on unread."""
    new = {key: value for key, value in old.items() if key not in ("costs", "stopping", "reference")}
    stopping = old.get("stopping") or {}
    images = stopping.get("images") or {}
    improvable = images.get("hindsight_improvability") or []
    new["schema_version"] = 2
    new["exits"] = [_exit(entry, improvable) for entry in old.get("exits", [])]
    new["macs_by_execution"] = (old.get("costs") or {}).get("macs_by_execution", {})
    for block in ("scores", "timed_scores"):
        new[block] = {axis: _picked(areas, AREAS) for axis, areas in (old.get(block) or {}).items()}
    new["images"] = {name: images[key] for key, name in IMAGE_SCORES.items() if key in images}
    if FALL in images.get("non_monotone", {}):
        new["images"]["falls"] = images["non_monotone"][FALL]
    blocks = {
        "reference": _reference(old.get("reference") or {}),
        "stopping": _stopping(stopping.get("stopping") or {}),
        "timing": _timing(old.get("timing") or {}),
        "robustness": _noise(old.get("robustness") or {}),
    }
    new |= blocks
    return {key: value for key, value in new.items() if value != {} or key not in blocks}


def _picked(block: Mapping[str, Any], names: tuple[str, ...]) -> Json:
    """The named items that are there and not null."""
    return {name: block[name] for name in names if block.get(name) is not None}


def _exit(old: Json, improvable: list[float | None]) -> Json:
    scores = _picked(old, EXIT_SCORES)
    k = old["k"]
    if k < len(improvable) and improvable[k] is not None:
        scores["improvable"] = improvable[k]
    costs = {axis: old[axis] for axis in counted() if axis in old}
    return {
        "k": k,
        "costs": costs,
        "prefix_costs": {"macs": old["macs_prefix"]},
        "accuracy": old["accuracy"],
        "scores": scores,
    }


def _reference(old: Json) -> Json:
    return {**_picked(old, ("method", "options")), "costs": _picked(old, tuple(AXES))} if old else {}


def _stopping(old: Json) -> Json:
    if not old:
        return {}
    threshold, batch = old["threshold"], old["budgeted_batch"]
    patience = old["patience"]
    risk = [row for row in old.get("risk_control", []) if row["risk"] == "gap"]
    points = {budget: point and point["accuracy"] for budget, point in old.get("at_budget", {}).items()}
    return {
        **_picked(old, ("stop", "fitted_on", "oracle")),
        "budgets": {"confidence": {"macs": points}},
        "curves": {
            "confidence": {"settings": threshold["thresholds"], **_picked(threshold, ("accuracy", "cost"))},
            "budgeted_batch": {"settings": batch["q"], **_picked(batch, ("accuracy", "cost"))},
            "patience": {
                "settings": [float(row["patience"]) for row in patience],
                "accuracy": [row["accuracy"]["value"] for row in patience],
                "cost": [row["cost"] for row in patience],
            },
            "risk_control": {
                "settings": [row["epsilon"] for row in risk],
                "accuracy": [row["accuracy"] for row in risk],
                "cost": [row["cost"] for row in risk],
            },
        },
    }


def _timing(old: Json) -> Json:
    if not old:
        return {}
    meta = old["meta"]
    head, *others = (str(size) for size in meta["batch_sizes"])
    first = {**old, timed()[0]: old}
    batches = {head: _batch(first, meta), **{size: _batch(old["batches"][size], meta) for size in others}}
    early = [_picked(stop, EARLY_STOP) for stop in meta.get("early_stop", [])]
    return {"meta": {**_picked(meta, META), "early_stop": early}, "batches": batches, "notes": old["notes"]}


def _batch(old: Json, meta: Json) -> Json:
    clocks = {clock: _clock(old[clock], clock, meta) for clock in timed() if old.get(clock)}
    names = ("rounds", "inferences_per_round", "stopped_because", "comparable", "reasons")
    return {**_picked(old, names), "clocks": clocks}


def _clock(old: Json, clock: str, meta: Json) -> Json:
    block: Json = {
        **_picked(old, ("clock", "stop", "throughput", "queue_share")),
        "prefix_stop": meta["stop"][clock]["prefix"],
        "reference_full": _unmarked(old["reference_full"]),
    }
    for name in ("run_through", "ratio_to_reference", "prefix", "prefix_ratio_to_reference"):
        block[name] = [_unmarked(row) for row in old.get(name, [])]
    block["executions"] = {
        name: {part: [_unmarked(row) for row in rows] for part, rows in execution.items()}
        for name, execution in old.get("executions", {}).items()
    }
    return block


def _unmarked(row: Json) -> Json:
    """Without the mark "real" or "simulated", which now stands once per block."""
    return {key: value for key, value in row.items() if key != "stop"}


def _noise(old: Json) -> Json:
    if not old:
        return {}
    scores = ("final_accuracy", "accuracy", "cost")
    return {
        **_picked(old, ("images", "chance")),
        "clean": {policy: _picked(row, scores) for policy, row in old["clean"].items()},
        "rows": [_picked(row, ("policy", "kind", "mode", "kept", *scores)) for row in old["rows"]],
    }
