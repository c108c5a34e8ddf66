"""A record's run is replanned from the record alone: its options, recipe, reference and source of weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import anytime_bench
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.registry import methods, tasks
from anytime_bench.runs.display import Display
from anytime_bench.runs.rerun import plan_of, weights_of

ROOT = Path(__file__).parents[2]
QUIET = Display(quiet=True)
PUBLISHED = sorted((ROOT / "results" / "digits").glob("*/*/*.json"))
RECIPE = """
reference: {method: plain, options: {}}
training: {epochs: 3, batch_size: 30, lr: 0.2}
augment: {crop_padding: 1}
evaluation: {timing_rounds: 0, resamples: 20}
methods:
  tuner: {training: {lr: 0.05, epochs: 2}, why: "starts from trained weights"}
"""


@pytest.fixture(scope="module")
def specks():
    with methods.temporary(), tasks.temporary():
        load_plugin(str(ROOT / "tests" / "support" / "sweep_plugin.py"))
        yield "specks"


@pytest.mark.parametrize("method", ["plain", "taker", "tuner"])
def test_a_run_is_replanned_when_its_recipe_file_is_gone(specks, tmp_path, method):
    file = tmp_path / "mine.yaml"
    file.write_text(RECIPE)
    record = anytime_bench.run(
        method, specks, overrides=["training.weight_decay=1e-3"], recipe=str(file), out=tmp_path / "runs", display=QUIET
    )
    file.unlink()
    plan = plan_of(record, record.path)
    assert plan.resolved.trained_by.config.recipe() == record.training.recipe
    assert plan.resolved.options == record.method.options
    assert dataclasses.asdict(plan.resolved.config.evaluation) == record.evaluation
    # The folder's name is the hash of everything that decides the weights, the source's recipe included.
    model = weights_of(plan, record)
    assert model.num_exits == len(record.exits)


def test_a_reference_of_ones_own_is_part_of_the_record(tmp_path):
    overrides = {"epochs": 1, "training.train_images": 128, "timing_rounds": 0, "resamples": 20, "width": 4}
    record = anytime_bench.run(
        "serial_ce", "digits", overrides={**overrides, "reference.width": 6}, out=tmp_path, display=QUIET
    )
    assert record.reference.method == "serial_ce"
    assert record.reference.options["width"] == 6
    assert record.method.options["width"] == 4
    plan = plan_of(record, record.path)
    assert plan.reference.options == record.reference.options
    assert plan.reference_costs.macs_prefix[-1] == record.reference.costs["macs"]


def test_a_reference_that_cannot_be_built_says_how_to_change_it(specks, tmp_path):
    with pytest.raises(anytime_bench.UserError, match=r"too small .* reference\.KEY=VALUE sets its options"):
        anytime_bench.run("plain", specks, overrides={"reference": "serial_ce"}, out=tmp_path, display=QUIET)


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED, reason="nothing is published")
def test_published_records_are_replanned_with_their_own_recipes(tmp_path):
    rows: dict[tuple[str, str], Path] = {}
    for path in PUBLISHED:
        data = json.loads(path.read_text())
        if data["status"] == "ok":
            rows.setdefault((data["method"]["name"], json.dumps(data["method"]["options"], sort_keys=True)), path)
    assert rows
    for path in rows.values():
        record: Record = store.load(path)
        plan = plan_of(record, path, out=tmp_path)
        for section, values in record.training.recipe.items():
            own = plan.resolved.trained_by.config.recipe()[section]
            assert {key: own.get(key) for key in values} == values, path
        assert [float(tick) for tick in plan.costs.ticks] == [entry.ticks for entry in record.exits], path
        assert list(plan.costs.macs) == [entry.macs for entry in record.exits], path
        assert plan.costs.parameters == record.parameters, path
        assert plan.reference_costs.macs_prefix[-1] == record.reference.costs["macs"], path
