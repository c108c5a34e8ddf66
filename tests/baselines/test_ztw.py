"""What recycling predictions must leave alone, what it costs, and how the row is set up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.model import CascadedResNet
from baselines.residual import suite_resnet
from baselines.ztw.ensembles import Ensembles
from baselines.ztw.heads import RewriteHead
from baselines.ztw.methods import ZTW, ZTWOptions
from baselines.ztw.model import StackedHeads, ZeroTimeWaste

CARD = TaskCard("digits", "t", tuple("abcdefghij"), (1, 16, 16), {}, (0.0,), (1.0,))
SMALL = {"blocks": [1, 1, 2], "width": 4}
FIRST = Progress(1, 1, 1, 1)
double = pytest.mark.usefixtures("float64")


@double
def test_without_weights_the_ensemble_is_the_geometric_mean_of_the_probabilities() -> None:
    logits = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    ensembles = Ensembles("geometric", 4, 5)
    nn.init.zeros_(ensembles.weight)
    answers = ensembles.answers(logits.log_softmax(2))
    for m in range(4):
        mean = logits[: m + 1].softmax(2).prod(0) ** (1 / (m + 1))
        assert torch.allclose(answers[m].softmax(1), mean / mean.sum(1, keepdim=True))


@double
def test_the_heads_loss_stops_at_the_logits_of_the_head_before() -> None:
    model = StackedHeads(suite_resnet((1, 1, 2), 4, 10, 1), 10, (1, 16, 16), range(3))
    logits = model(torch.randn(3, 1, 16, 16))
    for k, head in enumerate(model.classifiers):
        reached = torch.autograd.grad(
            logits[k].sum(), [one.classifier.linear.weight for one in model.classifiers], retain_graph=True,
            allow_unused=True,
        )  # fmt: skip
        reaches = [gradient is not None and bool(gradient.any()) for gradient in reached]
        assert reaches == [other is head for other in model.classifiers]


def serial_weights() -> dict[str, Tensor]:
    serial = CascadedResNet(blocks=(1, 1, 2), width=4, in_channels=1, schedule="serial")
    serial.train()(torch.randn(8, 1, 16, 16))
    return serial.eval().state_dict()


@pytest.mark.parametrize("ensemble", ["geometric", "additive"])
@pytest.mark.parametrize("head", ["original", "pool"])
def test_training_leaves_the_network_as_it_was_and_fits_the_ensembles(head: str, ensemble: str) -> None:
    torch.manual_seed(0)
    method = ZTW(ZTWOptions(**SMALL, head=head, ensemble=ensemble, ensemble_epochs=50, ensemble_lr=0.01))
    assert method.starts_from == "serial_ce"
    model = method.build(CARD)
    assert isinstance(model, ZeroTimeWaste)
    method.adopt(model, serial_weights())
    network = {name: tensor.clone() for name, tensor in model.base.backbone.state_dict().items()}
    images, targets = torch.randn(64, 1, 16, 16), torch.arange(64) % 10
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    for _ in range(10):
        loss = method.training_loss(model.train(), images, targets, FIRST)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answers = model.eval()(images)[: model.ensembles.heads]
    before = torch.stack([F.cross_entropy(answer, targets) for answer in answers])
    heads = {name: tensor.clone() for name, tensor in model.base.classifiers.state_dict().items()}
    method.finish(model, lambda: [(images[:40], targets[:40]), (images[40:], targets[40:])])
    answers = model(images)[: model.ensembles.heads]
    after = torch.stack([F.cross_entropy(answer, targets) for answer in answers])
    assert (after < before).all()
    unchanged = {**model.base.classifiers.state_dict()}
    assert all(torch.equal(unchanged[name], tensor) for name, tensor in heads.items())
    assert all(torch.equal(model.base.backbone.state_dict()[name], tensor) for name, tensor in network.items())


@pytest.mark.parametrize("head", ["original", "pool"])
def test_the_rewrite_leaves_the_networks_own_answer_alone(head: str) -> None:
    torch.manual_seed(0)
    model = ZTW(ZTWOptions(**SMALL, head=head)).build(CARD).eval()
    assert isinstance(model, ZeroTimeWaste)
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        own, answer = model.base.backbone(images), model(images)[-1]
    assert torch.allclose(own, answer) == (head == "pool")


@pytest.mark.parametrize("ensemble", ["geometric", "standard"])
def test_a_kept_sample_goes_on_alone(ensemble: str) -> None:
    # The previous logits and the ensemble's members must leave with the samples that leave.
    torch.manual_seed(0)
    model = ZTW(ZTWOptions(**SMALL, ensemble=ensemble)).build(CARD).eval()
    images, keep = torch.randn(5, 1, 16, 16), torch.tensor([True, False, True, True, False])
    with torch.no_grad():
        full, stream = model(images), model.stream(images)
        next(stream)
        second = stream.send(keep)  # type: ignore[attr-defined]
        third = stream.send(torch.tensor([False, True, True]))  # type: ignore[attr-defined]
    assert torch.allclose(second, full[1][keep], atol=1e-5)
    assert torch.allclose(third, full[2][[2, 3]], atol=1e-5)


def test_macs_of_every_exit_counted_by_hand() -> None:
    # Three blocks on 16x16 pixels, which the stem pools to 8x8: 4 channels on 8x8, 8 on 4x4, 16 on 2x2. A head is a
    # 3x3 convolution that keeps map and channels, then linear on 4x4 (or 2x2) pooled pixels and 10 previous logits.
    stem = 16 * 16 * (1 * 4 * 9)
    blocks = [
        8 * 8 * (4 * 4 * 9) * 2,
        4 * 4 * (4 * 8 * 9 + 8 * 8 * 9 + 4 * 8),
        2 * 2 * (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16),
    ]
    heads = [
        8 * 8 * (4 * 4 * 9) + (4 * 16) * 10,
        4 * 4 * (8 * 8 * 9) + (8 * 16 + 10) * 10,
        16 * 10,  # the network's own
    ]
    model = ZTW(ZTWOptions(blocks=[1, 1, 1], width=4)).build(CARD).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted = [counter.get_total_flops() // 2 for _ in model.stream(torch.zeros(1, 1, 16, 16))]
    assert counted == (stem + np.cumsum([b + h for b, h in zip(blocks, heads, strict=True)])).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ZTWOptions(regime="mixed"), "regime is 'mixed'; expected frozen or joint"),
        (ZTWOptions(heads="all"), "heads is 'all'; expected every or sdn"),
        (ZTWOptions(head="linear"), "head is 'linear'; expected one of original, pool, conv"),
        (ZTWOptions(ensemble="mean"), "ensemble is 'mean'; expected one of geometric, additive, standard"),
        (ZTWOptions(head="conv", blocks=[1, 1, 1, 1, 1]), "a head reads 256 channels of 2x2 pixels"),
        (
            ZTWOptions(backbone="cifar"),
            "the frozen regime begins with a trained network, and backbone 'cifar'",
        ),
    ],
)
def test_bad_options_are_named(options: ZTWOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ZTW(options).build(CARD)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (4, 4), (3, 3), (9, 9), (10, 3), (5, 7)])
def test_the_rewrites_head_pools_any_map_and_alpha_learns_where_it_matters(size: tuple[int, int], conv: bool) -> None:
    head = RewriteHead(4, *size, 4, previous=False, conv=conv)
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    learns, head.alpha.requires_grad = head.alpha.requires_grad, True
    logits = head(x)
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    assert head.alpha.grad is not None
    assert learns == (abs(float(head.alpha.grad)) > 1e-6)
