"""Any optimiser by name, parameter groups, and training that steps, clips, accumulates and resumes as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anytime_bench import AnytimeModel, Method, MethodCard
from anytime_bench.errors import UserError
from anytime_bench.training.checkpoints import read_tensors
from anytime_bench.training.config import RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.loop import train
from anytime_bench.training.optimisers import learning_rate, make_optimiser, set_learning_rate


class Net(AnytimeModel):
    num_exits, ticks = 1, (1,)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def stream(self, images: Tensor) -> Any:
        yield self.head(self.norm(self.body(images.flatten(1))))


class Plain(Method):
    card = MethodCard("Plain")

    def build(self, task: Any) -> AnytimeModel:
        return Net()


class Grouped(Plain):
    def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
        head = list(model.head.parameters())
        body = [p for p in model.parameters() if all(p is not q for q in head)]
        return [{"params": body}, {"params": head, "lr_scale": 0.1, "weight_decay": 0.0}]


def split(count: int = 40) -> DeviceSplit:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return DeviceSplit(images, (images.flatten(1).float().mean(1) > 127).long(), *torch.ones(2, 1, 1, 1, 1))


def trained(folder: Path, method: Method | None = None, epochs: int = 3, resume: bool = False, **settings: Any) -> Net:
    torch.manual_seed(0)
    model = Net()
    config = RunConfig(training=TrainingConfig(epochs=epochs, batch_size=8, **{"lr": 0.05, **settings}))
    folder.mkdir(parents=True, exist_ok=True)
    train(method or Plain(), model, split(), split(), config, seed=0, folder=folder, resume=resume)
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["sgd", "AdamW", "adam", "rmsprop", "NAdam", "adagrad"])
def test_any_optimiser_of_torch_learns_by_name(name: str, tmp_path: Path) -> None:
    before = Net()
    torch.manual_seed(0)
    before = Net()
    assert not same(before, trained(tmp_path, optimizer=name, lr=0.01))


def test_adamw_is_torchs_own(tmp_path: Path) -> None:
    optimiser = make_optimiser(
        Plain(), Net(), TrainingConfig(optimizer="adamw", lr=0.01, optimizer_args={"betas": [0.8, 0.9]})
    )
    assert type(optimiser) is torch.optim.AdamW
    assert optimiser.defaults["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "adanw"}, "AdamW|adamw"),
        ({"optimizer": "adamw", "optimizer_args": {"beta": 1}}, "no keyword 'beta'"),
        ({"optimizer": "adamw", "optimizer_args": {"betas": [2, 3]}}, "optimizer=adamw"),
    ],
)
def test_a_wrong_name_or_keyword_is_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_optimiser(Plain(), Net(), TrainingConfig(**settings))


def test_norms_and_biases_are_spared_where_the_recipe_says_so() -> None:
    model = Net()
    optimiser = make_optimiser(Plain(), model, TrainingConfig(decay_norms=False))
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "body.weight": 5e-4, "body.bias": 0.0, "norm.weight": 0.0, "norm.bias": 0.0,
        "head.weight": 5e-4, "head.bias": 0.0,
    }  # fmt: skip


def test_a_methods_groups_keep_their_own_rate_and_decay() -> None:
    optimiser = make_optimiser(Grouped(), Net(), TrainingConfig())
    set_learning_rate(optimiser, 0.2)
    assert [(g["lr"], g["weight_decay"]) for g in optimiser.param_groups] == [(0.2, 5e-4), (pytest.approx(0.02), 0.0)]


def test_a_parameter_in_no_group_is_named() -> None:
    class Forgetful(Plain):
        def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
            return [{"params": [model.head.weight]}]

    model = Net()
    for settings in (TrainingConfig(), TrainingConfig(decay_norms=False)):
        with pytest.raises(UserError, match=r"^parameter_groups leaves out body.weight, body.bias and 3 others: add"):
            make_optimiser(Forgetful(), model, settings)
    model.body.requires_grad_(False)
    with pytest.raises(UserError, match=r"leaves out norm.weight, norm.bias, head.bias: add"):
        make_optimiser(Forgetful(), model, TrainingConfig())
    model.norm.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    make_optimiser(Forgetful(), model, TrainingConfig())


def test_a_groups_own_rate_is_refused_where_the_schedule_would_overwrite_it() -> None:
    class Rated(Plain):
        def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
            return [{"params": list(model.parameters()), "lr": 0.5}]

    with pytest.raises(UserError, match="'lr' is set by the schedule; give lr_scale, a factor"):
        make_optimiser(Rated(), Net(), TrainingConfig())


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """No batch norm, and a loss that is a mean: two halves of 4 make the step of 8, but for what bfloat16 rounds."""
    whole = trained(tmp_path / "a", epochs=1, precision="fp32")
    torch.manual_seed(0)
    halves = Net()
    config = RunConfig(training=TrainingConfig(epochs=1, batch_size=4, accumulate=2, lr=0.05, precision="fp32"))
    (tmp_path / "b").mkdir()
    train(Plain(), halves, split(), split(), config, seed=0, folder=tmp_path / "b", resume=False)
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_resumed_training_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    settings = {"optimizer": name, "lr": 0.01, "schedule": "constant"}
    whole = trained(tmp_path / "whole", **settings)

    class Stop(Exception):
        pass

    def stop(step: Any) -> None:
        if step.epoch == 3:
            raise Stop

    torch.manual_seed(0)
    model, config = Net(), RunConfig(training=TrainingConfig(epochs=3, batch_size=8, **settings))
    folder = tmp_path / "cut"
    folder.mkdir()
    with pytest.raises(Stop):
        train(Plain(), model, split(), split(), config, seed=0, folder=folder, resume=False, on_step=stop)
    assert same(whole, trained(folder, resume=True, **settings))


def test_a_flipped_bit_in_a_checkpoint_is_named_and_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    settings = {"schedule": "constant"}
    whole = trained(tmp_path / "whole", **settings)
    torch.manual_seed(0)
    model, config = Net(), RunConfig(training=TrainingConfig(epochs=3, batch_size=8, lr=0.05, **settings))
    folder, warnings = tmp_path / "cut", []
    folder.mkdir()

    def stop(step: Any) -> None:
        if step.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Plain(), model, split(), split(), config, seed=0, folder=folder, resume=False, on_step=stop)
    checkpoint = folder / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-3] ^= 4
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match="does not have the hash"):
        read_tensors(checkpoint)
    torch.manual_seed(0)
    again = Net()
    train(
        Plain(), again, split(), split(), config, seed=0, folder=folder, resume=True, warn=warnings.append,
    )  # fmt: skip
    assert "is damaged" in warnings[0]
    assert same(whole, again), "training starts anew from the model as it was built"


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("linear", [1.0, 0.75, 0.5, 0.0]), ("cosine", [1.0, 0.8536, 0.5, 0.0]), ("constant", [1.0] * 4)],
)
def test_schedules_end_where_they_say(schedule: str, values: list[float]) -> None:
    config = TrainingConfig(epochs=4, lr=1.0, schedule=schedule)
    assert [learning_rate(config, epoch) for epoch in (0, 1, 2, 4)] == pytest.approx(values, abs=1e-4)


def test_a_compiled_forward_pass_gives_the_same_answers_and_leaves_no_trace(tmp_path: Path, monkeypatch: Any) -> None:
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: calls.append(function) or function)
    model = trained(tmp_path / "a", compile=True, epochs=1)
    assert calls, "the forward pass was compiled"
    assert model._compiled_call_impl is None
    assert same(model, trained(tmp_path / "b", epochs=1))
