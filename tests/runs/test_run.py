"""The main job from end to end: a method nobody here wrote is trained, measured, scored and stored like the rest."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anytime_bench
from anytime_bench.files import canonical_json
from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.methods.plugins import load_plugin
from anytime_bench.records import store
from anytime_bench.records.compare import compare_records
from anytime_bench.records.protocol import UNDEFINED, unexplained_nulls
from anytime_bench.records.record import Derived
from anytime_bench.records.scoring import derive_again
from anytime_bench.registry import methods
from anytime_bench.runs.display import Display
from anytime_bench.runs.rerun import noise_on_record
from anytime_bench.scores.catalogue import scores

QUIET = Display(quiet=True)
FAST = ["epochs=2", "timing_rounds=2", "timing_budget=0.2", "timing_processes=1", "timing_batches=[1]"]


def cli(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anytime_bench", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def plugin_run(tmp_path_factory, plugin_file):
    folder = tmp_path_factory.mktemp("plugin")
    done = cli("run", "--plugin", str(plugin_file), "--method", "two_exits", "--json", *FAST, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done


def test_a_plugin_file_is_trained_measured_and_scored_like_any_method(plugin_run):
    folder, record, done = plugin_run
    assert record["status"] == "ok"
    assert [entry["k"] for entry in record["exits"]] == [0, 1]
    assert all(0 <= entry["accuracy"]["low"] <= entry["accuracy"]["value"] <= 1 for entry in record["exits"])
    # 8x8 digits: a 3x3 convolution of 1 -> 16 channels and a linear layer of 1,024 -> 10.
    assert record["exits"][0]["costs"]["macs"] == 64 * 16 * 9 + 16 * 64 * 10
    assert set(record["scores"]) == {"ticks", "macs", "span_macs"}
    assert "latency" in record["timed_scores"]
    assert record["method"]["origin"]["sha256"], "a plugin's record names the file's hash"
    path = folder / record["path"]
    assert path.parent == folder / "runs" / "digits" / "cpu" / "two_exits"
    assert path.with_suffix(".npz").exists()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "accuracy" in done.stderr, "the table of exits is shown"
    assert "next" in done.stderr


@pytest.mark.slow
def test_a_record_is_trained_again_and_a_lie_about_its_training_is_found(tmp_path):
    fast = ["epochs=6", "width=8", "timing_rounds=0"]
    record = anytime_bench.run("serial_ce", "digits", overrides=fast, out=tmp_path / "a", display=QUIET)
    done = cli("verify", "--retrain", str(record.path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 records hold" in done.stdout
    assert "trained again, bit-equal" in done.stdout
    # The same answers, said to come from almost no training: every score still follows from the raw data.
    changed = json.loads(record.path.read_text())
    changed["training"]["recipe"]["training"]["lr"] *= 1e-6
    recipe = canonical_json(changed["training"]["recipe"])
    changed["training"]["recipe_sha256"] = hashlib.sha256(recipe.encode()).hexdigest()
    lie = store.save(
        tmp_path / "b", record.model_validate({**changed, "record_id": ""}), store.load_arrays(record.path, record)
    )
    assert cli("verify", str(lie), cwd=tmp_path).returncode == 0
    done = cli("verify", "--retrain", str(lie), cwd=tmp_path)
    assert done.returncode == 1
    assert "0 of 1 records hold" in done.stdout


def test_every_score_is_recomputed_from_the_npz_alone(plugin_run):
    folder, shown, _ = plugin_run
    path = folder / shown["path"]
    record = store.load(path)
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = {name: archive[name] for name in archive.files}
    again = derive_again(record, arrays)
    for field in Derived.model_fields:
        assert getattr(again, field) == getattr(record, field), field
    assert record.robustness is None


def test_no_stored_score_is_null_without_a_stated_reason(plugin_run):
    folder, shown, _ = plugin_run
    record = store.load(folder / shown["path"])
    content = record.content()
    for block in sorted(set(Derived.model_fields) - {"robustness", "deadlines", "streaming"}):
        assert content[block], f"{block} is empty"
        assert unexplained_nulls(content[block], block) == []
    allowed = {name.rpartition(".")[2] for name in UNDEFINED if name.startswith("exits.scores.")}
    for entry in record.exits:
        assert {score.name for score in scores("exit")} - set(entry.scores) <= allowed
    assert set(record.images) == {score.name for score in scores("image")}


def again(plugin_file: Path, out: Path, seed: int) -> dict[str, Any]:
    """The fixture's run once more, in this process."""
    with methods.temporary():
        load_plugin(str(plugin_file))
        record = anytime_bench.run("two_exits", seed=seed, overrides=FAST, out=out, display=QUIET)
    return json.loads(record.model_dump_json())


def test_same_seed_gives_the_same_bits_in_another_process(plugin_run, plugin_file, tmp_path):
    _, first, _ = plugin_run
    second = again(plugin_file, tmp_path, seed=0)
    for field in ("exits", "scores", "images"):
        assert first[field] == second[field], field
    assert first["stopping"]["curves"] == second["stopping"]["curves"]
    assert first["training"]["weights_sha256"] == second["training"]["weights_sha256"]
    assert first["record_id"] != second["record_id"], "times and dates differ, so these are two records"


def test_another_seed_gives_other_weights_on_the_same_split(plugin_run, plugin_file, tmp_path):
    _, first, _ = plugin_run
    second = again(plugin_file, tmp_path, seed=1)
    assert first["task"]["sha256"] == second["task"]["sha256"]
    assert first["training"]["weights_sha256"] != second["training"]["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [1, 2, 3])
def test_a_run_killed_in_any_epoch_and_resumed_ends_with_the_same_weights(plugin_file, tmp_path, kill_after):
    common = ["run", "--plugin", str(plugin_file), "--method", "two_exits", "epochs=4", "timing_rounds=0", "--json"]
    whole = json.loads(cli(*common, "--out", "whole", cwd=tmp_path).stdout)
    # The log's line is written before the checkpoint, so that the kill falls anywhere around an epoch's end.
    command = [sys.executable, "-m", "anytime_bench", *common, "--out", "cut"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        logs = list((tmp_path / "cut").glob("*/*/*/*/log.jsonl"))
        if logs and len(logs[0].read_text().splitlines()) >= kill_after:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = json.loads(cli(*common, "--out", "cut", "--resume", cwd=tmp_path).stdout)
    assert resumed["training"]["weights_sha256"] == whole["training"]["weights_sha256"]
    assert resumed["training"]["final_losses"] == whole["training"]["final_losses"]


class _Exploding(Method):
    """Learns with a loss that becomes NaN."""

    card = MethodCard(title="Exploding")

    def build(self, task):
        from support.plugin_two_exits import TwoExitNet

        return TwoExitNet(task)

    def training_loss(self, model, images, targets, progress):
        loss = super().training_loss(model, images, targets, progress)
        return loss * (math.nan if progress.epoch == 2 else 1.0)


def test_a_diverging_loss_ends_as_a_failed_record_with_its_reason(tiny_task, tmp_path):
    record = anytime_bench.run(_Exploding, tiny_task, overrides=FAST, out=tmp_path, display=QUIET)
    assert record.status == "failed"
    assert "nan in epoch 2" in record.reason
    # It is a seed of its row, and says which; a method that raised is none.
    assert record.training is not None
    assert (record.training.seed, record.training.weights_sha256) == (0, "")
    assert record.path is not None
    assert store.load(record.path) == record


class _Raising(_Exploding):
    def training_loss(self, model, images, targets, progress):
        raise RuntimeError("this method has a bug")


def test_a_method_that_raises_while_training_leaves_a_failed_record(tiny_task, tmp_path):
    record = anytime_bench.run(_Raising, tiny_task, overrides=FAST, out=tmp_path, display=QUIET)
    assert record.status == "failed"
    assert "this method has a bug" in record.reason
    assert record.training is None
    assert "test_run.py" in record.reason


class _OneExit(AnytimeModel):
    num_exits, ticks = 1, (1.0,)

    def __init__(self, task):
        super().__init__()
        from torch import nn

        self.head = nn.Linear(math.prod(task.shape), task.num_classes)

    def stream(self, images):
        yield self.head(images.flatten(1))


class _Skipping(_Exploding):
    def skip(self, task):
        return "it needs larger images"


def test_a_skipped_method_leaves_a_record_that_says_why(tiny_task, tmp_path):
    record = anytime_bench.run(_Skipping, tiny_task, out=tmp_path, display=QUIET)
    assert (record.status, record.reason) == ("skipped", "it needs larger images")


@pytest.mark.slow
def test_weights_taken_over_give_their_sources_last_answers(tmp_path):
    fast = ["epochs=1", "width=4", "timing_rounds=0", "training.train_images=128", "noise=focus", "noise_images=40"]
    source = anytime_bench.run("serial_ce", "digits", overrides=fast, out=tmp_path, display=QUIET)
    taker = anytime_bench.run("cascaded_ce", "digits", overrides=fast, out=tmp_path, display=QUIET)
    assert source.training is not None
    assert taker.training is not None
    assert taker.training.weights_sha256 == source.training.weights_sha256
    traces = [store.load_arrays(r.path, r) for r in (source, taker) if r.path is not None]
    assert np.array_equal(traces[0]["test_predictions"][-1], traces[1]["test_predictions"][-1])

    # Both were examined under noise, so that the stateful one is compared fairly with the pipelined one.
    rows = compare_records(taker.path, source.path).noise
    assert {(row.policy, row.moment) for row in rows} == {
        (policy, moment) for policy in ("watch", "watch_mean") for moment in ("same_tick", "all_frames")
    }
    assert {row.kind for row in rows} == {"focus", "all"}
    assert all(row.difference.low <= row.difference.value <= row.difference.high for row in rows)


@pytest.mark.slow
def test_noise_on_a_record_supersedes_it_and_keeps_its_scores(plugin_run, plugin_file):
    folder, record, _ = plugin_run
    done = cli("noise", record["path"], "--kinds", "focus", "--plugin", str(plugin_file), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["supersedes"] == record["record_id"]
    assert {row["kind"] for row in made["robustness"]["rows"]} == {"focus"}
    for field in ("exits", "scores", "stopping", "timing"):
        assert made[field] == record[field], field


@pytest.mark.slow
def test_noise_on_a_wrapper_finds_the_weights_behind_two_sources(tmp_path):
    """The option ``width`` is the source's alone, and cascaded_ce itself borrows from serial_ce."""
    fast = ["epochs=1", "width=4", "timing_rounds=0", "training.train_images=128", "noise_images=40"]
    record = anytime_bench.run(
        "product_of_experts/cascaded_ce", "digits", overrides=[*fast, "noise=focus"], out=tmp_path, display=QUIET
    )
    assert record.method.options["width"] == 4, "the record says what the source was"
    assert record.path is not None
    again = noise_on_record(record.path, "focus", display=QUIET)
    assert again.robustness == record.robustness


@pytest.mark.slow
def test_ctrl_c_says_how_to_resume(plugin_file, tmp_path):
    command = [sys.executable, "-m", "anytime_bench", "run", "--plugin", str(plugin_file), "-m", "two_exits"]
    process = subprocess.Popen([*command, "epochs=5000"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("runs/*/*/*/*/checkpoint.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Resume with:" in errors
    assert errors.rstrip().endswith("epochs=5000 --resume")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seed": -1}, r"^seed=-1: expected a whole number, 0 or more\.$"),
        ({"seed": "a"}, r"^seed='a': expected a whole number"),
        ({"overrides": "epochs=1"}, r"^overrides='epochs=1': expected a list or a dictionary, such as \['epochs=1'\]"),
    ],
)
def test_bad_arguments_from_python_are_refused_before_anything_is_written(wrong, words, tmp_path):
    with pytest.raises(anytime_bench.UserError, match=words):
        anytime_bench.run("sdn", "digits", out=tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
