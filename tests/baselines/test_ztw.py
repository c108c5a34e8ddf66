"""Zero Time Waste against the numbers of the paper's code and of its rewrite, and what recycling must leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_ensembles, fill_head, fill_ztw, head_keys, ztw_keys
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import Progress
from anytime_bench.scores.stopping import exits_by_threshold, outcome
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.model import CascadedResNet
from baselines.residual import cifar_resnet, suite_resnet
from baselines.ztw.ensembles import Ensembles
from baselines.ztw.heads import RewriteHead, head_maker
from baselines.ztw.methods import ZTW, ZTWOptions, heads_loss
from baselines.ztw.model import StackedHeads, ZeroTimeWaste

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ztw.npz", allow_pickle=False)
CARD = TaskCard("digits", "t", tuple("abcdefghij"), (1, 16, 16), {}, (0.0,), (1.0,))
SMALL = {"blocks": [1, 1, 2], "width": 4}
FIRST = Progress(1, 1, 1, 1)


def close(ours: Tensor | NDArray[np.float64], golden: NDArray[np.float64]) -> None:
    """At 1e-9 relative to the largest golden magnitude."""
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    assert ours.shape == golden.shape
    assert np.abs(ours - golden).max() <= 1e-9 * np.abs(golden).max()


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


double = pytest.mark.usefixtures("_double")


def published(
    stack: bool = True,
    norm: bool = False,
    ic_input: str = "pre",
    blocks: NDArray[np.int64] | range | None = None,
    frozen: bool = True,
    detach: bool = True,
) -> ZeroTimeWaste:
    """The CIFAR ResNet-56 of the vectors, filled by the rule."""
    blocks = GOLDEN["net6_ic_blocks"].tolist() if blocks is None else blocks
    heads = StackedHeads(
        cifar_resnet(56), 10, (3, 32, 32), blocks, head_maker("original", stack, norm), ic_input, frozen, detach
    )
    return fill_ztw(ZeroTimeWaste(heads, Ensembles("geometric", heads.num_exits, 10)))


def eval_images() -> Tensor:
    return torch.from_numpy(np.random.RandomState(7).standard_normal((2, 3, 32, 32)))


def train_batch() -> tuple[Tensor, Tensor]:
    draw = np.random.RandomState(11)
    return torch.from_numpy(draw.standard_normal((4, 3, 32, 32))), torch.from_numpy(draw.randint(0, 10, size=4))


def tensors(keys: Iterator[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Every weight, bias, alpha and running statistic by its key."""
    return {
        f"{key}.{name}": tensor
        for key, module in keys
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        if name != "num_batches_tracked"
    }


def gradients(table: dict[str, Tensor], keys: NDArray[np.bytes_]) -> NDArray[np.float64]:
    """L2 norm and sum of each tensor's gradient, 0 without one."""
    changes = [table[key.decode()].grad for key in keys]
    return np.array([[0.0, 0.0] if one is None else [float(one.norm()), float(one.sum())] for one in changes])


@double
def test_filled_tensors_are_those_of_the_golden_table() -> None:
    table = tensors(ztw_keys(published().base))
    keys = [key.decode() for key in GOLDEN["net6_tensor_keys"]]
    assert set(keys) == set(table)
    assert [table[key].numel() for key in keys] == GOLDEN["net6_tensor_size"].tolist()
    close(torch.stack([table[key].sum() for key in keys]), GOLDEN["net6_tensor_sum"])


@double
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("net6", {}),
        ("net6_nostack", {"stack": False}),
        ("net6_ln", {"norm": True}),
        ("net27", {"blocks": range(27)}),
    ],
)
def test_logits_and_parameters(name: str, options: dict[str, object]) -> None:
    model = published(**options).eval().base  # type: ignore[arg-type]
    close(model(eval_images()), GOLDEN[f"{name}_eval_logits"])
    exits = range(model.num_exits)
    close(torch.stack([model.answer(eval_images(), k) for k in exits[::5]]), GOLDEN[f"{name}_eval_logits"][::5])
    assert sum(parameter.numel() for parameter in model.parameters()) == GOLDEN[f"{name}_n_params"]


@double
def test_logits_after_the_relu() -> None:
    close(published(ic_input="post").eval().base(eval_images()), GOLDEN["net6_eval_logits_postrelu"])


@double
def test_answers_are_the_geometric_ensembles() -> None:
    model = published().eval()
    close(model(eval_images()), GOLDEN["net6_ens_geometric"])
    close(torch.stack(list(model.stream(eval_images()))), GOLDEN["net6_ens_geometric"])


@double
@pytest.mark.parametrize(("suffix", "detach"), [("", True), ("_nodetach", False)])
def test_heads_on_a_frozen_network(suffix: str, detach: bool) -> None:
    model = published(detach=detach).train().base
    images, targets = train_batch()
    logits = model(images)
    close(logits, GOLDEN["net6_ic_only_logits"])
    loss = heads_loss(logits, targets)
    close(loss, GOLDEN[f"net6_ic_only_loss{suffix}"])
    loss.backward()
    close(gradients(tensors(ztw_keys(model)), GOLDEN["net6_tensor_keys"]), GOLDEN[f"net6_ic_only_grad{suffix}"])
    before = published().base.backbone.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())


@double
def test_heads_and_network_together() -> None:
    model = published(frozen=False).train().base
    images, targets = train_batch()
    loss = heads_loss(model(images), targets, "joint")
    close(loss, GOLDEN["net6_joint_loss"])
    loss.backward()
    close(gradients(tensors(ztw_keys(model)), GOLDEN["net6_tensor_keys"]), GOLDEN["net6_joint_grad"])


def test_learning_rate_of_the_published_recipe() -> None:
    from anytime_bench.training.config import TrainingConfig
    from anytime_bench.training.loop import learning_rate

    # "x0.1 from epoch 16": epochs count from 1 in the vectors, from 0 in the schedule.
    config = TrainingConfig(epochs=50, lr=1e-3, schedule="step", milestones=[15], gamma=0.1)
    close(np.array([learning_rate(config, epoch) for epoch in range(50)]), GOLDEN["lr_ic_only"])


@double
@pytest.mark.parametrize("kind", ["geometric", "additive", "standard"])
def test_ensembles_alone(kind: str) -> None:
    logits, targets = torch.from_numpy(GOLDEN["ens_logits"]), torch.from_numpy(GOLDEN["ens_y"])
    ensembles = fill_ensembles(Ensembles(kind, 5, 10)).requires_grad_(True)
    log_probabilities = logits.log_softmax(2)
    close(ensembles.answers(log_probabilities), GOLDEN[f"ens_{kind}_out"])
    one_by_one = [ensembles.answer(log_probabilities[: m + 1].transpose(0, 1)) for m in range(5)]
    close(torch.stack(one_by_one), GOLDEN[f"ens_{kind}_out"])
    losses = ensembles.losses(log_probabilities, targets)
    close(losses, GOLDEN[f"ens_{kind}_loss"])
    if kind == "standard":
        return
    close(ensembles.weight, GOLDEN["ens_w"])
    losses.sum().backward()
    assert ensembles.weight.grad is not None
    assert ensembles.bias.grad is not None
    close(ensembles.weight.grad, GOLDEN[f"ens_{kind}_grad_w"])
    close(ensembles.bias.grad, GOLDEN[f"ens_{kind}_grad_b"])
    ensembles.fit(logits, targets, epochs=5, batch_size=16)
    close(ensembles.weight, GOLDEN[f"ens_{kind}_w_after5"])
    close(ensembles.bias, GOLDEN[f"ens_{kind}_b_after5"])
    assert not any(parameter.requires_grad for parameter in ensembles.parameters())


def rewrite_heads(kind: str, norm: bool) -> nn.ModuleList:
    make = head_maker(kind, norm=norm)
    shapes = zip(GOLDEN["cv_channels"].tolist(), GOLDEN["cv_sizes"].tolist(), strict=True)
    heads = nn.ModuleList(make(k, (channels, size, size), 10) for k, (channels, size) in enumerate(shapes))
    for k, head in enumerate(heads):
        fill_head(f"ztw/h{k}", head)
    return heads


def rewrite_logits(heads: nn.ModuleList, detach: bool = True) -> tuple[Tensor, Tensor]:
    """Logits ``(5, 4, 10)`` of four heads and the network, and the targets."""
    logits: list[Tensor] = []
    for k, head in enumerate(heads):
        channels, size = int(GOLDEN["cv_channels"][k]), int(GOLDEN["cv_sizes"][k])
        feature = torch.from_numpy(np.random.RandomState(300 + k).standard_normal((4, channels, size, size)))
        previous = None if k == 0 else logits[-1].detach() if detach else logits[-1]
        logits.append(head(feature, previous))
    final = 2 * torch.from_numpy(np.random.RandomState(350).standard_normal((4, 10)))
    return torch.stack([*logits, final]), torch.from_numpy(np.random.RandomState(351).randint(0, 10, 4))


@double
@pytest.mark.parametrize("kind", ["pool", "conv"])
@pytest.mark.parametrize(("suffix", "norm"), [("", True), ("_noln", False)])
def test_heads_of_the_rewrite(kind: str, suffix: str, norm: bool) -> None:
    name = f"cv_{kind}{suffix}"
    heads = rewrite_heads(kind, norm)
    table = tensors(pair for k, head in enumerate(heads) for pair in head_keys(f"ztw/h{k}", head))
    keys = GOLDEN[f"{name}_tensor_keys"]
    assert {key.decode() for key in keys} == set(table)
    if norm:
        close(torch.stack([table[key.decode()].sum() for key in keys]), GOLDEN[f"{name}_tensor_sum"])
    logits, targets = rewrite_logits(heads)
    close(logits, GOLDEN[f"{name}_logits"])
    loss = heads_loss(logits, targets, head=kind)
    close(loss, GOLDEN[f"{name}_loss"])
    loss.backward()
    close(gradients(table, keys), GOLDEN[f"{name}_grad"])


@double
@pytest.mark.parametrize("kind", ["pool", "conv"])
def test_heads_of_the_rewrite_without_stopping_the_gradient(kind: str) -> None:
    heads = rewrite_heads(kind, norm=True)
    logits, targets = rewrite_logits(heads, detach=False)
    loss = heads_loss(logits, targets, head=kind)
    close(loss, GOLDEN[f"cv_{kind}_nodetach_loss"])
    loss.backward()
    table = tensors(pair for k, head in enumerate(heads) for pair in head_keys(f"ztw/h{k}", head))
    close(gradients(table, GOLDEN[f"cv_{kind}_tensor_keys"]), GOLDEN[f"cv_{kind}_nodetach_grad"])


@double
@pytest.mark.parametrize("kind", ["pool", "conv"])
@pytest.mark.parametrize(("name", "ensemble"), [("geometric", "geometric"), ("arithmetic", "additive")])
def test_ensembles_of_the_rewrite(kind: str, name: str, ensemble: str) -> None:
    logits, targets = rewrite_logits(rewrite_heads(kind, norm=True))
    ensembles = fill_ensembles(Ensembles(ensemble, 4, 10, epsilon=1e-40)).requires_grad_(True)
    answers = torch.cat([ensembles.answers(logits[:4].detach().log_softmax(2)), logits[4:]])
    close(answers, GOLDEN[f"cv_{kind}_{name}_out"])
    loss = torch.stack([F.cross_entropy(answer, targets) for answer in answers]).mean()
    close(loss, GOLDEN[f"cv_{kind}_{name}_loss"])
    loss.backward()
    assert ensembles.weight.grad is not None
    assert ensembles.bias.grad is not None
    close(ensembles.weight.grad, GOLDEN[f"cv_{kind}_{name}_grad_w"])
    close(ensembles.bias.grad, GOLDEN[f"cv_{kind}_{name}_grad_b"])


def test_early_exit_by_confidence() -> None:
    # Where no confidence equals a threshold, "above" (theirs) and "at least" (the suite's) are the same rule. The
    # softmax is over the classes: over the batch, everyone would leave at the first exit.
    logits, targets = torch.from_numpy(GOLDEN["dec_logits"]), GOLDEN["dec_y"]
    confidence = logits.softmax(2).amax(2).numpy()
    correct = logits.argmax(2).numpy() == targets
    close(correct.mean(axis=1), GOLDEN["dec_head_acc"])
    results = [
        outcome(exits_by_threshold(confidence, threshold), correct, GOLDEN["dec_cost"])
        for threshold in GOLDEN["dec_thresholds"]
    ]
    close(np.array([accuracy for accuracy, _ in results]), GOLDEN["dec_acc"])
    close(np.array([cost for _, cost in results]), GOLDEN["dec_avg_cost"])


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
