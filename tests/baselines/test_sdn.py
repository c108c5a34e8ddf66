"""Shallow-Deep Networks against the published implementation's numbers, and what training must leave alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from golden.compare import close, eval_images, train_batch, vectors
from golden.fill import fill_sdn, sdn_keys, seed_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.model import CascadedResNet
from baselines.residual import adopt_serial, cifar_resnet, suite_resnet
from baselines.sdn.methods import SDN, RegimeOptions, SDNICOnly, SDNOptions
from baselines.sdn.model import (
    InternalClassifier,
    ShallowDeepNet,
    ic_only_loss,
    place_classifiers,
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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(0, 50))
def test_placement_is_ordered_distinct_and_nearest(blocks: list[int], head: int) -> None:
    placed = place_classifiers([*blocks, head])
    shares = np.cumsum(blocks) / (sum(blocks) + head)
    assert list(placed) == sorted(set(placed))
    assert list(placed.values()) == sorted(set(placed.values()))
    assert all(block < len(blocks) - 1 for block in placed)
    for block, position in placed.items():
        assert abs(shares[block] - position) <= np.abs(shares[:-1] - position).min() + 1e-12


CARD = TaskCard("digits", "t", tuple("abcdefghij"), (1, 16, 16), {}, (0.0,), (1.0,))
SMALL = {"blocks": [1, 1, 2], "width": 4}


def serial_weights() -> dict[str, Tensor]:
    """A small CascadedResNet with statistics that differ from row to row."""
    serial = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule="serial")
    serial.train()(torch.randn(8, 1, 16, 16))
    return serial.eval().state_dict()


@pytest.mark.parametrize("schedule", ["serial", "parallel"])
def test_the_suites_backbone_is_the_plain_pass_of_the_cascade(schedule: str) -> None:
    cascade = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule=schedule)
    cascade.train()(torch.randn(8, 1, 16, 16))
    backbone = suite_resnet((1, 1, 2), 4, 10, 1).eval()
    adopt_serial(backbone, cascade.eval().state_dict())
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(backbone(images), cascade(images)[-1], atol=1e-6)


def test_ic_only_training_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    method = SDNICOnly(SDNOptions(**SMALL))
    assert method.starts_from == "serial_ce"
    model = method.build(CARD)
    assert isinstance(model, ShallowDeepNet)
    method.adopt(model, serial_weights())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, targets = torch.randn(16, 1, 16, 16), torch.arange(16) % 10
    final = model.eval()(images)[-1].detach().clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(1, 21):
        model.train()
        loss = method.training_loss(model, images, targets, Progress(1, 1, step, 20))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("classifiers.") and "alpha" not in name} | {
        f"classifiers.{k}.alpha" for k, one in enumerate(model.classifiers) if one.window > (1, 1)
    }
    assert losses[-1] < losses[0]
    assert torch.equal(model.eval()(images)[-1], final)


def test_sdn_training_weights_grow_with_the_epochs() -> None:
    torch.manual_seed(0)
    method = SDN(SDNOptions(**SMALL))
    model = method.build(CARD)
    images, targets = torch.randn(4, 1, 16, 16), torch.arange(4)
    losses = F.cross_entropy(model(images).flatten(0, 1), targets.repeat(model.num_exits), reduction="none")
    exits = losses.view(model.num_exits, 4).mean(1)
    assert isinstance(model, ShallowDeepNet)
    for epoch in (1, 5, 10):
        weights = torch.tensor([min(c, 0.01 + epoch * c / 10) for c in model.nominal])
        expected = (weights * exits[:-1]).sum() + exits[-1]
        assert torch.allclose(method.training_loss(model, images, targets, Progress(epoch, 10, 1, 1)), expected)


def trained_backbone(regime: str) -> tuple[SDN, ShallowDeepNet, dict[str, Tensor]]:
    """A row of this regime that has taken over a small serial network, and that network's weights."""
    torch.manual_seed(0)
    weights = serial_weights()
    method = SDN(RegimeOptions(**SMALL, regime=regime))
    model = method.build(CARD)
    assert isinstance(model, ShallowDeepNet)
    method.adopt(model, weights)
    return method, model, weights


@pytest.mark.parametrize("regime", ["disjoint", "mixed"])
def test_both_two_phase_regimes_begin_with_the_serial_network(regime: str) -> None:
    method, model, weights = trained_backbone(regime)
    assert method.starts_from == "serial_ce"
    serial = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule="serial")
    serial.load_state_dict(weights)
    images = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(model.eval()(images)[-1], serial.eval()(images)[-1], atol=1e-6)
    assert SDN(RegimeOptions(**SMALL)).starts_from is None


def test_the_regimes_train_what_they_say() -> None:
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8)
    moving = {}
    for regime in ("joint", "disjoint", "mixed"):
        method, model, _ = trained_backbone(regime)
        method.training_loss(model.train(), images, targets, Progress(1, 10, 1, 1)).backward()
        moving[regime] = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    everything = {name for name, p in trained_backbone("joint")[1].named_parameters() if p.requires_grad}
    assert moving["joint"] == moving["mixed"] == everything
    assert moving["disjoint"] == {name for name in everything if name.startswith("classifiers.")}


def test_mixed_training_has_the_loss_of_joint_training() -> None:
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8)
    losses = []
    for regime in ("joint", "mixed"):
        method, model, _ = trained_backbone(regime)
        losses.append(method.training_loss(model.train(), images, targets, Progress(3, 10, 1, 1)))
    assert torch.equal(*losses)


def test_ic_only_is_the_disjoint_regime_under_its_published_options() -> None:
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8)
    disjoint, model, weights = trained_backbone("disjoint")
    torch.manual_seed(0)
    serial_weights()
    ic_only = SDNICOnly(SDNOptions(**SMALL))
    other = ic_only.build(CARD)
    ic_only.adopt(other, weights)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    losses = [
        method.training_loss(net.train(), images, targets, Progress(1, 1, 1, 1))
        for method, net in ((disjoint, model), (ic_only, other))
    ]
    assert torch.equal(*losses)
    names = {field.name for field in dataclasses.fields(SDNICOnly.Config)}
    assert names == {"backbone", "blocks", "width", "stem_pool", "depth", "ic_input", "weights"}


@pytest.mark.parametrize("ic_input", ["pre", "post"])
def test_a_kept_sample_goes_on_alone(ic_input: str) -> None:
    model = ShallowDeepNet(suite_resnet((2, 2), 4, 10, 1), 10, (1, 16, 16), ic_input).eval()
    images = torch.randn(5, 1, 16, 16)
    keep = torch.tensor([True, False, True, True, False])
    with torch.no_grad():
        full, stream = model(images), model.stream(images)
        next(stream)
        second = stream.send(keep)
        third = stream.send(torch.tensor([False, True, True]))
    assert torch.allclose(second, full[1][keep], atol=1e-5)
    assert torch.allclose(third, full[2][[2, 3]], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SDNOptions(backbone="vgg"), "backbone is 'vgg'; expected suite, cifar or timm"),
        (SDNOptions(backbone="cifar", depth=55), "depth is 55; a CIFAR ResNet has 6n"),
        (SDNOptions(ic_input="mid"), "ic_input is 'mid'"),
        (RegimeOptions(regime="frozen"), "regime is 'frozen'; expected one of joint, disjoint, mixed"),
        (RegimeOptions(regime="mixed", backbone="cifar"), "the mixed regime begins with a trained network"),
        (SDNOptions(width=0), "width holds 0"),
    ],
)
def test_bad_options_are_named(options: SDNOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SDN(options).build(CARD)


def test_ic_only_needs_a_trained_network() -> None:
    with pytest.raises(ValueError, match="backbone 'cifar' has none: give weights=FILE"):
        SDNICOnly(SDNOptions(backbone="cifar"))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="use the same blocks"):
        adopt_serial(suite_resnet((1, 1, 1), 4, 10, 1), serial_weights())
    with pytest.raises(ValueError, match="use the same blocks and width"):
        adopt_serial(suite_resnet((1, 1, 2), 8, 10, 1), serial_weights())


def test_images_of_another_size_are_refused() -> None:
    model = ShallowDeepNet(suite_resnet((1, 1), 4, 10, 1), 10, (1, 16, 16))
    with pytest.raises(ValueError, match=r"were built for \(B, 1, 16, 16\)"):
        next(model.stream(torch.zeros(1, 1, 8, 8)))
