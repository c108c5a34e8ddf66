"""BoostNet against the published implementation's numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from golden.compare import close, eval_images, train_batch, vectors
from golden.fill import fill_boostnet, msdnet_keys
from numpy.typing import NDArray
from support.fixed_answers import FixedAnswers
from torch import Tensor

from anytime_bench.tasks.task import TaskCard
from baselines.boostnet.methods import BoostNet, BoostNetOptions
from baselines.boostnet.model import BoostedNet, boosted_losses
from baselines.msdnet.methods import MSDNetOptions
from baselines.msdnet.model import MSDNet

GOLDEN = vectors("boostnet")
#: The vectors' two sets of exit weights: suffix of the array names, weights.
WEIGHTS = [("", GOLDEN["rw"].tolist()), ("_list", GOLDEN["rw_list"].tolist())]
double = pytest.mark.usefixtures("float64")


def published(weights: list[float], equilibrium: bool = True) -> tuple[BoostNet, BoostedNet]:
    """The row as the vectors were made, its network filled by the rule and in training mode."""
    network = MSDNetOptions(blocks=5, base=2, step=1, channels=8, growth=4)
    row = BoostNet(
        BoostNetOptions(
            reweight=weights, gradient_equilibrium=equilibrium, published_sum=True, msdnet=network,
        )
    )  # fmt: skip
    card = TaskCard("c", "c", tuple("abcdefghij"), (3, 32, 32), {}, (0.0,) * 3, (1.0,) * 3)
    model = row.build(card)
    assert isinstance(model, BoostedNet)
    return row, fill_boostnet(model).train()


def msdnet(model: BoostedNet) -> MSDNet:
    assert isinstance(model.base, MSDNet)
    return model.base


def tensors(model: BoostedNet) -> Iterator[tuple[str, Tensor]]:
    """Weight, bias, running mean and running variance of every module, with their keys."""
    for key, module in msdnet_keys(msdnet(model)):
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name != "num_batches_tracked":
                yield f"{key}.{name}", tensor


def published_sums(logits: Tensor, weights: list[float]) -> Tensor:
    """G_{-1}..G_{E-1}."""
    sums = [torch.zeros_like(logits[0])]
    for own, weight in zip(logits, weights, strict=True):
        sums.append(weight * (own + sums[-1]))
    return torch.stack(sums)


@double
def test_filled_tensors_are_those_of_the_golden_table() -> None:
    _, model = published(GOLDEN["rw"].tolist())
    sizes = {key: tensor.numel() for key, tensor in tensors(model)}
    sums = {key: float(tensor.detach().sum()) for key, tensor in tensors(model)}
    keys = [key.decode() for key in GOLDEN["tensor_keys"]]
    assert set(keys) == set(sums)
    assert [sizes[key] for key in keys] == GOLDEN["tensor_size"].tolist()
    close(np.array([sums[key] for key in keys]), GOLDEN["tensor_sum"])
    assert sum(parameter.numel() for parameter in model.parameters()) == GOLDEN["n_params"]
    assert msdnet(model).steps == GOLDEN["steps"].tolist()


@double
@pytest.mark.parametrize(("suffix", "weights"), WEIGHTS)
def test_answers_of_every_exit(suffix: str, weights: list[float]) -> None:
    model, images = published(weights)[1].eval(), eval_images()
    close(model.base(images), GOLDEN["eval_f"])
    close(model(images), GOLDEN[f"eval_F{suffix}"])
    close(torch.stack(list(model.stream(images))), GOLDEN[f"eval_F{suffix}"])
    close(torch.stack([model.answer(images, k) for k in range(5)]), GOLDEN[f"eval_F{suffix}"])
    if suffix:
        close(published_sums(model.base(images), weights), GOLDEN["eval_G_list"])


@double
@pytest.mark.parametrize(("suffix", "weights"), WEIGHTS)
@pytest.mark.parametrize(("name", "equilibrium"), [("ge", True), ("noge", False)])
def test_losses_gradients_and_statistics_of_a_training_step(
    name: str, equilibrium: bool, suffix: str, weights: list[float]
) -> None:
    row, model = published(weights, equilibrium)
    images, targets = train_batch()
    close(model.base(images), GOLDEN["train_f"])
    row, model = published(weights, equilibrium)
    network, outputs = msdnet(model), {}
    for feature in network.grid:
        module = network.features[feature.name]
        module.register_forward_hook(lambda _, __, output, name=feature.name: outputs.update({name: output}))
    logits = model.base(images)
    for output in outputs.values():
        output.retain_grad()
    losses = boosted_losses(logits, targets, model.reweight, row.config.published_sum)
    close(losses, GOLDEN[f"train_losses_{name}{suffix}"])
    losses.sum().backward()
    table = dict(tensors(model))
    rows = []
    for key in GOLDEN["tensor_keys"]:
        tensor = table[key.decode()]
        change = tensor.grad if tensor.requires_grad else tensor  # of a running statistic, what it has become
        rows.append([0.0, 0.0] if change is None else [float(change.norm()), float(change.sum())])
    close(np.array(rows), GOLDEN[f"train_grad_{name}{suffix}"])
    close(block_gradients(network, outputs), GOLDEN[f"train_featgrad_{name}{suffix}"])


def block_gradients(network: MSDNet, outputs: dict[str, Tensor]) -> NDArray[np.float64]:
    """Gradient norms at the end of each block, a column per scale; -1 where a block has dropped the scale."""
    norms = np.full((network.num_exits, 3), -1.0)
    for feature in network.grid:  # in order: the last feature of a block and scale, a transition included, stays
        gradient = outputs[feature.name].grad
        norms[feature.block, feature.scale] = 0.0 if gradient is None else float(gradient.norm())
    return norms


@double
def test_three_steps_of_the_published_recipe() -> None:
    row, model = published(GOLDEN["rw"].tolist())
    images, targets = train_batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(3):
        each = boosted_losses(model.base(images), targets, model.reweight, row.config.published_sum)
        losses.append(each.detach())
        optimizer.zero_grad()
        each.sum().backward()
        optimizer.step()
    close(torch.stack(losses), GOLDEN["sgd_losses"])
    close(model.eval()(eval_images()), GOLDEN["sgd_eval_F"])


@double
@pytest.mark.parametrize(("suffix", "weights"), WEIGHTS)
def test_the_formulas_alone(suffix: str, weights: list[float]) -> None:
    logits = torch.from_numpy(GOLDEN["unit_f"]).requires_grad_()
    targets = torch.from_numpy(GOLDEN["unit_y"])
    losses = boosted_losses(logits, targets, torch.tensor(weights), published=True)
    close(losses, GOLDEN[f"unit_losses{suffix}"])
    losses.sum().backward()
    assert logits.grad is not None
    close(logits.grad, GOLDEN[f"unit_grad{suffix}"])
    model = BoostedNet(FixedAnswers(logits), weights)
    close(model(torch.zeros(4)), GOLDEN[f"unit_F{suffix}"])
