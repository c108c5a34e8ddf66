"""What boosting means for gradients, answers and costs, and how the row is set up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from support.fixed_answers import FixedAnswers
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.boostnet.methods import BoostNet, BoostNetOptions
from baselines.boostnet.model import BoostedNet, boosted_losses, weight_per_exit
from baselines.msdnet.methods import MSDNetOptions
from baselines.sdn.methods import SDNOptions

double = pytest.mark.usefixtures("float64")
CARD = TaskCard("digits", "t", tuple("abcdefghij"), (1, 8, 8), {}, (0.0,), (1.0,))
FIRST = Progress(1, 1, 1, 1)


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
    model = BoostedNet(FixedAnswers(logits), weights)
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
