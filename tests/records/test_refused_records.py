"""What is no record, a record of odd form, and one that lacks what its protocol demands: refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.forged_records import faults_of, reseal

from anytime_bench.errors import UserError
from anytime_bench.records.protocol import unexplained_nulls
from anytime_bench.records.verify import record_paths, verify_record

HOSTILE = {
    "deep nesting": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nesting that parses": b'{"schema_version": 2, "a":' + b"[" * 60 + b"]" * 60 + b"}",
    "NaN": b'{"schema_version": 2, "a": NaN}',
    "infinity": b'{"schema_version": 2, "a": -Infinity}',
    "a number beyond float64": b'{"schema_version": 2, "a": 1e999}',
    "a number of many digits": b'{"schema_version": 2, "a": ' + b"9" * 5000 + b"}",
    "a lone surrogate": b'{"schema_version": 2, "a": "\\ud800"}',
    "no UTF-8": b'{"schema_version": 2, "a": "\xff"}',
    "a list": b"[1, 2]",
    "a number": b"7",
    "nothing": b"",
    "version true": b'{"schema_version": true}',
    "version text": b'{"schema_version": "2"}',
    "version list": b'{"schema_version": [2]}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{'a' * 64}.json"
    path.write_bytes(HOSTILE[name])
    (fault,) = faults_of(path)
    assert str(path) in fault
    assert "\n" not in fault
    assert len(fault) < 500


ODD: dict[str, Any] = {
    "text for a number": lambda d: d["exits"][0]["accuracy"].update(value="0.5"),
    "true for a number": lambda d: d["exits"][0]["accuracy"].update(value=True),
    "a list for a block": lambda d: d.update(stopping=[]),
    "a number for a card": lambda d: d["method"].update(card=3),
    "text for a list": lambda d: d["method"]["card"].update(deviations="none"),
    "no reference": lambda d: d.pop("reference"),
    "a reference without MACs": lambda d: d["reference"]["costs"].pop("macs"),
    "a negative cost": lambda d: d["exits"][0]["costs"].update(macs=-1),
    "exits out of order": lambda d: d["exits"].reverse(),
    "a batch size without a block": lambda d: d["timing"]["meta"].update(batch_sizes=[1, 7]),
    "a block without its clock": lambda d: d["timing"]["batches"]["1"].update(clocks={}),
    "one class": lambda d: d["task"].update(classes=1),
}


@pytest.mark.parametrize("name", ODD)
def test_a_sealed_record_of_odd_form_is_refused_with_the_field_named(path: Path, name: str) -> None:
    (fault,) = faults_of(reseal(path, ODD[name]))
    assert "breaks the schema at" in fault
    assert "\n" not in fault


DEMANDED = (
    "exits.2.scores.ece", "exits.0.accuracy", "scores.macs.auc_1", "timed_scores", "stopping",
    "stopping.curves.confidence", "timing", "timing.batches.1.clocks.latency.run_through", "scores", "images.flips",
    "reference.costs.latency", "stopping.budgets.oracle", "timing.meta.processes",
    "timing.batches.64.widest", "timing.batches.1.clocks.latency.a_a", "timing.batches.1.clocks.latency.processes",
    "timing.dispatch", "span", "span.lanes",
)  # fmt: skip


@pytest.mark.parametrize("drop", DEMANDED)
def test_a_record_that_lacks_what_its_protocol_demands_is_refused(path: Path, drop: str) -> None:
    def forget(data: dict[str, Any]) -> None:
        *way, last = drop.split(".")
        for step in way:
            data = data[int(step)] if isinstance(data, list) else data[step]
        data.pop(last)

    faults = faults_of(reseal(path, forget))
    assert any("missing" in fault or "breaks the schema" in fault for fault in faults), faults


@pytest.mark.parametrize("start", ["timing_batch64_latency_twin", "span_"])
def test_times_without_a_copy_of_the_reference_or_without_parallel_time_are_of_an_older_protocol(
    path: Path, start: str
) -> None:
    """What the raw data do not give is nowhere missing, so the raw data themselves are demanded."""

    def forget(data: dict[str, Any]) -> None:
        if start == "span_":
            data.pop("span")
            data["timed_scores"].pop("span")
            data["scores"].pop("span_macs")
            data["reference"]["costs"].pop("span")
        else:
            data["timing"]["batches"]["64"]["clocks"]["latency"].pop("a_a")

    def drop(arrays: dict[str, Any]) -> None:
        for name in [name for name in arrays if name.startswith(start)]:
            del arrays[name]

    forged = reseal(path, forget, drop)
    assert any(f"holds no array {start}" in fault for fault in faults_of(forged)), faults_of(forged)
    older = reseal(forged, lambda data: data.update(protocol_version="1"))
    assert not any("holds no array" in fault for fault in faults_of(older))


def test_a_null_without_a_reason_is_a_fault() -> None:
    assert unexplained_nulls({"macs": {"auc_1": None}}, "scores") == ["scores.macs.auc_1"]
    assert unexplained_nulls([{"auroc": None}, {"nll": None}], "exits.scores") == ["exits.scores.nll"]


def test_folders_without_records_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record below"):
        record_paths([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        record_paths([tmp_path / "nothing.json"])
    assert verify_record(tmp_path / "nothing.json")[0] is None
