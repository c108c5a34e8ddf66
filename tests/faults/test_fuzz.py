"""Mutated records, archives, recipes, overrides and plans: accepted, or refused in one line; nothing crashes or hangs.

``pytest -m slow`` tries a share, ``ANYTIME_BENCH_FAULTS=full pytest -m slow tests/faults/test_fuzz.py`` all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import generated_records as generated
from support.fuzz import count, mutated_bytes, mutated_json, odd_array, survive

from anytime_bench.errors import UserError
from anytime_bench.files import npz_bytes
from anytime_bench.leaderboard.page import record_page
from anytime_bench.records.compare import compare_records
from anytime_bench.records.record import content_hash
from anytime_bench.records.verify import examine
from anytime_bench.runs.plan import resolve, resolve_reference
from anytime_bench.runs.sweep.grid import Grid, make_grid, read_plan_file
from anytime_bench.training.config import parsed_overrides
from anytime_bench.training.recipes import recipe_for

SLOW = pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["few", "many"])
#: One in so many accepted records is compared and shown on a page too.
SHOWN = 40


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    return generated.save(folder, "quick", exits=3, images=60, deadlines=True)


def write(folder: Path, content: dict[str, Any], npz: bytes) -> Path:
    """A record sealed again, and its trace, as the only ones in ``folder``."""
    for old in folder.glob("*"):
        old.unlink()
    artifacts = content.get("artifacts")
    trace = artifacts.get("trace") if isinstance(artifacts, dict) else None
    if isinstance(trace, dict):
        trace |= {"sha256": hashlib.sha256(npz).hexdigest(), "bytes": len(npz)}
    content["record_id"] = content_hash(content)
    path = folder / f"{content['record_id']}.json"
    path.with_suffix(".npz").write_bytes(npz)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def judge(path: Path, rng: np.random.Generator) -> None:
    """All that reads a record: verify, and for some a comparison and the page."""
    record, faults, _ = examine(path)
    assert all("\n" not in fault for fault in faults), faults
    if record is None:
        raise UserError(faults[0])
    if rng.integers(SHOWN) == 0:
        compare_records(path, path)
        record_page([path])


#: Cases of the full counts that once ended in a traceback or in a fault of several lines.
CRASHED = {
    "records": (1517, 1643, 3404, 6810, 7103, 8409),
    "archives": (100, 275, 306, 463, 477, 661, 870, 932, 952, 972, 973),
}

Attack = Callable[[np.random.Generator], None]


@pytest.fixture
def attacks(record: Path, tmp_path: Path) -> dict[str, Attack]:
    """How a record, and how its trace, is mutated and then read."""
    content, npz = json.loads(record.read_text()), record.with_suffix(".npz").read_bytes()
    with np.load(record.with_suffix(".npz")) as archive:
        arrays = {name: archive[name] for name in archive.files}

    def records(rng: np.random.Generator) -> None:
        if rng.integers(5) == 0:
            path = tmp_path / record.name
            path.write_bytes(mutated_bytes(record.read_bytes(), rng))
        else:
            try:
                path = write(tmp_path, mutated_json(content, rng), npz)
            except ValueError as error:
                raise UserError(f"no forger can seal it: {error}") from error
        judge(path, rng)

    def archives(rng: np.random.Generator) -> None:
        if rng.integers(2):
            changed = mutated_bytes(npz_bytes(arrays, quick=bool(rng.integers(2))), rng)
        else:
            names = rng.choice(list(arrays), int(rng.integers(1, 3)))
            changed = npz_bytes({**arrays, **{name: odd_array(arrays[name], rng) for name in names}}, quick=True)
        judge(write(tmp_path, dict(content), changed), rng)

    return {"records": records, "archives": archives}


@SLOW
@pytest.mark.parametrize("kind", ["records", "archives"])
def test_mutated(attacks: dict[str, Attack], kind: str, slow: bool) -> None:
    survive(kind, count(kind, slow), attacks[kind])


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in CRASHED.items() for case in cases])
def test_what_once_crashed(attacks: dict[str, Attack], kind: str, case: int) -> None:
    survive(kind, 1, attacks[kind], first=case)


RECIPE = {
    "reference": {"method": "serial_ce", "options": {"width": 8}},
    "training": {"epochs": 3, "lr": 0.1, "optimizer": "sgd", "milestones": [1, 2], "schedule": "step"},
    "augment": {"crop_padding": 1, "flip": True},
    "options": {"width": 16, "stem_pool": False},
    "evaluation": {"timing_rounds": 0, "noise": "none", "timing_batches": [1, 64]},
    "methods": {"sdn": {"training": {"lr": 0.2}, "options": {"width": 8}, "why": "it may"}},
}


@SLOW
def test_mutated_recipes_and_overrides(tmp_path: Path, slow: bool) -> None:
    file = tmp_path / "recipe.yaml"
    words = [f"{section}.{key}={value}" for section, values in RECIPE.items() for key, value in values.items()]

    def attack(rng: np.random.Generator) -> None:
        text = yaml.safe_dump(mutated_json(RECIPE, rng), allow_unicode=True).encode("utf-8", "surrogatepass")
        file.write_bytes(text if rng.integers(2) else mutated_bytes(text, rng))
        overrides = [mutated_bytes(str(rng.choice(words)).encode(), rng).decode(errors="replace")]
        method = ("serial_ce", "sdn", "cascaded_td")[rng.integers(3)]
        values = parsed_overrides(overrides if rng.integers(2) else [])
        recipe = recipe_for("digits", str(file), "cpu", (1, 8, 8))
        resolve_reference(recipe, values)
        resolve(method, recipe, values)

    survive("recipes", count("recipes", slow), attack)


PLAN = {
    "methods": ["serial_ce", "sdn"], "tasks": ["digits"], "seeds": "0-4", "overrides": ["epochs=5"], "jobs": 2,
    "plugins": [], "out": "runs", "device": "cpu", "existing": "skip", "only": ["sdn@digits@0"], "time_limit": 60,
    "slurm": {"partition": "main", "cpus_per_task": 4, "minutes": 120, "extra": {"qos": "x"}},
}  # fmt: skip


@SLOW
def test_mutated_plans(tmp_path: Path, slow: bool) -> None:
    file = tmp_path / "plan.yaml"

    def attack(rng: np.random.Generator) -> None:
        text = yaml.safe_dump(mutated_json(PLAN, rng), allow_unicode=True).encode("utf-8", "surrogatepass")
        file.write_bytes(text if rng.integers(2) else mutated_bytes(text, rng))
        grid = make_grid(read_plan_file(file))
        assert Grid.from_json(grid.to_json()) == grid
        grid.cells()
        grid.repeat_command([])

    survive("plans", count("plans", slow), attack)
