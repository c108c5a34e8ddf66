"""What ``training.precision`` comes to on a device, and that losses and resumed runs keep theirs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.tasks.task import Split, TaskCard
from anytime_bench.training.checkpoints import load_weights
from anytime_bench.training.config import RunConfig, TrainingConfig
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.loop import train, training_precision
from baselines.boostnet.model import boosted_losses
from baselines.cascade.td import td_loss

CARD = TaskCard("dots", "Dots", ("a", "b"), (1, 4, 4), {"train": 24}, (0.5,), (0.25,))


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx512_f": True}, "fp32"), ({}, "fp32")],
)
def test_auto_is_what_the_processor_multiplies_in(
    capabilities: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training_precision("auto", torch.device("cpu")) == precision
    assert training_precision("auto", torch.device("cuda")) == "bf16"
    assert training_precision("fp32", torch.device("cuda")) == "fp32"
    assert training_precision("bf16", torch.device("cpu")) == "bf16"


def test_auto_is_float32_where_torch_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert training_precision("auto", torch.device("cpu")) == "fp32"


@pytest.mark.parametrize("loss", [lambda logits, y: td_loss(logits, y, 0.3), None], ids=["td", "boosted"])
def test_losses_of_bfloat16_logits_are_those_of_the_same_numbers_in_float32(loss: Any) -> None:
    """Autocast leaves a CPU's softmax in bfloat16; the losses do not take part in that."""

    def boosted(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return boosted_losses(logits, y, torch.tensor([1.0, 0.7, 0.3])).sum()

    loss = loss or boosted
    logits = 8 * torch.randn(3, 16, 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = torch.arange(16) % 10
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, y)
    assert value.dtype == torch.float32
    assert value == loss(logits.float(), y)


class Net(AnytimeModel):
    num_exits, ticks = 1, (1,)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)
        self.seen: list[torch.dtype] = []

    def stream(self, images: Any) -> Any:
        out = self.head(images.flatten(1))
        if self.training:
            self.seen.append(out.dtype)
        yield out


class Plain(Method):
    card = MethodCard("Plain")

    def build(self, task: TaskCard) -> AnytimeModel:
        return Net()


def trained(folder: Path, precision: str, resume: bool = False, stop: bool = False) -> Net:
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(0).integers(0, 255, (24, 1, 4, 4)).astype(np.uint8)
    split = DeviceSplit.place(Split(images, np.arange(24) % 2), CARD, "cpu")
    config = RunConfig(training=TrainingConfig(epochs=2, batch_size=8, precision=precision))

    def on_step(step: Any) -> None:
        if stop and step.epoch == 2:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    model = Net()
    train(Plain(), model, split, split, config, seed=0, folder=folder, resume=resume, on_step=on_step)
    return model


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_weights_say_in_which_precision_they_were_trained(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = trained(tmp_path, precision)
    assert set(model.seen) == {dtype}
    finished = load_weights(tmp_path)
    assert finished is not None
    assert finished[1].precision == precision
    assert all(tensor.dtype == torch.float32 for tensor in finished[0].values())


def test_a_run_begun_elsewhere_goes_on_in_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, "auto", stop=True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    model = trained(tmp_path, "auto", resume=True)
    assert set(model.seen) == {torch.bfloat16}
    finished = load_weights(tmp_path)
    assert finished is not None
    assert finished[1].precision == "bf16"
