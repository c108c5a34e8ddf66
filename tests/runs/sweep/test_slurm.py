"""Sweeps on a real Slurm of one node, which tests/one_node_slurm.sh starts. Run with ``pytest -m cluster`` as root."""

import io
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from anytime_bench.records import store
from anytime_bench.runs.sweep.display import Overview
from anytime_bench.runs.sweep.grid import Grid, SlurmOptions
from anytime_bench.runs.sweep.jobs import Job
from anytime_bench.runs.sweep.local import plan_in_subprocess
from anytime_bench.runs.sweep.planning import plan_sweep
from anytime_bench.runs.sweep.slurm import levels, parameters, queued, srun_options, submit, sweep_on_slurm, watch

SCRIPT = Path(__file__).parents[2] / "support" / "one_node_slurm.sh"
METHODS = ["serial_ce", "cascaded_ce", "cascaded_td"]
#: Short, without timing, small enough for two CPUs, and long enough to be killed in the middle.
OVERRIDES = ["epochs=6", "training.train_images=320", "timing_rounds=0", "resamples=50", "width=4"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if os.getuid() != 0 or shutil.which("slurmctld") is None or shutil.which("munged") is None:
        pytest.skip("needs root, slurm-wlm and munge")
    home = tmp_path_factory.mktemp("slurm")
    environment = {**os.environ, "SLURM_TEST_HOME": str(home), "SLURM_TEST_CPUS": "2"}
    started = subprocess.run([SCRIPT, "start"], env=environment, capture_output=True, text=True, timeout=120)
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(home / "slurm.conf"))
    patch.setenv("OMP_NUM_THREADS", "1")
    try:
        assert started.returncode == 0, started.stderr
        yield
    finally:
        subprocess.run(["scancel", "--user", "root"], capture_output=True)
        subprocess.run([SCRIPT, "stop"], env=environment, timeout=120)
        patch.undo()


def console():
    return Console(file=io.StringIO(), width=120)


def results(out):
    """Everything of each record that must not depend on how often its run was interrupted."""
    found = {}
    for path in store.find(Path(out)):
        record = store.load(path)
        key = (record.method.name, record.training.seed)
        assert key not in found
        assert record.status == "ok"
        exits = [entry.model_dump() for entry in record.exits]
        found[key] = (record.training.weights_sha256, record.training.final_losses, exits, record.scores)
    return found


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_sweep_survives_a_killed_and_requeued_job(slurm, tmp_path):
    """3 methods x 2 seeds: one sweep in peace, one whose running job is killed and requeued; equal results."""
    grid = Grid(methods=METHODS, seeds=[0, 1], device="cpu", overrides=OVERRIDES, out=str(tmp_path / "calm"))
    outcomes = sweep_on_slurm(grid, console())
    assert [each.status for each in outcomes] == ["ok"] * 6, [each.reason for each in outcomes]
    expected = results(grid.out)
    assert len(expected) == 6

    grid.out = str(tmp_path / "disturbed")
    plan = plan_sweep(grid)
    folder = tmp_path / "logs"
    arrays = sorted(set(submit(plan, grid, folder).values()), key=int)
    deadline = time.monotonic() + 200
    # Killed once it has something to go on from.
    while not (checkpoints := list(Path(grid.out).rglob("checkpoint.safetensors"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert checkpoints
    shown = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%A"], capture_output=True, text=True).stdout.split()
    victim = shown[0]
    subprocess.run(["scancel", "--signal=KILL", victim], check=True)
    while victim in _running() and time.monotonic() < deadline:
        time.sleep(0.1)
    subprocess.run(["scontrol", "requeue", victim], check=True)
    start_now(victim)
    with Overview(console(), len(plan.jobs)) as overview:
        ends = watch(plan, folder, arrays, overview)
    assert [each.status for each in plan.outcomes(ends)] == ["ok"] * 6, ends
    assert results(grid.out) == expected
    assert {each.status for each in sweep_on_slurm(grid, console())} == {"cached"}


def start_now(job):
    """Slurm lets a requeued job wait for two minutes; a test need not."""
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def _running():
    return subprocess.run(["squeue", "-h", "-t", "R,CG", "-o", "%A"], capture_output=True, text=True).stdout.split()


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_pre_empted_job_requeues_itself(slurm, tmp_path):
    """The signal that Slurm sends before it takes a node away: the job checkpoints, requeues and ends well."""
    plugin = str(Path(__file__).parents[2] / "support" / "sweep_plugin.py")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("reference: plain\n")
    quick = ["epochs=150", "batch_size=30", "timing_rounds=0", "resamples=20", "training.lr=0.1"]
    grid = Grid(
        methods=["slow"], tasks=["specks"], overrides=quick, plugins=[plugin], out=str(tmp_path / "runs"),
        recipe=str(recipe), device="cpu",
    )  # fmt: skip
    plan = plan_in_subprocess(grid, ["srun", "--quiet", *srun_options(SlurmOptions("main"))])
    folder = tmp_path / "logs"
    arrays = sorted(set(submit(plan, grid, folder).values()))
    deadline = time.monotonic() + 100
    while not list(Path(grid.out).rglob("checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    job = _running()[0]
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    while job in _running() and time.monotonic() < deadline:
        time.sleep(0.1)
    start_now(job)
    with Overview(console(), 1) as overview:
        ends = watch(plan, folder, arrays, overview)
    assert [end.status for end in ends.values()] == ["ok"]
    assert any("Requeued job" in log.read_text() for log in folder.glob("*.out")) or any(
        "Requeued job" in log.read_text() for log in folder.glob("*.err")
    )
    # The end is written before the process has left.
    while queued(arrays) and time.monotonic() < deadline + 60:
        time.sleep(0.2)
    assert queued(arrays) == set()


def test_arrays_wait_for_each_other_and_times_are_taken_one_by_one():
    run = {"method": "m", "task": "t", "seed": 0}
    train = Job(name="a", until="prepared", **run)
    time_it = Job(name="b", until="record", exclusive=True, needs=("a",), **run)
    assert [[job.name for job in group] for group in levels({"a": train, "b": time_it})] == [["a"], ["b"]]
    slurm = SlurmOptions("gpu", gpus_per_node=1, minutes=90, parallel=8, exclusive=True, extra={"qos": "x"})
    first, last = parameters(slurm, [train], ""), parameters(slurm, [time_it], "17")
    assert first["slurm_additional_parameters"] == {"requeue": True, "qos": "x"}
    assert (first["slurm_array_parallelism"], first["timeout_min"], first["gpus_per_node"]) == (8, 90, 1)
    assert last["slurm_additional_parameters"]["dependency"] == "afterany:17"
    assert (last["slurm_array_parallelism"], last["slurm_exclusive"]) == (1, True)
    assert "slurm_exclusive" not in first
