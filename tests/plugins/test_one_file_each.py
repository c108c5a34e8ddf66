"""One plugin file per kind and nothing but ``--plugin``: what it adds is run, stored, shown and verified."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anytime_bench.cli.main import app
from anytime_bench.registry import Registry

SCORE = """
import anytime_bench as ab

ab.register_score("error", lambda trace, cost: 1 - trace.accuracy, title="Error rate", better="lower")
ab.register_score("unsure", lambda trace, cost: trace.confidence[0], title="First confidence", per="image")
"""

RULE = """
import anytime_bench as ab

class Always(ab.FittedRule):
    settings = (0, 1)

    def stop(self, answers, setting):
        return answers.confidence[-1] >= (0 if setting == 0 else 2)

@ab.register_stopping_rule
class Coin(ab.StoppingRule):
    name, title = "coin", "coin toss"

    def fit(self, val, cost):
        return Always()
"""

CORRUPTION = """
import anytime_bench as ab

ab.register_corruption("negative", lambda pixels, draws: 1 - pixels)
"""

TASK = """
import numpy as np
import anytime_bench as ab

def read(data_root, argument):
    rng = np.random.default_rng(0)
    def split(n):
        labels = np.arange(n) % 2
        images = rng.integers(0, 60, (n, 1, 8, 8)) + 150 * labels[:, None, None, None]
        return ab.Split(images.astype(np.uint8), labels)
    return ab.make_task("stripes", "Stripes", ("dark", "light"), split(256), split(64), split(64))

ab.register_task("stripes", read)
"""


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """What a plugin registers is gone after the test, as it is from process to process."""
    with forgotten():
        yield


def forgotten() -> ExitStack:
    stack = ExitStack()
    for registry in list(Registry.all.values()):
        stack.enter_context(registry.temporary())
    stack.callback(lambda: [sys.modules.pop(n) for n in list(sys.modules) if n.startswith("anytime_bench_plugin_")])
    return stack


def bench(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return str(result.output)


def run(folder: Path, plugin: Path, *more: object, method: str = "sdn", epochs: int = 1) -> dict:
    out = bench("run", "-m", method, "--plugin", plugin, "--out", folder / "runs", "--json", f"epochs={epochs}",
                "evaluation.timing_rounds=0", *more)  # fmt: skip
    return json.loads(out.strip().splitlines()[-1])


def boards(folder: Path, record: dict, *plugin: object) -> dict[str, str]:
    """The board of one published record: its files by suffix."""
    bench("publish", record["path"], "--results", folder / "results", *plugin)
    bench("leaderboard", "build", "--results", folder / "results", "--out", folder / "boards", *plugin)
    bench("leaderboard", "check", "--results", folder / "results", "--out", folder / "boards", *plugin)
    board = folder / "boards" / record["task"]["name"] / "cpu"
    return {suffix: board.with_suffix(suffix).read_text() for suffix in (".csv", ".md", ".html")}


def test_a_score_is_in_record_board_and_verify(tmp_path: Path) -> None:
    plugin = tmp_path / "scores.py"
    plugin.write_text(SCORE)
    assert "Error rate" in bench("list", "scores", "--plugin", plugin)
    record = run(tmp_path, plugin)
    assert [entry["scores"]["error"] for entry in record["exits"]] == pytest.approx(
        [1 - entry["accuracy"]["value"] for entry in record["exits"]]
    )
    assert 0 < record["images"]["unsure"]["low"] <= record["images"]["unsure"]["value"] <= 1
    bench("verify", record["path"], "--plugin", plugin)
    files = boards(tmp_path, record, "--plugin", plugin)
    row = next(csv.DictReader(files[".csv"].splitlines()))
    assert float(row["score_error"]) == pytest.approx(record["exits"][-1]["scores"]["error"], rel=1e-5)
    assert float(row["score_unsure"]) == pytest.approx(record["images"]["unsure"]["value"], rel=1e-5)
    for title in ("Error rate", "First confidence"):
        assert title in files[".md"]
        assert title in files[".html"]
    with forgotten():
        pass
    for registry in Registry.all.values():
        for name in ("error", "unsure"):
            registry._added.pop(name, None)
    said = bench("verify", record["path"], status=1)
    assert "images.unsure comes from" in said
    assert "scores.py" in said
    assert "--plugin" in said


def test_a_forged_score_of_a_plugin_is_a_fault(tmp_path: Path) -> None:
    from anytime_bench.records.record import content_hash

    plugin = tmp_path / "scores.py"
    plugin.write_text(SCORE)
    path = Path(run(tmp_path, plugin)["path"])
    stored = json.loads(path.read_text())
    stored["images"]["unsure"]["value"] += 0.01
    stored["record_id"] = content_hash(stored)
    forged = path.with_name(f"{stored['record_id']}.json")
    forged.write_text(json.dumps(stored))
    forged.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes())
    assert "images.unsure.value is" in bench("verify", forged, "--plugin", plugin, status=1)


@pytest.mark.slow
def test_a_stopping_rule_is_in_the_stopping_table(tmp_path: Path) -> None:
    plugin = tmp_path / "rule.py"
    plugin.write_text(RULE)
    assert "coin toss" in bench("list", "stopping rules", "--plugin", plugin)
    record = run(tmp_path, plugin, "evaluation.learned_rules=true")
    assert set(record["stopping"]["budgets"]) >= {"confidence", "patience", "trace_gru", "eenet", "coin", "oracle"}
    for points in record["stopping"]["budgets"].values():
        for budget, point in points["macs"].items():
            best = record["stopping"]["budgets"]["oracle"]["macs"][budget]
            # A budget is spent on the validation split; on the test split a rule may spend a little more.
            assert point is None or best is None or point["value"] <= best["value"] + 0.02
    bench("verify", record["path"], "--plugin", plugin)
    files = boards(tmp_path, record, "--plugin", plugin)
    for title in ("coin toss", "trace GRU", "EENet", "oracle"):
        assert title in files[".md"].split("## Stopping at a budget")[1]
        assert title in files[".html"]


@pytest.mark.slow
def test_a_corruption_is_in_the_noise_table(tmp_path: Path) -> None:
    plugin = tmp_path / "corruption.py"
    plugin.write_text(CORRUPTION)
    record = run(tmp_path, plugin, "--noise", "negative", "evaluation.noise_images=40", epochs=8)
    files = boards(tmp_path, record, "--plugin", plugin)
    assert "negative" in files[".md"].split("## Persistent noise")[1]
    assert "noise_left_negative" in files[".csv"].splitlines()[0]
    bench("verify", record["path"])


def test_a_task_trains(tmp_path: Path) -> None:
    plugin = tmp_path / "task.py"
    plugin.write_text(TASK)
    record = run(tmp_path, plugin, "--task", "stripes", "lr=0.02", epochs=2)
    assert record["status"] == "ok"
    assert record["task"]["name"] == "stripes"
    assert len(record["training"]["final_losses"]) > 0
    assert record["exits"][-1]["accuracy"]["value"] >= 0.5


def test_a_method_runs(tmp_path: Path, plugin_file: Path) -> None:
    record = run(tmp_path, plugin_file, method="two_exits")
    assert [entry["costs"]["ticks"] for entry in record["exits"]] == [1, 2]
    bench("verify", record["path"])
