"""Which records stand in one group and one row: timing in one way, and seeds that diverged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import generated_records as generated

from anytime_bench.leaderboard.build import jobs
from anytime_bench.records.compare import compare_records
from anytime_bench.records.conditions import Conditions
from anytime_bench.records.consistency import repeated_seeds
from anytime_bench.records.entries import Entry, Group, groups, with_guesses
from anytime_bench.records.record import Record

RECORD, ARRAYS = generated.make_record("quick", images=60, exits=2)


def entry(seed: int = 0, *, meta: dict[str, Any] | None = None, **changes: Any) -> Entry:
    """Seed ``seed`` of one row; ``meta`` changes how it was timed, ``changes`` the record."""
    assert RECORD.training is not None
    assert RECORD.timing is not None
    timing = RECORD.timing.model_copy(update={"meta": RECORD.timing.meta.model_copy(update=meta or {})})
    usual = {"training": RECORD.training.model_copy(update={"seed": seed}), "timing": timing, "command": run(seed)}
    record = RECORD.model_copy(update={**usual, **changes}).sealed()
    return Entry(Path(f"{record.record_id}.json"), record)


def run(seed: int, more: str = "") -> str:
    return f"anytime-bench run --method quick --seed {seed} --out out{more}"


def diverged(seed: int, **changes: Any) -> Entry:
    """A failure of the first schema: it states no training, and its seed in the command alone."""
    usual = {"training": None, "reason": "the loss became nan in epoch 3 of 30", "command": run(seed)}
    record = generated.failed(RECORD, **{**usual, **changes}).sealed()
    return Entry(Path(f"{record.record_id}.json"), record)


def seeds(group: Group) -> list[list[int]]:
    return sorted([each.seed for each in row] for row in group.rows.values())


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"batch_sizes": [64, 1]}, "batch-64"),
        ({"precision": "bf16"}, "precision-bf16"),
        ({"cache": "flushed"}, "cache-flushed"),
        ({"engine_requested": "compile"}, "engine-compile"),
        ({"device": "cpu", "threads": 16}, "threads-16"),
    ],
)
def test_what_was_timed_in_another_way_has_a_board_of_its_own(meta: dict[str, Any], name: str) -> None:
    usual, other = [entry(seed) for seed in (0, 1)], entry(0, meta=meta)
    assert repeated_seeds([*usual, other]) == [], "the same training, timed in two ways"
    made = {job.stem.name: job.group for job in jobs([*usual, other])}
    assert {stem: seeds(group) for stem, group in made.items()} == {
        "generated-cpu": [[0, 1]], f"generated-cpu.{name}": [[0]],
    }  # fmt: skip
    assert any(str(made[f"generated-cpu.{name}"].conditions) in note for note in made[f"generated-cpu.{name}"].notes)


def test_the_usual_conditions_are_the_device_s_board_however_many_others_there_are() -> None:
    others = [entry(seed, meta={"batch_sizes": [64, 1]}) for seed in range(3)]
    made = {job.stem.name: job.group.conditions for job in jobs([*others, entry(0)])}
    assert made == {"generated-cpu": Conditions(), "generated-cpu.batch-64": Conditions(batch=64)}


def test_a_board_of_unusual_conditions_says_so_though_it_is_the_only_one() -> None:
    (alone,) = groups([entry(0, meta={"batch_sizes": [64, 1]})])
    assert "batch 64" in alone.notes[0]
    assert groups([entry(0)])[0].notes == []


def test_a_gpu_s_times_do_not_ask_for_the_host_s_threads() -> None:
    both = [entry(seed, meta={"device": "cuda:0", "threads": 8 * (seed + 1)}) for seed in (0, 1)]
    assert [seeds(group) for group in groups(both)] == [[[0, 1]]]


def test_a_seed_without_times_stands_with_the_seeds_of_its_row() -> None:
    timed = [entry(0, meta={"threads": 4}), entry(1, meta={"threads": 4})]
    rivals = [entry(seed, method=RECORD.method.model_copy(update={"name": "rival"})) for seed in range(3)]
    made = {group.conditions.threads: seeds(group) for group in groups([*timed, *rivals, entry(2, timing=None)])}
    assert made == {0: [[0, 1, 2]], 4: [[0, 1, 2]]}
    (fault,) = repeated_seeds([*timed, entry(1, timing=None)])
    assert "A seed is run once: remove one of the two with its files (.json and .npz)." in fault


def test_times_taken_in_two_ways_are_left_out_of_a_comparison(tmp_path: Path) -> None:
    mine = generated.save(tmp_path, "quick", images=60, exits=2)
    assert RECORD.timing is not None
    timing = RECORD.timing.model_copy(update={"meta": RECORD.timing.meta.model_copy(update={"precision": "bf16"})})
    theirs = generated.save(tmp_path, "rival", images=60, exits=2, change={"timing": timing})
    compared = compare_records(mine, theirs)
    assert not [row.score for row in compared.rows if "latency" in row.score]
    assert [row.score for row in compare_records(mine, mine).rows if "latency" in row.score]
    assert "bf16" in compared.notes[0]


def test_a_diverged_seed_that_states_no_recipe_counts_in_the_row_of_its_command() -> None:
    recipe = {"training": {"lr": 0.03}}
    assert RECORD.training is not None
    slower = [
        entry(seed, training=RECORD.training.model_copy(update={"seed": seed, "recipe": recipe, "recipe_sha256": "b"}),
              command=run(seed, " training.lr=0.03"))
        for seed in (0, 1)
    ]  # fmt: skip
    failed = diverged(0)
    (group,) = groups([*(entry(seed) for seed in (1, 2, 3)), *slower, failed])
    assert seeds(group) == [[0, 1], [0, 1, 2, 3]]
    assert [each for row in group.rows.values() for each in row if each.diverged] == [failed]
    assert f"{failed.record.record_id[:12]}, seed 0 of quick," in group.notes[0]


@pytest.mark.parametrize(
    ("failed", "note"),
    [
        (diverged(0, command=run(0, " epochs=5")), "none counts it"),
        (diverged(1), "counts in its place"),
        (diverged(0, reason="out of memory"), None),
    ],
)
def test_one_that_cannot_be_matched_is_told_and_replaces_nobody(failed: Entry, note: str | None) -> None:
    (group,) = groups([*(entry(seed) for seed in (1, 2)), failed])
    assert seeds(group) == [[1, 2]]
    assert group.absent == [failed]
    assert [note in each for each in group.notes] == [True] if note else group.notes == []


def test_a_failure_stands_with_the_protocol_and_the_data_it_was_made_with() -> None:
    records = [entry(0), entry(0, protocol_version="9"), entry(0, task=RECORD.task.model_copy(update={"sha256": "c"}))]
    failed = diverged(4, reason="out of memory")
    absent = [group.absent for group in groups([*records, failed]) if group.absent]
    assert absent == [[failed]]
    (group,) = [group for group in groups([*records, failed]) if group.absent]
    assert (group.key.protocol_version, group.key.task_sha256) == (RECORD.protocol_version, RECORD.task.sha256)
    assert all(not group.absent for group in groups([records[1], failed]))


def test_a_row_keeps_a_seed_that_was_trained() -> None:
    def stated(seed: int) -> Record:
        assert RECORD.training is not None
        training = RECORD.training.model_copy(update={"seed": seed})
        return generated.failed(RECORD, reason="nan", training=training, created="2000-01-01T00:00:00Z").sealed()

    both = [Entry(Path(f"{record.record_id}.json"), record) for record in map(stated, (0, 1))]
    (group,) = groups([entry(0), entry(1), *both])
    assert [each.diverged for row in group.rows.values() for each in row].count(False) == 1


def test_guesses_are_worth_chance_in_the_order_of_the_seeds() -> None:
    right = np.array([[True, False, True]])
    correct, guesses = with_guesses([diverged(0), entry(1), diverged(2)], [right])
    assert correct.tolist() == [[[False] * 3], right.tolist(), [[False] * 3]]
    assert np.isnan(guesses[1]).all()
    assert guesses[[0, 2]].tolist() == [[0.1], [0.1]]
