"""BoostNet against the published implementation's numbers, and what boosting means for gradients and answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_boostnet, msdnet_keys
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import AnytimeModel, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.boostnet.methods import BoostNet, BoostNetOptions
from baselines.boostnet.model import BoostedNet, boosted_losses, weight_per_exit
from baselines.gradient_equilibrium import equilibrate
from baselines.msdnet.methods import MSDNetOptions
from baselines.msdnet.model import MSDNet
from baselines.residual import cifar_resnet
from baselines.sdn.methods import SDNOptions
from baselines.sdn.model import ShallowDeepNet

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "boostnet.npz", allow_pickle=False)
CARD = TaskCard("digits", "t", tuple("abcdefghij"), (1, 8, 8), {}, (0.0,), (1.0,))
FIRST = Progress(1, 1, 1, 1)
#: The vectors' two sets of exit weights: suffix of the array names, weights.
WEIGHTS = [("", GOLDEN["rw"].tolist()), ("_list", GOLDEN["rw_list"].tolist())]


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


def eval_images() -> Tensor:
    return torch.from_numpy(np.random.RandomState(7).standard_normal((2, 3, 32, 32)))


def train_batch() -> tuple[Tensor, Tensor]:
    draw = np.random.RandomState(11)
    return torch.from_numpy(draw.standard_normal((4, 3, 32, 32))), torch.from_numpy(draw.randint(0, 10, size=4))


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
    model = BoostedNet(Fixed(logits), weights)
    close(model(torch.zeros(4)), GOLDEN[f"unit_F{suffix}"])


class Fixed(AnytimeModel):
    """Answers with ``logits (E, B, C)``, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.num_exits, self.ticks = logits, len(logits), tuple(range(1, len(logits) + 1))

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        yield from self.logits


@double
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.integers(0, 10**6), st.booleans())
def test_loss_k_reaches_exit_k_alone(weights: list[float], seed: int, published_sum: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((len(weights), 3, 4), generator=generator, requires_grad=True)
    targets = torch.randint(4, (3,), generator=generator)
    for k, loss in enumerate(boosted_losses(logits, targets, torch.tensor(weights), published_sum)):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert [bool(own.any()) for own in gradient] == [i == k for i in range(len(weights))]


@double
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), st.integers(0, 10**6))
def test_training_and_answers_share_one_weighted_sum(weights: list[float], seed: int) -> None:
    # The value of loss k is the cross-entropy of the very answer F_k; of the published sum, only with equal weights.
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((len(weights), 3, 4), generator=generator)
    targets = torch.randint(4, (3,), generator=generator)
    model = BoostedNet(Fixed(logits), weights)
    answers = torch.stack([F.cross_entropy(answer, targets) for answer in model(torch.zeros(3))])
    assert torch.allclose(boosted_losses(logits, targets, model.reweight), answers)
    equal = torch.full((len(weights),), weights[0])
    theirs = boosted_losses(logits, targets, equal, published=True)
    assert torch.allclose(boosted_losses(logits, targets, equal), theirs)


@double
def test_published_sum_is_another_one_where_weights_differ() -> None:
    logits, targets = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    weights = torch.tensor([0.9, 0.4, 0.7])
    ours, theirs = (boosted_losses(logits, targets, weights, published) for published in (False, True))
    assert torch.allclose(ours[0], theirs[0])
    assert not torch.allclose(ours[1:], theirs[1:], rtol=1e-3)


@double
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6).flatmap(lambda exits: st.tuples(st.just(exits), st.integers(0, exits - 1))))
def test_gradient_equilibrium_weighs_every_exit_alike(exits_and_k: tuple[int, int]) -> None:
    # A chain of E blocks x -> x, each read by an exit: block k learns the mean of the exits above it.
    exits, k = exits_and_k
    gradients = torch.arange(1.0, exits + 1)
    blocks, onward = [], torch.ones((), requires_grad=True)
    total = torch.zeros(())
    for exit_index in range(exits):
        block = onward * 1
        block.retain_grad()
        blocks.append(block)
        classified, onward = equilibrate(block, block, exit_index, exits)
        total = total + gradients[exit_index] * classified
    total.backward()
    assert torch.allclose(blocks[k].grad, gradients[k:].mean())


@double
@pytest.mark.parametrize("ic_input", ["pre", "post"])
def test_gradient_equilibrium_on_a_residual_network(ic_input: str) -> None:
    # d(block k) = (d(exit k) + (E - k - 1) d(block k+1)) / (E - k), read off a network without it.
    def build(equilibrium: bool) -> ShallowDeepNet:
        torch.manual_seed(0)
        return ShallowDeepNet(cifar_resnet(20), ic_input=ic_input, gradient_equilibrium=equilibrium).eval()

    images, plain, balanced = eval_images(), build(False), build(True)
    assert torch.equal(plain(images), balanced(images))
    exits = plain.num_exits
    weight = plain.backbone.stem.conv.weight

    def stem_gradient(model: ShallowDeepNet, weights: list[float]) -> Tensor:
        logits = model(images)
        loss = sum(w * one.square().sum() for w, one in zip(weights, logits, strict=True))
        return torch.autograd.grad(loss, model.backbone.stem.conv.weight)[0]

    # Unrolled to the first block, every exit counts 1 / E.
    expected = stem_gradient(plain, [1 / exits] * exits)
    assert expected.shape == weight.shape
    assert torch.allclose(stem_gradient(balanced, [1.0] * exits), expected, rtol=1e-9, atol=1e-12)


def small_options(**options: object) -> BoostNetOptions:
    network = MSDNetOptions(
        blocks=3, base=2, step=1, channels=4, growth=4, scale_factors=[1, 2], bottleneck_factors=[1, 2],
        classifier_channels=8,
    )  # fmt: skip
    sdn = SDNOptions(blocks=[1, 1, 2], width=4)
    return BoostNetOptions(msdnet=network, sdn=sdn, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["msdnet", "sdn"])
def test_the_weights_of_the_exits_come_back_with_the_networks(base: str) -> None:
    exits = BoostNet(small_options(base=base)).build(CARD).num_exits
    trained = BoostNet(small_options(base=base, reweight=[0.9 / (k + 1) for k in range(exits)])).build(CARD).eval()
    other = BoostNet(small_options(base=base, reweight=1.0)).build(CARD).eval()
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(other(images), trained(images))
        other.load_state_dict(load(save(trained.state_dict())))
        assert torch.equal(other(images), trained(images))


@pytest.mark.parametrize("base", ["msdnet", "sdn"])
def test_one_forward_pass_moves_batch_norm_once(base: str) -> None:
    row = BoostNet(small_options(base=base))
    model = row.build(CARD).train()
    row.training_loss(model, torch.randn(4, 1, 8, 8), torch.arange(4), FIRST).backward()
    counts = {int(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {1}


@pytest.mark.parametrize("base", ["msdnet", "sdn"])
def test_a_kept_sample_goes_on_alone(base: str) -> None:
    model = BoostNet(small_options(base=base)).build(CARD).eval()
    images, keep = torch.randn(5, 1, 8, 8), torch.tensor([True, False, True, True, False])
    with torch.no_grad():
        full, stream = model(images), model.stream(images)
        next(stream)
        second = stream.send(keep)  # type: ignore[attr-defined]
    assert torch.allclose(second, full[1][keep], atol=1e-5)


def test_macs_of_every_exit_counted_by_hand() -> None:
    # Two scales of 8x8 and 4x4 pixels, 4 and 8 channels, growth 4, layers 2 + 1 + 1 of 4; the finer scale is dropped
    # after layer 2, where 12 and 24 channels become 6 and 12. Every product is pixels * (in * out * kernel area).
    fine, coarse = 64, 16
    stem = fine * (1 * 4 * 9) + coarse * (4 * 8 * 9)

    def down(channels: int) -> int:  # 1x1 on the finer scale to at most 1 * 4, then 3x3 stride 2 to half the growth
        return fine * (channels * 4) + coarse * (4 * 4 * 9)

    def normal(channels: int) -> int:  # 1x1 to at most 2 * 4, then 3x3 to half of the coarse growth of 8
        return coarse * (channels * 8 + 8 * 4 * 9)

    first = normal(8) + down(4)  # 8 -> 16 channels; the exit after layer 2 reads the finer scale of layer 1, too
    finer_first = fine * (4 * 4 + 4 * 4 * 9)  # 4 -> 8 channels
    second = normal(16) + down(8)  # 16 -> 24
    finer_second = fine * (8 * 4 + 4 * 4 * 9)  # 8 -> 12, asked for by exit 1 alone

    def classifier(channels: int) -> int:  # 3x3 stride 2 twice on 4x4 pixels, then linear
        return 4 * (channels * 8 * 9) + 1 * (8 * 8 * 9) + 8 * 10

    third = (
        coarse * (24 * 8 + 8 * 4 * 9) + fine * (12 * 4) + coarse * (4 * 4 * 9)
    )  # 24 -> 32, finer scale read once more
    transition = coarse * (32 * 16)  # dropped: 32 -> 16
    fourth = coarse * (16 * 16 + 16 * 8 * 9)  # no finer scale: the whole growth of 8, 16 -> 24
    exits = [
        stem + first + finer_first + second + classifier(24),
        finer_second + third + transition + classifier(16),
        fourth + classifier(24),
    ]
    model = BoostNet(small_options()).build(CARD).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted = [counter.get_total_flops() // 2 for _ in model.stream(torch.zeros(1, 1, 8, 8))]
    assert counted == np.cumsum(exits).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (small_options(base="resnet"), "base is 'resnet'; expected one of msdnet, sdn"),
        (
            small_options(reweight=[0.5, 0.5]),
            r"reweight is \[0.5, 0.5\]; expected one number, or one for each of the 3",
        ),
        (small_options(reweight=["a"] * 3), "expected one number"),
    ],
)
def test_bad_options_are_named(options: BoostNetOptions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoostNet(options).build(CARD)


def test_one_number_stands_for_every_exit() -> None:
    assert weight_per_exit(1, 2) == [1.0, 1.0]
