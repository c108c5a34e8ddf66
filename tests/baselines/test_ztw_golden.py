"""Zero Time Waste against the numbers of the paper's code and of its rewrite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from golden.compare import close, eval_images, train_batch, vectors
from golden.fill import fill_ensembles, fill_head, fill_ztw, head_keys, ztw_keys
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.scores.stopping import exits_by_threshold, outcome
from baselines.residual import cifar_resnet
from baselines.ztw.ensembles import Ensembles
from baselines.ztw.heads import head_maker
from baselines.ztw.methods import heads_loss
from baselines.ztw.model import StackedHeads, ZeroTimeWaste

GOLDEN = vectors("ztw")
double = pytest.mark.usefixtures("float64")


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
