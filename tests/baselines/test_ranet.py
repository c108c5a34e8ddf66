"""RANet: exits, fusion and costs against what the paper's figures say, counted by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.harness.cost import count_costs
from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.msdnet.model import Branch
from baselines.ranet.methods import RANetAnytime, RANetOptions
from baselines.ranet.model import RANet

SMALL = {
    "num_classes": 3, "in_channels": 1, "scales": (1, 2, 2), "blocks": (1, 2, 4), "base": 2, "step": 1,
    "step_mode": "even", "channels": 4, "growth": 2, "factors": (3, 2, 1), "bottleneck_factors": (2, 2, 1),
    "fusion": 0.5, "reduction": 0.5, "classifier_channels": 5,
}  # fmt: skip


def settled(seed: int = 0, **options: Any) -> RANet:
    """In float64 and eval mode, its batch norms having seen data."""
    torch.manual_seed(seed)
    model = RANet(**{**SMALL, **options}).double()
    with torch.no_grad():
        model.train()(torch.randn(8, model.initial[0].conv.in_channels, 16, 16, dtype=torch.float64))
    return model.eval()


def branch_macs(width: int, out: int, factor: int, side: int, stride: int = 1) -> int:
    """1x1 bottleneck on side x side pixels, then 3x3; side after the stride rounded up."""
    inner, small = min(width, factor * out), -(-side // stride)
    return width * inner * side**2 + 9 * inner * out * small**2


def head_macs(width: int, side: int) -> int:
    """Two 3x3 stride-2 convolutions with 5 channels, then 3 classes."""
    half, quarter = -(-side // 2), -(-side // 4)
    return 9 * width * 5 * half**2 + 9 * 25 * quarter**2 + 5 * 3


@pytest.mark.parametrize("side", [8, 28])
def test_macs_per_exit_equal_a_count_by_hand(side: int) -> None:
    half = side // 2
    # Initial layer: 8 channels (the widest sub-network that starts there, 2 x 4) at full size, 12 at half of it.
    initial = 9 * 1 * 8 * side**2 + 9 * 8 * 12 * half**2
    # Sub-network 1 (half size, growth 6): one block of two layers, 12 -> 18 -> 24; exit 0.
    one = branch_macs(12, 6, 2, half) + branch_macs(18, 6, 2, half)
    # Sub-network 2 (growth 4): fusion block 8 -> 12 -> 13, halved to 8 (16 -> 8), plus half of its 4 new channels from
    # sub-network 1's 24; then a dense block of one layer; exit 1. Blocks have 2, 1, 1, 1 layers.
    two = branch_macs(8, 4, 2, side) + branch_macs(12, 4, 2, side) + branch_macs(16, 8, 2, side, 2)
    two += branch_macs(24, 4, 2, half) + branch_macs(12, 4, 2, half)
    # Sub-network 3 (growth 2): 8 -> 12 stays at full size and takes 2 of 24's map 12 wide, the second block halves.
    three = branch_macs(8, 2, 1, side) + branch_macs(10, 2, 1, side) + branch_macs(12, 2, 1, half)
    three += branch_macs(14, 2, 1, side) + branch_macs(16, 8, 1, side, 2) + branch_macs(16, 1, 1, half)
    third, fourth = branch_macs(9, 2, 1, half), branch_macs(11, 2, 1, half)
    heads = [head_macs(width, half) for width in (24, 16, 11, 13)]
    work = [initial + one, two, three + third, fourth]
    costs = count_costs(RANet(**SMALL), (1, side, side))
    assert costs.macs == tuple(sum(work[: k + 1]) + sum(heads[: k + 1]) for k in range(4))
    assert costs.macs_prefix == tuple(sum(work[: k + 1]) + heads[k] for k in range(4))


def test_a_tick_is_a_layer_of_the_longest_chain() -> None:
    # Half size takes 2 layers of the initial layer, full size 1; blocks have 2, 1, 1, 1 layers, a halving takes one.
    # Sub-network 1: 2 + 2 = 4. Sub-network 2: max(1 + 2 + 1, 4 + 1) = 5, then 6. Sub-network 3, which reads it:
    # max(1 + 2, 5 + 1) = 6, max(6 + 1 + 1, 6 + 1) = 8, then 9 and 10.
    assert RANet(**SMALL).ticks == (4, 6, 9, 10)


def test_the_default_follows_the_papers_figure() -> None:
    model = RANet()
    assert model.exits == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    shapes: dict[int, list[tuple[int, ...]]] = {}
    for h, subnetwork in enumerate(model.subnetworks):
        for block in subnetwork:
            block.register_forward_hook(lambda m, a, out, h=h: shapes.setdefault(h, []).append(tuple(out.shape[2:])))
    model.eval()(torch.zeros(1, 3, 32, 32))
    sides = {h: [side for side, _ in maps] for h, maps in shapes.items()}
    assert sides == {0: [8, 8], 1: [16, 8, 8, 8], 2: [32, 16, 16, 8, 8, 8]}  # classifiers read the coarsest alone
    for h, subnetwork in enumerate(model.subnetworks):
        fused = [block.fuse is not None for block in subnetwork]
        before = 0 if h == 0 else len(model.subnetworks[h - 1])
        assert fused == [True] * before + [False] * (len(subnetwork) - before)


@torch.no_grad()
def test_without_fused_channels_a_subnetwork_is_its_own_and_with_them_it_reads_the_coarser_one() -> None:
    model = settled()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    before = model(x)
    changed = settled()
    for parameter in changed.subnetworks[0].parameters():
        parameter.mul_(1.5)
    after = changed(x)
    assert not any(torch.allclose(a, b) for a, b in zip(before, after, strict=True))
    for net in (model, changed):  # fused channels at 0
        for subnetwork in net.subnetworks[1:]:
            for block in subnetwork:
                if block.fuse is not None:
                    block.fuse.conv3x3.norm.weight.zero_()
                    block.fuse.conv3x3.norm.bias.zero_()
    assert torch.equal(model(x)[1:], changed(x)[1:])


@torch.no_grad()
def test_a_coarser_map_is_enlarged_by_bilinear_interpolation() -> None:
    model = settled()
    coarser, x = torch.randn(1, 12, 8, 8, dtype=torch.float64), torch.randn(1, 8, 16, 16, dtype=torch.float64)
    block = model.subnetworks[2][0]
    assert isinstance(block.fuse, Branch)
    out = block(x, coarser)
    enlarged = F.interpolate(block.fuse(coarser), scale_factor=2, mode="bilinear")
    assert torch.allclose(out[:, -2:], enlarged)
    assert torch.equal(out[:, :8], x)  # dense: what came in goes on


options = st.fixed_dictionaries(
    {
        "blocks": st.sampled_from([(2, 3, 4), (2, 4, 6), (3, 4, 6)]),
        "scales": st.sampled_from([(1, 1, 1), (1, 2, 2), (1, 2, 3), (1, 1, 3)]),
        "step_mode": st.sampled_from(["even", "lin_grow"]),
        "fusion": st.sampled_from([0.1, 0.5, 0.9]),
        "reduction": st.sampled_from([0.3, 1.0]),
        "classifier_channels": st.sampled_from([0, 4]),
    }
)


@given(setup=options, side=st.integers(9, 18))
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_any_network_answers_in_order_of_its_ticks(setup: dict[str, Any], side: int) -> None:
    model = settled(**setup)
    x = torch.randn(2, 1, side, side, dtype=torch.float64)
    answers = model(x)
    assert answers.shape == (model.num_exits, 2, 3)
    assert model.num_exits == setup["blocks"][-1] == len(model.ticks)
    assert all(a < b for a, b in pairwise(model.ticks))
    for k in range(model.num_exits):
        assert torch.equal(model.answer(x, k), answers[k])
    stream = model.stream(x)
    next(stream)
    rest = [stream.send(torch.tensor([False, True])), *stream]
    assert all(torch.allclose(a, b[1:]) for a, b in zip(rest, answers[1:], strict=True))


def test_a_finer_subnetwork_is_not_begun_before_it_is_asked_for() -> None:
    model = RANet(**SMALL).eval()
    seen: list[int] = []
    for h, subnetwork in enumerate(model.subnetworks):
        subnetwork[0].register_forward_hook(lambda *_, h=h: seen.append(h))
    stream = model.stream(torch.zeros(1, 1, 8, 8))
    assert seen == []
    for expected in ([0], [0, 1], [0, 1, 2], [0, 1, 2]):
        next(stream)
        assert seen == expected


def test_the_loss_is_the_sum_over_exits() -> None:
    card = TaskCard("small", "t", ("a", "b", "c"), (1, 16, 16), {}, (0.0,), (1.0,))
    method = RANetAnytime(RANetOptions(channels=4, growth=2))
    model = method.build(card).eval()
    x, labels = torch.randn(2, 1, 16, 16), torch.tensor([2, 0])
    loss = method.training_loss(model, x, labels, Progress(1, 1, 1, 1))
    assert torch.isclose(loss, torch.stack([F.cross_entropy(a, labels) for a in model.stream(x)]).sum())


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"scales": (2, 2, 2)}, r"scales is \[2, 2, 2\]; expected numbers that begin with 1"),
        ({"scales": (1, 3, 2)}, "do not fall"),
        ({"scales": (1, 2)}, "expected one number for each of 3 sub-networks"),
        ({"scales": (1, 4, 4), "blocks": (2, 3, 4)}, "halves its map 3 times, but has 2 fusion blocks"),
        ({"blocks": (2, 2, 3)}, "expected more in each sub-network"),
        ({"blocks": ()}, "one number for each of 0 sub-networks"),
        ({"factors": (1, 0, 1)}, r"factors is \[1, 0, 1\]; expected numbers of at least 1"),
        ({"growth": 0}, "growth is 0"),
        ({"step_mode": "odd"}, "step_mode is 'odd'"),
        ({"fusion": 1.0}, "fusion is 1.0"),
        ({"reduction": 0.0}, "reduction is 0.0"),
    ],
)
def test_bad_options_are_refused_by_value(given_options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RANet(**{**SMALL, **given_options})


def test_an_exit_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="exit 4 was asked for"):
        RANet(**SMALL).answer(torch.zeros(1, 1, 8, 8), 4)


def test_no_work_is_done_before_the_first_answer_is_asked_for() -> None:
    with FlopCounterMode(display=False) as counter:
        RANet(**SMALL).stream(torch.zeros(1, 1, 8, 8))
    assert counter.get_total_flops() == 0
