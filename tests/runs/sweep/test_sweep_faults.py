"""Whatever ends a job or a sweep, the same command again completes the store, and results are those of a calm sweep."""

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.runs.sweep import display
from anytime_bench.runs.sweep.display import Overview
from anytime_bench.runs.sweep.grid import Grid
from anytime_bench.runs.sweep.local import Runner, sweep
from anytime_bench.runs.sweep.planning import plan_sweep
from anytime_bench.runs.sweep.process import machine, run_job
from anytime_bench.runs.sweep.workers import slots_for

PLUGIN = str(Path(__file__).parents[2] / "support" / "sweep_plugin.py")
TIMED = ["timing_rounds=3", "timing_budget=0.5", "timing_processes=1"]
QUICK = ["epochs=4", "batch_size=30", "timing_rounds=0", "resamples=20", "training.lr=0.1"]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def grid(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("reference: plain\n")
    return Grid(
        methods=["plain"], tasks=["specks"], overrides=QUICK, plugins=[PLUGIN], out=str(tmp_path / "runs"),
        recipe=str(recipe), device="cpu", jobs=2,
    )  # fmt: skip


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=120)


def statuses(outcomes):
    return {f"{each.method}@{each.seed}": each.status for each in outcomes}


def weights(out):
    """The SHA-256 of the trained weights of every run in the store, by method and seed; each run has one record."""
    found = {}
    for path in store.find(Path(out)):
        record = store.load(path)
        if record.status == "ok":
            key = (record.method.name, record.training.seed)
            assert key not in found
            store.load_arrays(path, record)
            found[key] = (record.training.weights_sha256, [entry.accuracy.value for entry in record.exits])
    return found


def calm(grid, out):
    """What an undisturbed sweep finds, done in this process."""
    for job in plan_sweep(dataclasses.replace(grid, out=str(out))).jobs.values():
        run_job(job)
    return weights(out)


def leftovers(out):
    return [path for path in Path(out).rglob("*") if path.suffix == ".part"]


def children(of, word="anytime_bench.runs.sweep.process"):
    try:
        found = psutil.Process(of).children(recursive=True)
        return [each for each in found if word in " ".join(each.cmdline())]
    except psutil.Error:
        return []


@pytest.mark.slow
def test_one_runs_fault_is_its_own(grid, console, tmp_path, monkeypatch):
    """A method that raises, exits, hangs, is killed, wants too much memory: told apart, and no other run is lost."""
    faults = tmp_path / "faults"
    faults.mkdir()
    monkeypatch.setenv("SWEEP_FAULTS", str(faults))
    names = ["faulty", "exits", "hangs", "hogs", "kills", "plain", "not_here"]
    asked = dataclasses.replace(grid, methods=names, time_limit=45, memory_limit=7)
    outcomes = sweep(asked, console)
    reasons = {each.method: each.reason for each in outcomes}
    assert statuses(outcomes) == {
        **{f"{name}@0": "failed" for name in names[:5]}, "plain@0": "ok", "not_here@0": "skipped"
    }  # fmt: skip
    assert "the planted fault" in reasons["faulty"]
    assert "SystemExit: 7" in reasons["exits"]
    assert "stopped after 45 seconds" in reasons["hangs"]
    assert "allocate memory" in reasons["hogs"]
    assert "SIGKILL" in reasons["kills"]
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "599.5"]]
    shown = console.file.getvalue()
    assert "--methods faulty,exits,hangs,hogs,kills" in shown
    assert all(Path(each.log).exists() for each in outcomes if each.status == "failed")
    faults.rmdir()
    assert set(statuses(sweep(asked, console)).values()) == {"ok", "cached", "skipped"}
    assert len(weights(grid.out)) == 6
    assert leftovers(grid.out) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_workers_killed_at_random(grid, tmp_path):
    asked = dataclasses.replace(grid, methods=["slow", "tuner"], seeds=[0, 1], overrides=[*QUICK, "epochs=40"])
    random.seed(0)
    killed, stop = 0, threading.Event()

    def kill():
        nonlocal killed
        while not stop.is_set():
            time.sleep(random.uniform(0.2, 5))
            for child in children(os.getpid())[:1]:
                if killed < 20:
                    child.send_signal(signal.SIGKILL)
                    killed += 1

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    repeats = 0
    while True:
        plan = plan_sweep(asked)
        if not plan.jobs and killed >= 20:
            break
        if not plan.jobs:
            # All done before the twentieth: what is in the store goes, what was trained too.
            shutil.rmtree(asked.out)
            continue
        with Overview(Console(file=io.StringIO()), len(plan.jobs)) as overview:
            Runner(plan, asked, slots_for(2, []), overview).run()
        repeats += 1
    stop.set()
    killer.join()
    assert killed == 20
    assert weights(grid.out) == calm(asked, tmp_path / "calm")
    print(f"{repeats} repeats")


def test_a_long_wait_for_the_machine_is_a_line_where_there_is_no_live_table(grid, console, monkeypatch, tmp_path):
    """Whoever writes the output to a file must see why nothing goes on; here this test has the machine."""
    monkeypatch.setattr(display, "LONG_WAIT", 0.2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a lock of its own, here and in the jobs
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    plan = plan_sweep(grid)
    said = lambda: console.file.getvalue().count("waits until nothing else is trained or timed on this machine")  # noqa: E731
    with Overview(console, len(plan.jobs)) as overview:
        runner = threading.Thread(target=Runner(plan, grid, slots_for(1, []), overview).run)
        with machine(exclusive=True):
            runner.start()
            deadline = time.monotonic() + 60
            while not said() and time.monotonic() < deadline:
                time.sleep(0.05)
        runner.join()
    assert said() == 1
    assert f"{len(plan.jobs)}/{len(plan.jobs)}" in console.file.getvalue()


def command(grid):
    options = ["--methods", ",".join(grid.methods), "--tasks", "specks", "--seeds", ",".join(map(str, grid.seeds))]
    places = ["--out", grid.out, "--recipe", grid.recipe, "--plugin", PLUGIN, "--jobs", "2", "--json"]
    return [sys.executable, "-m", "anytime_bench", "sweep", *options, *places, "--device", "cpu", *grid.overrides]


@pytest.mark.slow
def test_the_sweep_itself_killed(grid, console, tmp_path):
    asked = dataclasses.replace(grid, methods=["slow"], seeds=[0, 1], overrides=[*QUICK, "epochs=60"])
    parent = subprocess.Popen(command(asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path(asked.out).rglob("checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    jobs = children(parent.pid)
    assert jobs
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(jobs, timeout=20)
    assert alive == []
    assert set(statuses(sweep(asked, console)).values()) == {"ok"}
    assert weights(asked.out) == calm(asked, tmp_path / "calm")
    assert leftovers(asked.out) == []


@pytest.mark.slow
def test_two_sweeps_share_one_folder(grid, tmp_path):
    asked = dataclasses.replace(grid, methods=["plain", "taker", "slow"], overrides=[*QUICK, *TIMED])
    both = [subprocess.Popen(command(asked), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        told, _ = one.communicate(timeout=240)
        assert one.returncode == 0
        assert {run["status"] for run in json.loads(told)["runs"]} <= {"ok", "cached"}
        assert all(run["record"] for run in json.loads(told)["runs"])
    # ``weights`` fails where a run has two records.
    assert len(weights(asked.out)) == 3
    assert list(Path(asked.out).rglob("prepared-*")) == []


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk(grid, small_disk, tmp_path):
    """With room for 0, 1, 2, ... pages each run stops somewhere else; freed, the disk takes the whole run."""
    expected = calm(grid, tmp_path / "calm")
    failures = 0
    for pages in (0, 2, 4, 6, 9, 12, 16, 40):
        out = small_disk / "runs"
        asked = dataclasses.replace(grid, out=str(out))
        (job,) = plan_sweep(asked).jobs.values()
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        os.truncate(filler, filler.stat().st_size // 4096 * 4096 - pages * 4096)
        reason = ""
        try:
            run_job(job)
        except UserError as error:
            reason = str(error)
            failures += 1
        assert not reason or "No space left" in reason
        assert leftovers(out) == []
        filler.unlink()
        if plan_sweep(asked).jobs:
            assert run_job(job).status == "ok"
        assert weights(out) == expected
        shutil.rmtree(out)
    assert 3 <= failures < 8


@pytest.mark.slow
def test_a_sweep_runs_each_in_its_process(grid, console):
    """The short way through everything: plan, processes, shared weights, timing alone, summary, repeat."""
    asked = dataclasses.replace(grid, methods=["plain", "taker"], overrides=[*QUICK, *TIMED])
    outcomes = sweep(asked, console)
    assert statuses(outcomes) == {"plain@0": "ok", "taker@0": "ok"}
    plain, taker = (store.load(Path(each.record)) for each in outcomes)
    assert plain.training.weights_sha256 == taker.training.weights_sha256
    assert plain.timing
    assert plain.command.startswith("anytime-bench run --method plain --task specks --seed 0")
    assert statuses(sweep(asked, console)) == {"plain@0": "cached", "taker@0": "cached"}
    with pytest.raises(UserError, match="2 of these runs exist"):
        sweep(dataclasses.replace(asked, existing="error"), console)
