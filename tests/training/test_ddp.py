"""Two processes training together equal one process with the same global batch: losses and statistics."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.training import ddp as distributed

SCRIPT = Path(__file__).parents[1] / "support" / "ddp_training.py"


def train(method, folder, processes):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    # A port of the kernel's choice, so that tests may run side by side.
    launcher += [] if processes == 1 else ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), method, str(folder)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cascaded_td", "serial_td", "sdn"])
def test_two_processes_train_like_one(method, tmp_path):
    one, two = train(method, tmp_path / "one", 1), train(method, tmp_path / "two", 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert len(set(one["losses"])) == 4  # Something was learned; SDN's loss need not fall, its weights grow.
    # One row per step in the cascade: each must be that of the global batch.
    assert two["statistics"] == pytest.approx(one["statistics"], rel=1e-4, abs=1e-4)
    written = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert written == ["log.jsonl", "weights.safetensors", "weights.seconds"]


def test_processes_wait_a_day_for_the_first_and_minutes_for_each_other(monkeypatch):
    made = []
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_waiting", [])
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: bool(made))
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *args, **kwargs: made.append((args, kwargs)))
    monkeypatch.setattr(distributed.dist, "new_group", lambda backend, timeout: (backend, timeout))
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed.dist, "barrier", lambda group: made.append(group))
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    assert distributed.start("cpu") == "cpu"
    distributed.leave()
    assert made == [(("gloo",), {}), ("gloo", timedelta(days=1))]


def test_last_batch_smaller_than_the_group_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 4)
    distributed.check_batches(64 * 3 + 4, 64)
    distributed.check_batches(64 * 3 + 1, 64)  # A single image joins the batch before it.
    with pytest.raises(UserError, match="last batch of 3 images for 4 processes"):
        distributed.check_batches(64 * 3 + 3, 64)


def test_a_device_of_one_process_is_refused_under_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="each process takes its own GPU"):
        distributed.start("cuda:0")


def test_statistics_over_one_process_are_those_of_batch_norm(monkeypatch):
    """With a group of one, the shared norm must be torch's, gradients included."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    torch.manual_seed(0)
    images, grad = torch.randn(6, 3, 4, 4) * 3 + 1, torch.randn(6, 3, 4, 4)
    results = []
    for shared in (False, True):
        x, weight, bias = (t.clone().requires_grad_() for t in (images, torch.rand(3), torch.rand(3)))
        mean, var = torch.zeros(3), torch.ones(3)
        torch.manual_seed(1)
        with torch.no_grad():
            weight.copy_(torch.rand(3))
            bias.copy_(torch.rand(3))
        if shared:
            with distributed.GlobalBatchNorm():
                y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.3)
        else:
            y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=0.3)
        y.backward(grad)
        results.append((y, x.grad, weight.grad, bias.grad, mean, var))
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_evaluation_is_left_alone():
    x, mean, var = torch.randn(4, 2, 3, 3), torch.randn(2), torch.rand(2) + 0.5
    with distributed.GlobalBatchNorm():
        inside = F.batch_norm(x, mean, var)
    assert torch.equal(inside, F.batch_norm(x, mean, var))


@pytest.mark.slow
def test_torchrun_of_the_whole_command_writes_one_record(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("reference: plain\n")
    plugin, out = Path(__file__).parents[1] / "support" / "sweep_plugin.py", tmp_path / "runs"
    command = ["run", "--plugin", str(plugin), "--method", "plain", "--task", "specks", "--recipe", str(recipe)]
    command += ["--out", str(out), "--device", "cpu", "epochs=3", "batch_size=30", "timing_rounds=0", "resamples=20"]
    group = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *group, "-m", "anytime_bench", *command],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = store.find(out)
    assert store.load(path).environment.model_dump()["training_processes"] == 2
