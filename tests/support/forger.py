"""A forger who knows the suite: edits a record and its arrays, derives every score and computes every hash anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anytime_bench.files import npz_bytes
from anytime_bench.records import store
from anytime_bench.records.record import Record, content_hash
from anytime_bench.records.scoring import derive_again

Change = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Evidence:
    """What a forger starts from: a trained record, the same row with another seed, a timed one, and an empty folder."""

    trained: Path
    other_seed: Path
    timed: Path
    folder: Path

    def forged(
        self, change: Change | None = None, arrays: Change | None = None, *, base: str = "trained",
        scores: bool = True, last: Change | None = None, root: str = "forged",
    ) -> Path:  # fmt: skip
        """``base`` with its content and arrays changed, sealed; ``scores`` derives anew, ``last`` edits after that."""
        path = getattr(self, base)
        record = store.load(path)
        held, content = dict(store.load_arrays(path, record)), record.content()
        if arrays:
            arrays(held)
        if change:
            change(content)
        if scores:
            derived = derive_again(Record.model_validate({**content, "record_id": ""}), held)
            content |= derived.model_dump(mode="json", exclude_none=True)
        data = npz_bytes(held, quick=True)
        content["artifacts"]["trace"] = {"path": "", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        if last:
            last(content)
        content["record_id"] = content_hash(content)
        folder = self.folder / root / content["task"]["name"] / content["device"] / content["method"]["name"]
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{content['record_id']}.json"
        target.with_suffix(".npz").write_bytes(data)
        target.write_text(json.dumps(content))
        return target


def set_to(place: str, value: Any) -> Change:
    """An edit that puts ``value`` at a dotted place; a function is applied to what is there."""

    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        *way, last = place.split(".")
        for step in way:
            inner = inner[int(step)] if isinstance(inner, list) else inner.setdefault(step, {})
        key = int(last) if isinstance(inner, list) else last
        inner[key] = value(inner[key]) if callable(value) else value

    return change


def all_of(*changes: Change) -> Change:
    """Several edits one after the other."""
    return lambda content: [change(content) for change in changes]


def every_exit(place: str, factor: float) -> Change:
    """A cost of every exit multiplied, kept a whole number where it was one."""

    def change(content: dict[str, Any]) -> None:
        for entry in content["exits"]:
            costs = entry[place.partition(".")[0]]
            axis = place.partition(".")[2]
            costs[axis] = type(costs[axis])(costs[axis] * factor)

    return change


def answer_right(exits: slice, images: int | None = None, split: str = "test") -> Change:
    """Arrays in which these exits answer ``images`` of their wrong images rightly (None: all), ranks included."""

    def change(arrays: dict[str, Any]) -> None:
        for name in (f"{split}_predictions", f"{split}_true_rank", f"{split}_confidence", f"{split}_spread"):
            arrays[name] = arrays[name].copy()
        labels, predictions = arrays[f"{split}_labels"], arrays[f"{split}_predictions"]
        for k in range(len(predictions))[exits]:
            wrong = (predictions[k] != labels).nonzero()[0][:images]
            predictions[k, wrong] = labels[wrong]
            arrays[f"{split}_true_rank"][k, predictions[k] == labels] = 0
            for name in ("confidence", "spread"):
                arrays[f"{split}_{name}"][k, wrong] = 0

    return change
