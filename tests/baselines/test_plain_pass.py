"""The denominator: a full pass is the same operators in every row that wraps the suite's ResNet, and in torch.nn."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from anytime_bench import load_method
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.norm import TemporalNorm

TASK = TaskCard("thumbnails", "t", tuple("abcde"), (3, 32, 32), {}, (0.0,) * 3, (1.0,) * 3)
ROWS = (
    "serial_ce", "serial_td", "serial_td_multihead", "cascaded_ce", "cascaded_td", "cascaded_td_multihead",
    "sdn", "static",
)  # fmt: skip


class Operators(TorchDispatchMode):
    """Every operator that is dispatched, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def operators(call: Any) -> Counter[str]:
    with torch.inference_mode(), Operators() as seen:
        call()
    return Counter(seen.names)


class TorchBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.down = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if stride > 1 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        residual += x if self.down is None else self.down(x)
        return self.relu(residual)


def torch_resnet(width: int, classes: int) -> nn.Module:
    """The suite's ResNet-18 as a user of torch.nn would write it, after torchvision's."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = width
    for stage in range(4):
        for stride in (2 if stage else 1, 1):
            layers.append(TorchBlock(channels, width * 2**stage, stride))
            channels = width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)).eval()


def build(name: str) -> Any:
    return load_method(name, width=4).build(TASK).eval()


@pytest.mark.parametrize("name", ROWS)
def test_a_full_pass_is_the_operators_of_a_torch_nn_net(name: str) -> None:
    model, images = build(name), torch.randn(1, 3, 32, 32)
    net, last = torch_resnet(4, 5), model.num_exits - 1
    model.answer(images, last)
    expected, ours = operators(lambda: net(images)), operators(lambda: model.answer(images, last))
    assert abs(ours.total() / expected.total() - 1) <= 0.05, ours - expected
    assert ours["conv2d"] == expected["conv2d"] == 20


@pytest.mark.parametrize("rows", [1, 3])
@torch.no_grad()
def test_a_norm_in_evaluation_is_one_operator_whatever_its_rows(rows: int) -> None:
    norm, plain, x = TemporalNorm(4, rows).eval(), nn.BatchNorm2d(4).eval(), torch.randn(2, 4, 3, 3)
    norm(x)
    assert operators(lambda: norm(x)) == operators(lambda: plain(x)) == {"batch_norm": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: norm.double(),
        copy.deepcopy,
        lambda norm: pickle.loads(pickle.dumps(norm)),
        lambda norm: norm.load_state_dict({k: v + 1 for k, v in norm.state_dict().items()}, assign=True) and norm,
        lambda norm: norm.running_mean.add_(1) is not None and norm,
        lambda norm: norm.to("meta").to_empty(device="cpu"),
    ],
    ids=["cast", "copy", "pickle", "assign", "in place", "meta"],
)
@torch.no_grad()
def test_rows_that_were_read_once_follow_the_statistics(change: Any) -> None:
    """The views of rows that evaluation keeps must never outlive the buffers they show."""
    norm = TemporalNorm(3, 2).eval()
    x = torch.randn(4, 3, 2, 2)
    norm(x)
    norm = change(norm)
    norm.running_mean.copy_(torch.tensor([[0.0], [5.0]]).expand(2, 3))
    norm.running_var.fill_(1.0)
    x = x.to(norm.weight.dtype)
    for first, mean in ((0, 0.0), (1, 5.0), (7, 5.0), (None, 5.0)):
        expected = F.batch_norm(
            x, torch.full_like(norm.weight, mean), torch.ones_like(norm.weight), norm.weight, norm.bias
        )
        torch.testing.assert_close(norm(x, first=first), expected)


def test_a_row_first_read_without_gradients_can_be_used_with_them() -> None:
    norm, x = TemporalNorm(3, 2).eval(), torch.randn(4, 3, 2, 2)
    with torch.inference_mode():
        norm(x)
    norm(x).sum().backward()
    assert norm.weight.grad is not None
