"""What a sweep decides before it starts: runs, jobs and what they share; grids and plan files; what exists."""

import dataclasses
import fcntl
from pathlib import Path

import pytest

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.runs.sweep.grid import Grid, make_grid, parse_seeds, read_plan_file
from anytime_bench.runs.sweep.jobs import Event, Job, JobEnd, Outcome, SweepPlan
from anytime_bench.runs.sweep.local import plan_in_subprocess
from anytime_bench.runs.sweep.planning import plan_sweep
from anytime_bench.runs.sweep.process import locked, machine, machine_lock, run_job, take_lock
from anytime_bench.runs.sweep.slurm import levels
from anytime_bench.runs.sweep.workers import slots_for

PLUGIN = str(Path(__file__).parents[2] / "support" / "sweep_plugin.py")
QUICK = ["epochs=3", "batch_size=30", "timing_rounds=0", "resamples=20", "training.lr=0.1"]


@pytest.fixture
def grid(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("reference: plain\n")
    return Grid(
        methods=["plain"], tasks=["specks"], overrides=QUICK, plugins=[PLUGIN], out=str(tmp_path / "runs"),
        recipe=str(recipe), device="cpu",
    )  # fmt: skip


def test_shared_weights_are_trained_once(grid):
    plan = plan_sweep(dataclasses.replace(grid, methods=["taker", "tuner", "plain"], seeds=[0, 1]))
    training = [job for job in plan.jobs.values() if job.until == "trained"]
    # Asked for by the taker, used by all three.
    assert sorted(job.name for job in training) == ["train plain@specks@0", "train plain@specks@1"]
    for job in plan.jobs.values():
        if job.until != "trained":
            assert job.needs == (f"train plain@specks@{job.seed}",)


def test_a_row_of_the_sweep_lends_its_own_training(grid):
    plan = plan_sweep(dataclasses.replace(grid, methods=["plain", "taker"]))
    assert {name: job.needs for name, job in plan.jobs.items()} == {
        "run plain@specks@0": (),
        "run taker@specks@0": ("run plain@specks@0",),
    }


def test_times_are_taken_by_jobs_that_are_alone(grid):
    timed = dataclasses.replace(grid, methods=["plain", "taker"], overrides=[*QUICK[:2], "timing_rounds=3"])
    plan = plan_sweep(timed)
    assert [(job.until, job.exclusive) for job in plan.jobs.values()] == [("prepared", False), ("record", True)] * 2
    # On a cluster: trainings, then what takes them over, then all timings.
    assert [[job.name for job in group] for group in levels(plan.jobs)] == [
        ["train plain@specks@0"],
        ["train taker@specks@0"],
        ["time plain@specks@0", "time taker@specks@0"],
    ]


def test_training_without_the_rest(grid):
    """Each row's weights once, no record and no clock; the sweep that follows starts from them."""
    timed = dataclasses.replace(grid, methods=["plain", "taker", "tuner"], overrides=[*QUICK[:2], "timing_rounds=3"])
    only = dataclasses.replace(timed, train_only=True)
    plan = plan_sweep(only)
    assert {name: (job.until, job.needs, job.exclusive) for name, job in plan.jobs.items()} == {
        "train plain@specks@0": ("trained", (), False),
        "train tuner@specks@0": ("trained", ("train plain@specks@0",), False),
    }
    assert [cell.jobs for cell in plan.cells] == [
        ["train plain@specks@0"], ["train plain@specks@0"], ["train tuner@specks@0"]
    ]  # fmt: skip
    for job in plan.jobs.values():
        assert run_job(job) == JobEnd("ok")
        assert Path(job.done_file).is_file()
    assert [(cell.state, cell.why) for cell in plan_sweep(only).cells] == [("cached", "trained already")] * 3
    before = {job.done_file: Path(job.done_file).read_bytes() for job in plan.jobs.values()}
    after = plan_sweep(dataclasses.replace(timed, overrides=[*QUICK[:2], "timing_rounds=0", "resamples=20"]))
    assert {run_job(job).status for job in after.jobs.values()} == {"ok"}
    assert all(Path(name).read_bytes() == content for name, content in before.items())
    assert only.repeat_command([Outcome("plain", "specks", 0, "failed")]).count("--train-only") == 1


def test_skipped_with_its_reason(grid):
    plan = plan_sweep(dataclasses.replace(grid, methods=["not_here"]))
    assert (plan.cells[0].state, plan.cells[0].why, plan.jobs) == ("skip", "never fits", {})
    assert plan.outcomes({}) == [Outcome("not_here", "specks", 0, "skipped", "never fits")]


def test_what_exists_is_not_repeated(grid):
    plan = plan_sweep(grid)
    (job,) = plan.jobs.values()
    path = run_job(job).record
    again = plan_sweep(grid)
    assert (again.cells[0].state, again.cells[0].record, again.jobs) == ("cached", path, {})
    # The same job once more, as a second sweep would do it: found, not repeated.
    assert run_job(job) == JobEnd("ok", record=path)
    assert plan_sweep(dataclasses.replace(grid, existing="error")).cells[0].state == "refused"
    assert plan_sweep(dataclasses.replace(grid, existing="rerun")).cells[0].state == "new"
    for other in (["epochs=4"], ["training.lr=0.2"], ["resamples=30"]):
        assert plan_sweep(dataclasses.replace(grid, overrides=[*QUICK, *other])).cells[0].state == "new"
    assert plan_sweep(dataclasses.replace(grid, seeds=[1])).cells[0].state == "new"


@pytest.mark.parametrize("damage", ["truncated record", "truncated trace", "no trace", "altered record"])
def test_a_damaged_record_is_set_aside_and_its_run_repeated(grid, damage):
    (job,) = plan_sweep(grid).jobs.values()
    path = Path(run_job(job).record)
    trace = path.with_suffix(".npz")
    if damage == "truncated record":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "altered record":
        path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    elif damage == "truncated trace":
        trace.write_bytes(trace.read_bytes()[:-40])
    else:
        trace.unlink()
    plan = plan_sweep(grid)
    assert plan.cells[0].state == "new"
    assert path.name in plan.warnings[0]
    assert path.with_name(path.name + ".damaged").exists()
    (job,) = plan.jobs.values()
    record = store.load(Path(run_job(job).record))
    assert plan_sweep(grid).cells[0].state == "cached"
    assert record.status == "ok"


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.safetensors"])
def test_truncated_weights_are_trained_again_to_the_same_bits(grid, name):
    (job,) = plan_sweep(grid).jobs.values()
    record = Path(run_job(job).record)
    weights = next(Path(grid.out).rglob("weights.safetensors"))
    whole = weights.read_bytes()
    weights.unlink()
    (weights.parent / name).write_bytes(whole[: len(whole) // 2])
    record.unlink()
    assert run_job(job).status == "ok"
    assert weights.read_bytes() == whole


def test_altered_weights_are_refused(grid):
    (job,) = plan_sweep(grid).jobs.values()
    path = Path(run_job(job).record)
    weights = next(Path(grid.out).rglob("weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    from anytime_bench.training.checkpoints import verify_weights

    record = store.load(path)
    with pytest.raises(UserError, match="are refused: they do not have the SHA-256"):
        verify_weights(weights, record.training.weights_sha256, "the record")
    path.unlink()
    with pytest.raises(UserError, match="were altered"):
        run_job(job)


def test_a_pickle_in_place_of_weights_runs_no_code(grid, tmp_path):
    """Foreign weights are read by safetensors alone, which knows no code."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "code-ran",))

    (job,) = plan_sweep(grid).jobs.values()
    Path(run_job(job).record).unlink()
    weights = next(Path(grid.out).rglob("weights.safetensors"))
    weights.write_bytes(pickle.dumps(Bomb()))
    assert run_job(job).status == "ok"
    assert not (tmp_path / "code-ran").exists()


def test_no_source_file_loads_pickles():
    for package in ("anytime_bench", "baselines"):
        for file in (Path(__file__).parents[3] / package).rglob("*.py"):
            for line in file.read_text().splitlines():
                assert "torch.load(" not in line or "weights_only=True" in line, f"{file}: {line}"


def test_a_run_in_other_hands_is_left_alone(grid):
    (job,) = plan_sweep(grid).jobs.values()
    with locked(job) as free:
        assert free
        assert run_job(job).status == "busy"
    assert run_job(job).status == "ok"


def test_a_timing_has_the_machine_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    shared, alone = fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB
    with machine(exclusive=False), machine(exclusive=False):
        assert take_lock(machine_lock(), alone) is None
    with machine(exclusive=True):
        assert take_lock(machine_lock(), shared) is None


@pytest.mark.slow
def test_planning_in_another_process_gives_the_same_plan(grid):
    assert plan_in_subprocess(grid) == plan_sweep(grid)
    with pytest.raises(UserError, match="unknown method 'plian'"):
        plan_in_subprocess(dataclasses.replace(grid, methods=["plian"]))


def test_jobs_and_plans_survive_json(grid):
    plan = plan_sweep(dataclasses.replace(grid, methods=["plain", "taker"]))
    assert SweepPlan.from_json(plan.to_json()) == plan
    (first, *_) = plan.jobs.values()
    assert Job.from_json(first.to_json()) == first
    event = Event("done", end=JobEnd("failed", "why", seconds=1.5))
    assert Event.from_json(event.to_json()) == event


def test_plan_file_and_its_errors(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("methods: [a, b]\ntasks: digits\nseeds: 0-2\nslurm: {partition: main}\n")
    grid = make_grid(read_plan_file(path))
    assert (grid.methods, grid.tasks, grid.seeds) == (["a", "b"], ["digits"], [0, 1, 2])
    assert len(grid.cells()) == 6
    only = dataclasses.replace(grid, only=["b@digits@1"])
    assert only.cells() == [("b", "digits", 1)]
    for text, message in (
        ("method: a", "unknown key 'method'. Did you mean methods"),
        ("methods: [a]\nseeds: 3-1", "seeds '3-1': expected numbers and ranges"),
        ("methods: [a]\nexisting: maybe", "expected skip, rerun, error"),
        ("methods: [a]\nslurm: {cpu: 3}", "unknown key 'cpu'"),
        ("tasks: [a]", "which methods"),
        ("[1, 2]", "must be a mapping"),
        ("methods: [a]\njobs: many", "jobs='many'"),
        ("methods: [a]\njobs: 99999999999999999999", "jobs=99,999,999,999,999,999,999, expected at most 100,000"),
        ("methods: [a]\ntime_limit: .inf", "time_limit=inf"),
        ("methods: [a]\nslurm: {mem_gb: .nan}", "mem_gb=nan"),
        ("methods: [a]\nslurm: {extra: {a: .inf}}", "expected finite numbers"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message.replace("[", r"\[")):
            make_grid(read_plan_file(path))
    with pytest.raises(UserError, match="not part of the sweep"):
        dataclasses.replace(grid, only=["c@digits@1"]).cells()


def test_seeds():
    assert parse_seeds("0-2,7,1") == [0, 1, 2, 7]
    assert parse_seeds([3, "5-6"]) == [3, 5, 6]
    for text in ("0-999999999", "9" * 5000, "-1", "1_0"):
        with pytest.raises(UserError, match=r"^seeds '"):
            parse_seeds(text)


def test_repeat_command_names_just_the_failures():
    grid = Grid(methods=["a", "b"], seeds=[0, 1], out="my runs", overrides=["epochs=3"])
    failed = [Outcome("a", "digits", 1, "failed"), Outcome("b", "digits", 0, "failed")]
    ok = [Outcome("a", "digits", 0, "ok"), Outcome("b", "digits", 1, "cached")]
    assert grid.repeat_command(ok) == ""
    command = grid.repeat_command([*failed, *ok])
    assert "--only a@digits@1 --only b@digits@0" in command
    assert "--out 'my runs'" in command
    assert command.endswith("epochs=3")
    assert "--only" not in grid.repeat_command(failed[:1])


def test_threads_are_divided_and_gpus_are_one_each(monkeypatch):
    import os

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [slot.threads for slot in slots_for(3, [])] == [2, 2, 2]
    assert [slot.threads for slot in slots_for(0, [])] == [8]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.gpu for slot in slots_for(0, ["0", "2"])] == ["0", "2"]
    assert slots_for(0, ["2"])[0].environment({})["CUDA_VISIBLE_DEVICES"] == "2"
    assert slots_for(4, [])[0].environment({"A": "b"}) == {
        "A": "b", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2",
    }  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert slots_for(3, [])[0].threads == 1


@pytest.mark.parametrize(
    ("visible", "names", "expected"),
    [
        ("4,5", ["0", "1"], ["4", "5"]),  # as torch counts: among those that are visible
        ("GPU-aa11,GPU-bb22", ["1"], ["GPU-bb22"]),
        ("GPU-aa11,GPU-bb22", ["GPU-bb22"], ["GPU-bb22"]),
        ("GPU-aa11,GPU-bb22", ["GPU-aa"], ["GPU-aa11"]),
        ("MIG-cc33", ["0"], ["MIG-cc33"]),
        ("4,5", ["GPU-aa11"], ["GPU-aa11"]),
        (None, ["GPU-aa11"], ["GPU-aa11"]),
    ],
)
def test_gpus_are_chosen_among_the_visible_ones_by_index_and_by_uuid(monkeypatch, visible, names, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [slot.gpu for slot in slots_for(0, names)] == expected


@pytest.mark.parametrize(("visible", "name"), [("4,5", "2"), ("", "0"), ("GPU-aa11,GPU-aa22", "GPU-aa")])
def test_a_gpu_that_is_not_visible_is_refused(monkeypatch, visible, name):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=f"GPU '{name}' is not a visible one"):
        slots_for(0, [name])


def test_a_sweep_takes_the_recipe_that_a_run_would_take(tmp_path):
    """On a CPU that is the cut one: the identity of the planned run holds the cut recipe's hash."""
    from anytime_bench.runs.plan import resolve
    from anytime_bench.training.recipes import recipe_for

    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    plan = plan_sweep(
        make_grid(
            {"methods": "serial_ce", "tasks": "fashion_mnist", "seeds": "0", "device": "cpu", "out": str(tmp_path)}
        )
    )
    cut = resolve("serial_ce", recipe_for("fashion_mnist", None, "cpu")).config
    full = resolve("serial_ce", recipe_for("fashion_mnist", "fashion_mnist")).config
    assert cut.recipe_sha256() != full.recipe_sha256()
    assert plan.cells[0].identity.recipe_sha256 == cut.recipe_sha256()


def test_a_bound_on_address_space_is_refused_for_gpus():
    with pytest.raises(UserError, match=r"--memory-limit 8 .* leave it out with --gpus") as error:
        make_grid({"methods": "sdn", "tasks": "digits", "seeds": "0", "gpus": "0", "memory_limit": 8.0})
    assert "\n" not in str(error.value)
