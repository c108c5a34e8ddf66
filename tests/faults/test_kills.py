"""Random kills of run, publish, build and sweep: nothing lost or half-written, no leftover, resumed bits equal.

``pytest -m slow`` tries a share, ``ANYTIME_BENCH_FAULTS=full pytest -m slow tests/faults/test_kills.py`` two hundred.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import generated_records as generated
from support import small_run
from support.fuzz import count
from support.kills import finished, killed

from anytime_bench.leaderboard import build as boards
from anytime_bench.records import store
from anytime_bench.records.publish import publish
from anytime_bench.records.record import Record
from anytime_bench.records.verify import verify_record
from anytime_bench.training.checkpoints import read_tensors

SLOW = pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["few", "many"])
#: How the kills are shared between the verbs.
SHARES = {"run": 0.2, "publish": 0.4, "build": 0.4}


def trials(verb: str, slow: bool) -> range:
    return range(max(1, round(SHARES[verb] * count("kills", slow))))


def whole(folder: Path) -> None:
    """Whatever lies under its own name is complete: records hold, weights and checkpoints have their hash."""
    assert [fault for path in store.find(folder) for fault in verify_record(path)[1]] == []
    for path in folder.rglob("*.safetensors"):
        read_tensors(path)


def no_leftovers(folder: Path) -> None:
    """No file is half-written or prepared. Locks stay, empty: to delete one would take it from whoever waits for it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".part" or path.name.startswith(("prepared", "."))]
    assert not [path for path in files if ".sweep" in path.parts and (path.suffix != ".lock" or path.stat().st_size)]


def traces(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*/*/*/*.npz")}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, float]:
    folder = tmp_path_factory.mktemp("original")
    small_run.make(folder)
    started = time.perf_counter()
    record, _ = small_run.make(folder / "again")
    return record, time.perf_counter() - started


@SLOW
def test_a_killed_run_is_resumed_to_equal_bits(original, tmp_path: Path, slow: bool) -> None:
    record, seconds = original
    for trial in trials("run", slow):
        folder, rng = tmp_path / str(trial), np.random.default_rng([1, trial])
        while killed(lambda: small_run.make(folder, resume=True), rng, writes=24, seconds=seconds):  # noqa: B023
            whole(folder / "runs")
            if rng.integers(2):
                break
        assert finished(lambda: small_run.make(folder, resume=True)) == 0  # noqa: B023
        whole(folder / "runs")
        no_leftovers(folder / "runs")
        # A run that was killed after it had stored its record is not stored a second time.
        assert len({path.stem for path in store.find(folder / "runs")} | traces(folder / "runs")) == 1
        for path in store.find(folder / "runs"):
            again = store.load(path)
            assert again.training.weights_sha256 == record.training.weights_sha256
            assert again.training.final_losses == record.training.final_losses
            assert (again.exits, again.scores, again.robustness) == (record.exits, record.scores, record.robustness)


@SLOW
def test_a_killed_publisher_leaves_records_with_their_traces(tmp_path: Path, slow: bool) -> None:
    paths = generated.fill(tmp_path / "local", methods=2, seeds=1, images=60)
    names = {path.name for path in paths} | {path.with_suffix(".npz").name for path in paths}
    for trial in trials("publish", slow):
        results, rng = tmp_path / f"results{trial}", np.random.default_rng([2, trial])
        killed(lambda: publish(paths, results), rng, writes=8, seconds=1.0)  # noqa: B023
        whole(results)
        assert finished(lambda: publish(paths, results)) == 0  # noqa: B023
        assert {path.name for path in results.rglob("*") if path.is_file()} == names


@SLOW
def test_a_killed_build_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    results = tmp_path / "results"
    generated.fill(results, methods=2, seeds=1, images=60)
    made = list(boards.files(results))
    # They are drawn once; what is killed is their writing.
    monkeypatch.setattr(boards, "files", lambda *_: iter(made))
    old = {name: b"an older " + data for name, data in made}
    for trial in trials("build", slow):
        out, rng = tmp_path / f"boards{trial}", np.random.default_rng([3, trial])
        for name, data in old.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        killed(lambda: boards.build(results, out), rng, writes=2 * len(made), seconds=1.0)  # noqa: B023
        assert all((out / name).read_bytes() in (data, old[name]) for name, data in made)
        assert finished(lambda: boards.build(results, out)) == 0  # noqa: B023
        assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == dict(made)


SWEEP = ["sweep", "-m", "plain", "-t", "specks", "--seeds", "0-1", "--plugin", "{plugin}", "--recipe", "recipe.yaml"]


@pytest.mark.slow
def test_a_killed_sweep_loses_nothing_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("reference: plain\n")
    plugin = Path(small_run.PLUGIN).with_name("sweep_plugin.py")
    words = [word.format(plugin=plugin) for word in SWEEP]
    command = [sys.executable, "-m", "anytime_bench", *words, "epochs=2", "timing_rounds=0"]
    environment = {**os.environ, "PYTHONPATH": str(plugin.parents[1])}
    run: Callable[[], subprocess.Popen[bytes]] = lambda: subprocess.Popen(  # noqa: E731
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    rng = np.random.default_rng(4)
    for _ in range(max(1, count("kills", True) // 20)):
        sweep = run()
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait(float(rng.uniform(2, 20)))
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
        whole(tmp_path / "runs")
    assert run().wait(280) == 0
    whole(tmp_path / "runs")
    no_leftovers(tmp_path / "runs")
    seeds = [store.load(path).seed for path in store.find(tmp_path / "runs")]
    assert sorted(seeds) == [0, 1]
