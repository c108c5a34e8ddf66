"""A training step as a graph of paper: the bits are those of the step as it is, and what cannot be a graph says so."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paper_graph import Graph, paper_graph
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.training import loop
from anytime_bench.training.config import AugmentConfig, RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.graphs import WARM, check_graph
from anytime_bench.training.loop import train
from anytime_bench.training.optimisers import make_optimiser, set_learning_rate
from baselines.cascade.model import CascadedResNet
from baselines.cascade.td import td_loss
from baselines.residual import suite_resnet
from baselines.sdn.model import ShallowDeepNet, sdn_loss, tau

RESULTS = Path(__file__).parents[2] / "results"
#: Batches of 4, and one of 2 at the end of every epoch.
IMAGES, FULL, EPOCHS = 18, 4, 3


class TD(Method):
    """A cascade under its own loss, and variants of it that depend on where training stands."""

    card = MethodCard("TD")

    def build(self, task: Any) -> AnytimeModel:
        return CascadedResNet(blocks=(1, 1), width=8)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        return td_loss(model(images), targets, 0.5)


class PerEpoch(TD):
    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        return super().training_loss(model, images, targets, progress) * float(progress.epoch)


class PerStep(TD):
    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        return super().training_loss(model, images, targets, progress) * progress.fraction


class ReadsAValue(TD):
    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        loss = super().training_loss(model, images, targets, progress)
        return loss * loss.item()


class Shallow(TD):
    def build(self, task: Any) -> AnytimeModel:
        return ShallowDeepNet(suite_resnet((1, 1), 8), 10, (3, 16, 16))

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        logits = model(images)
        return sdn_loss(logits, targets, tau(progress.epoch, EPOCHS)[: len(logits) - 1])


def trained(
    method: Method, folder: Path, monkeypatch: pytest.MonkeyPatch, graph: bool, epochs: int = EPOCHS, **settings: Any
) -> tuple[list[float], dict[str, Tensor], list[str]]:
    """Losses, weights and warnings of a training with the optimiser of a graph, whose step is one or is not."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (IMAGES, 3, 16, 16), dtype=torch.uint8, generator=generator)
    split = DeviceSplit(images, torch.randint(0, 10, (IMAGES,), generator=generator), *torch.ones(2, 1, 3, 1, 1))
    torch.manual_seed(0)
    model = method.build(None)
    training = TrainingConfig(
        epochs=epochs, batch_size=4, clip_norm=1.0, decay_norms=False, graph=True, **{"precision": "fp32", **settings}
    )
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(loop, "check_graph", lambda *arguments: None)
        if not graph:
            patched.setattr(loop, "StepGraph", lambda step, optimiser, warn: step)
        config = RunConfig(training=training, augment=AugmentConfig(flip=True))
        report = train(method, model, split, split, config, seed=0, folder=folder, resume=True, warn=said.append)
    return report.losses, model.state_dict(), said


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Trains with and without a graph, requires the same bits, and returns replays and warnings."""
    paper_graph(monkeypatch)

    def run(method: Method, **settings: Any) -> tuple[int, list[str]]:
        plain = trained(method, tmp_path / "plain", monkeypatch, graph=False, **settings)
        assert Graph.replays == 0
        graphed = trained(method, tmp_path / "graph", monkeypatch, graph=True, **settings)
        assert graphed[0] == plain[0]
        assert [name for name, value in plain[1].items() if not torch.equal(value, graphed[1][name])] == []
        return Graph.replays, graphed[2]

    return run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_have_the_bits_of_plain_ones(both, precision):
    assert both(TD(), precision=precision) == (FULL * EPOCHS - WARM, [])


@pytest.mark.parametrize("method", [PerEpoch(), Shallow()], ids=["cascade", "sdn"])
def test_a_loss_of_the_epoch_is_captured_anew_in_each(both, method):
    assert both(method) == (FULL * EPOCHS - WARM, [])


@pytest.mark.parametrize(
    ("method", "why"),
    [(PerStep(), "its loss changes from step to step"), (ReadsAValue(), "it cannot be captured (RuntimeError: ")],
    ids=["fraction", "item"],
)
def test_what_cannot_be_replayed_runs_as_it_is_and_says_why_once(both, method, why):
    replays, (said,) = both(method)
    assert replays == 0
    assert said.startswith(f"training.graph: the step runs without a graph: {why}")
    assert "\n" not in said


def test_a_resumed_training_has_the_bits_of_one_that_went_on(tmp_path, monkeypatch):
    """Momentum is there already; the capture comes later, and the rate is a tensor of the new optimiser."""
    paper_graph(monkeypatch)
    whole = trained(TD(), tmp_path / "whole", monkeypatch, graph=True, schedule="constant")
    _stopped_after(1, tmp_path / "parts", monkeypatch)
    parts = trained(TD(), tmp_path / "parts", monkeypatch, graph=True, schedule="constant")
    assert parts[0] == whole[0]
    assert all(torch.equal(value, parts[1][name]) for name, value in whole[1].items())


def _stopped_after(epochs: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = loop._append_log

    def stops(path: Path, epoch: int, *rest: Any) -> None:
        if epoch > epochs:
            raise KeyboardInterrupt
        append(path, epoch, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_append_log", stops)
        with pytest.raises(KeyboardInterrupt):
            trained(TD(), folder, monkeypatch, graph=True, schedule="constant")


class Grouped(TD):
    def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
        first, *rest = model.parameters()
        return [{"params": [first]}, {"params": rest, "lr_scale": 0.5}]


def test_every_group_has_a_rate_of_its_own_that_is_filled_in_place():
    optimiser = make_optimiser(Grouped(), TD().build(None), TrainingConfig(graph=True))
    rates = [group["lr"] for group in optimiser.param_groups]
    set_learning_rate(optimiser, 0.25)
    assert [float(rate) for rate in rates] == [0.25, 0.125]
    assert all(group["lr"] is rate for group, rate in zip(optimiser.param_groups, rates, strict=True))


@pytest.mark.parametrize(("name", "option"), [("sgd", "fused"), ("adamw", "capturable"), ("rmsprop", "capturable")])
def test_an_optimiser_is_asked_to_work_within_a_graph(name, option):
    settings = TrainingConfig(graph=True, optimizer=name)
    (group,) = make_optimiser(TD(), TD().build(None), settings).param_groups
    assert group[option] is True
    with pytest.raises(UserError, match=r"^training.optimizer=lbfgs cannot step within a CUDA graph: .*$"):
        make_optimiser(TD(), TD().build(None), TrainingConfig(graph=True, optimizer="lbfgs"))


@pytest.mark.parametrize(
    ("settings", "device", "processes", "message"),
    [
        ({}, "cpu", 1, "need a CUDA device"),
        ({"accumulate": 2}, "cuda", 1, "training.accumulate=2"),
        ({}, "cuda", 2, "2 processes"),
    ],
)
def test_where_no_step_can_be_a_graph_it_is_refused_in_one_line(settings, device, processes, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        check_graph(TrainingConfig(graph=True, **settings), torch.device(device), processes)
    assert "\n" not in str(error.value)
    check_graph(TrainingConfig(**settings), torch.device(device), processes)


def test_without_a_graph_no_recipe_changes_its_hash():
    """Of all published records whose recipe has today's other keys."""
    keys, checked = {field.name for field in dataclasses.fields(TrainingConfig)} - {"graph"}, 0
    for path in RESULTS.rglob("*.json"):
        training = json.loads(path.read_text()).get("training") or {}
        recipe = training.get("recipe") or {"training": {}}
        if recipe["training"].keys() == keys:
            config = RunConfig(
                training=TrainingConfig(**recipe["training"]), augment=AugmentConfig(**recipe["augment"])
            )
            assert config.recipe() == recipe, path
            assert config.recipe_sha256() == training["recipe_sha256"], path
            checked += 1
    assert checked > 10
    assert RunConfig(training=TrainingConfig(graph=True)).recipe()["training"]["graph"] is True
