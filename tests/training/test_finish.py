"""``Method.finish``: what a method fits to its trained network, once, before the weights are stored."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.training.config import AugmentConfig, RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.loop import train

IMAGES = 48


class TemperedNet(AnytimeModel):
    num_exits, ticks = 1, (1,)

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(64, 3)
        self.temperature = nn.Parameter(torch.ones(()), requires_grad=False)

    def stream(self, images):
        yield self.head(self.norm(images).flatten(1)) / self.temperature


class Tempered(Method):
    """Notes what it is called with; dies in its first ``deaths`` calls of ``finish``."""

    card = MethodCard(title="Tempered")

    def __init__(self, deaths=0):
        super().__init__()
        self.deaths, self.calls = deaths, []

    def build(self, task):
        return TemperedNet()

    def finish(self, model, batches):
        passes = [torch.cat([labels for _, labels in batches()]) for _ in range(2)]
        self.calls.append((model.training, torch.is_grad_enabled(), passes))
        model.temperature.fill_(2.0 + float(torch.rand(())))
        if len(self.calls) <= self.deaths:
            raise KeyboardInterrupt


def split() -> DeviceSplit:
    images = torch.randint(0, 256, (IMAGES, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    one = torch.ones(1, 1, 1, 1)
    return DeviceSplit(images, torch.arange(IMAGES) % 3, one / 2, one / 4)


def trained(method: Method, folder, resume=False):
    torch.manual_seed(0)
    model = method.build(None)
    config = RunConfig(training=TrainingConfig(epochs=2, batch_size=16), augment=AugmentConfig(crop_padding=1))
    folder.mkdir(exist_ok=True)
    report = train(method, model, split(), split(), config, seed=3, folder=folder, resume=resume)
    return model, report, load_file(folder / "weights.safetensors")


def test_finish_runs_once_on_the_trained_model_and_its_work_is_stored(tmp_path):
    method = Tempered()
    model, _, stored = trained(method, tmp_path / "run")
    ((training, grad, passes),) = method.calls
    assert not training
    assert grad
    assert all(sorted(labels.tolist()) == sorted([0, 1, 2] * (IMAGES // 3)) for labels in passes)
    assert not torch.equal(*passes)
    assert stored["temperature"] == model.temperature != 1.0


def test_a_run_killed_in_finish_resumes_to_the_same_bits(tmp_path):
    _, report, whole = trained(Tempered(), tmp_path / "whole")
    killed = Tempered(deaths=1)
    with pytest.raises(KeyboardInterrupt):
        trained(killed, tmp_path / "killed")
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    _, resumed, stored = trained(killed, tmp_path / "killed", resume=True)
    assert resumed.weights_sha256 == report.weights_sha256
    assert all(torch.equal(stored[name], tensor) for name, tensor in whole.items())
