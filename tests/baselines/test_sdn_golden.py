"""Shallow-Deep Networks against the published implementation's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden.compare import close, eval_images, train_batch, vectors
from golden.fill import fill_sdn, sdn_keys, seed_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from baselines.residual import cifar_resnet
from baselines.sdn.model import (
    InternalClassifier,
    ShallowDeepNet,
    ic_only_loss,
    pooling_window,
    sdn_loss,
    survey,
    tau,
)

GOLDEN = vectors("sdn_resnet56")


KINDS = {nn.Conv2d: 0, nn.BatchNorm2d: 1, nn.Linear: 2, InternalClassifier: 3}


double = pytest.mark.usefixtures("float64")


def resnet56(ic_input: str = "pre", frozen: bool = False) -> ShallowDeepNet:
    return fill_sdn(ShallowDeepNet(cifar_resnet(56), ic_input=ic_input, frozen=frozen))


def key_tensor(key: str, module: nn.Module) -> str:
    return f"{key}.alpha" if isinstance(module, InternalClassifier) else f"{key}.weight"


@double
def test_filled_tensors_are_those_of_the_golden_table() -> None:
    table = {int(row[2]): row for row in GOLDEN["tensor_table"]}
    filled = [
        (seed_of(f"{key}.{name}"), tensor.detach().numpy())
        for key, module in sdn_keys(resnet56())
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        if name != "num_batches_tracked"
    ]
    assert {seed for seed, _ in filled} == set(table)
    for seed, tensor in filled:
        ours = np.array([tensor.size, tensor.sum(), np.abs(tensor).sum(), tensor.flat[0]])
        assert np.allclose(ours, table[seed][3:], rtol=1e-12, atol=1e-10)


@double
@pytest.mark.parametrize(("ic_input", "suffix"), [("pre", ""), ("post", "_postrelu")])
def test_logits_and_losses_of_every_exit(ic_input: str, suffix: str) -> None:
    model, images = resnet56(ic_input).eval(), eval_images()
    close(model(images), GOLDEN[f"logits{suffix}"])
    close(torch.stack([model.answer(images, k) for k in range(7)]), GOLDEN[f"logits{suffix}"])
    images, targets = train_batch()
    logits = model.train()(images)
    close(logits, GOLDEN[f"train_logits{suffix}"])
    close(torch.stack([F.cross_entropy(one, targets) for one in logits]), GOLDEN[f"train_ce{suffix}"])


@double
@pytest.mark.parametrize("name", ["sdn_e1", "sdn_e100", "ic_only"])
def test_loss_gradients_and_statistics_of_a_training_step(name: str) -> None:
    model = resnet56().train()
    images, targets = train_batch()
    logits = model(images)
    if name == "ic_only":
        # As published: the network's weights take no gradient, but its batch norm is left in training mode.
        for parameter in model.backbone.parameters():
            parameter.grad = None
            parameter.requires_grad_(False)
        model.load_state_dict(resnet56().state_dict())
        loss = ic_only_loss(model(images), targets)
    else:
        loss = sdn_loss(logits, targets, tau(int(name.removeprefix("sdn_e")), 100, model.nominal))
    close(loss, GOLDEN[f"train_{name}_loss"])
    loss.backward()
    rows = {int(row[11]): index for index, row in enumerate(GOLDEN["module_table"])}
    table = np.zeros((len(rows), 5))
    for key, module in sdn_keys(model):
        table[rows[seed_of(key_tensor(key, module))]] = gradient_row(module)
    close(table, GOLDEN[f"train_{name}_grad_table"])


def gradient_row(module: nn.Module) -> list[float]:
    """Norm and sum of the weight's (alpha's) gradient, norm of the bias's, norms of the running statistics."""

    def norm(tensor: Tensor | None) -> float:
        return 0.0 if tensor is None else float(tensor.detach().norm())

    weight = module.alpha if isinstance(module, InternalClassifier) else module.weight
    bias = getattr(module, "bias", None)
    statistics = [module.running_mean, module.running_var] if isinstance(module, nn.BatchNorm2d) else None
    return [
        norm(weight.grad),
        0.0 if weight.grad is None else float(weight.grad.sum()),
        0.0 if bias is None else norm(bias.grad),
        *([-1.0, -1.0] if statistics is None else map(norm, statistics)),
    ]


def test_parameters_and_layer_shapes() -> None:
    model = ShallowDeepNet(cifar_resnet(56))
    assert sum(p.numel() for p in model.parameters()) == GOLDEN["n_params"]
    assert sum(p.numel() for p in model.backbone.parameters()) == GOLDEN["cnn_n_params"]
    rows = {int(row[11]): row for row in GOLDEN["module_table"]}
    assert len(rows) == len(list(sdn_keys(model)))
    for key, module in sdn_keys(model):
        row = rows[seed_of(key_tensor(key, module))]
        assert row[3] == KINDS[type(module)]
        assert sum(p.numel() for p in module.parameters(recurse=False)) == row[9]


def test_macs_per_block_and_cumulative() -> None:
    model = ShallowDeepNet(cifar_resnet(56)).eval()
    macs, shapes = survey(model.backbone, (3, 32, 32))
    assert macs == GOLDEN["macs_block"].tolist()
    assert sum(macs) == GOLDEN["cnn_macs"]
    assert shapes[26] == (64, 8, 8)
    image = torch.zeros(1, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cumulative = [counter.get_total_flops() // 2 for _ in model.stream(image)]
    assert cumulative == GOLDEN["macs_cum_all_ics"].tolist()
    for k in range(7):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.answer(image, k)
        assert counter.get_total_flops() // 2 == GOLDEN["macs_cum_own_ic"][k]
    own = GOLDEN["macs_cum_all_ics"] - GOLDEN["macs_cum_own_ic"]
    assert np.diff(own).tolist() == GOLDEN["macs_ic"].tolist()


def test_classifiers_stand_where_the_paper_puts_them() -> None:
    model = ShallowDeepNet(cifar_resnet(56))
    assert model.ic_blocks == tuple(GOLDEN["ic_blocks"])
    assert model.nominal == (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)
    assert model.ticks == (5, 9, 13, 17, 21, 25, 28)


def test_pooling_windows_of_all_sizes() -> None:
    ours = [pooling_window(int(size)) for size in GOLDEN["feature_reduction_size"]]
    assert ours == GOLDEN["feature_reduction_kernel"].tolist()


@double
def test_one_internal_classifier_alone() -> None:
    draw = np.random.RandomState(5)
    images, weight, bias = (
        torch.from_numpy(draw.standard_normal(shape)) for shape in ((2, 3, 8, 8), (10, 48), (10,))
    )  # the order of the draws matters
    classifier = InternalClassifier(3, 8, 8, 10)
    with torch.no_grad():
        assert classifier.alpha is not None
        classifier.alpha.fill_(0.3)
        classifier.linear.weight.copy_(weight)
        classifier.linear.bias.copy_(bias)
    close(classifier.reduce(images), GOLDEN["ic_unit_mixed"])
    close(classifier(images), GOLDEN["ic_unit_logits"])


@pytest.mark.parametrize("epochs", [10, 100])
def test_tau_schedule(epochs: int) -> None:
    close(np.array([tau(e, epochs) for e in range(1, epochs + 1)]), GOLDEN[f"tau_{epochs}"])
