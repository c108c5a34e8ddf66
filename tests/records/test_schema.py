"""Records of schema 1 are read into today's form; what is not a record is refused in one line, never by a traceback."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import generated_records as generated

from anytime_bench.errors import UserError
from anytime_bench.leaderboard.page import record_page
from anytime_bench.methods.contract import MethodCard
from anytime_bench.records import store
from anytime_bench.records.record import Card, content_hash
from anytime_bench.records.verify import verify_record

#: Published in November 2026: nine exits, timed at two batch sizes, examined under noise.
(SCHEMA1,) = (Path(__file__).parents[1] / "golden" / "schema1").rglob("*.json")


def test_a_published_record_of_schema_1_still_verifies() -> None:
    record, faults = verify_record(SCHEMA1)
    assert faults == []
    assert record is not None
    assert record.schema_version == 2
    assert record.record_id == SCHEMA1.stem


def test_the_numbers_of_schema_1_are_passed_on() -> None:
    old, new = json.loads(SCHEMA1.read_text()), store.load(SCHEMA1)
    assert [entry["ece"] for entry in old["exits"]] == [entry.scores["ece"] for entry in new.exits]
    for axis in ("ticks", "macs"):
        assert [entry[axis] for entry in old["exits"]] == [entry.costs[axis] for entry in new.exits]
        assert old["scores"][axis]["alc_1"] == new.scores[axis]["alc_1"].model_dump()
    assert new.timing is not None
    assert new.reference is not None
    assert new.robustness is not None
    assert new.stopping is not None
    assert old["reference"]["latency"] == new.reference.costs["latency"] == new.timing.latency.reference_full.p50
    assert (
        old["timing"]["batches"]["64"]["latency"]["throughput"] == new.timing.batches["64"].clocks["latency"].throughput
    )
    assert old["timing"]["prefix_ratio_to_reference"][0]["low"] == new.timing.latency.prefix_ratio_to_reference[0].low
    assert old["timing"]["early_stop"][1]["accuracy"] == new.timing.meta.early_stop[1].accuracy
    assert old["stopping"]["images"]["wasted_cost"] == new.images["wasted"].model_dump()
    assert old["stopping"]["stopping"]["threshold"]["cost"] == new.stopping.curves["confidence"].cost
    kept = [row["kept"]["value"] for row in old["robustness"]["rows"]]
    assert kept == [row.kept.value for row in new.robustness.rows if row.kept]


def test_a_record_survives_storage_and_says_nothing_twice(tmp_path: Path) -> None:
    record, arrays = generated.make_record("quick", gpu=True)
    path = store.save(tmp_path, record, arrays)
    again = store.load(path)
    assert again.content() == {**record.content(), "record_id": path.stem, "artifacts": again.content()["artifacts"]}
    assert content_hash(json.loads(path.read_text())) == path.stem


def test_every_field_of_a_methods_card_can_be_stored() -> None:
    assert set(Card.model_fields) == set(MethodCard.__dataclass_fields__)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything below a JSON value, containers included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from leaves(item, (*path, key))


ODDITIES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, 10**30, "", "x", "\x00<b>", "9" * 400, [], {}, [[]], {"value": []}, [None], {"a\nb": 1},
)  # fmt: skip


def mutated(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy with one to three places deleted or replaced by something odd, sealed anew."""
    copy = json.loads(json.dumps(data))
    for _ in range(rng.randint(1, 3)):
        *way, last = rng.choice(list(leaves(copy)))
        place = copy
        for step in way:
            place = place[step]
        if rng.random() < 0.3:
            place.pop(last)
        else:
            place[last] = rng.choice(ODDITIES)
    return {**copy, "record_id": content_hash(copy)}


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_records_are_read_or_refused_in_one_line(tmp_path: Path, count: int) -> None:
    """Sealed, so that the hash does not save anyone. What is read can be shown."""
    rng = random.Random(count)
    fresh = json.loads(generated.save(tmp_path / "fresh", "quick", images=60, exits=2).read_text())
    read, refusals = 0, []
    for number in range(count):
        data = mutated(fresh if number % 2 else json.loads(SCHEMA1.read_text()), rng)
        path = tmp_path / f"{data['record_id']}.json"
        path.write_text(json.dumps(data))
        try:
            store.load(path)
            read += 1
        except UserError as error:
            refusals.append(str(error))
        path.unlink()
    assert not [text for text in refusals if "\n" in text or len(text) > 1000]
    print(f"{count} mutated records: {read} read, the others refused in one line")
    assert count // 20 < read < count


def test_what_is_read_can_be_shown(tmp_path: Path) -> None:
    """Mutations of what a page quotes but no score depends on."""
    path = generated.save(tmp_path, "quick", images=60, exits=2)
    data = json.loads(path.read_text())
    data["method"]["card"] |= {"title": "<script>", "deviations": ["\x00"], "year": -5}
    data["environment"] = {"a": [{"b": None}, [1, [2]]], "device_name": None}
    data["method"]["options"] = {"x": {"y": [None, {}]}}
    data["record_id"] = content_hash(data)
    new = path.with_name(f"{data['record_id']}.json")
    new.write_text(json.dumps(data))
    new.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes())
    assert "<script>alert" not in record_page([new])
