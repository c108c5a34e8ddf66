"""Balanced cascades: every block as dear as the others by the stated model, at the plain network's MACs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anytime_bench import load_method, load_task
from anytime_bench.harness.cost import count_costs
from baselines.cascade.balance import MACS_PER_WEIGHT, MULTIPLE, inner_widths
from baselines.cascade.literal import LiteralCascade
from baselines.cascade.model import CascadedResNet


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.sampled_from([16, 32, 64]),
    st.sampled_from([8, 14, 16, 28]),
)
def test_blocks_cost_the_same_at_equal_macs(blocks: list[int], width: int, side: int) -> None:
    inner = inner_widths(blocks, width, side, side)
    plain = CascadedResNet(blocks, width, stem_pool=False)
    balanced = CascadedResNet(blocks, width, stem_pool=False, inner=inner)
    pixels = [-((-side // 2**stage) ** 2) for stage, count in enumerate(blocks) for _ in range(count)]

    def weights(model: CascadedResNet) -> list[int]:
        return [block.conv1.weight.numel() + block.conv2.weight.numel() for _, block in model.numbered()]

    macs = [sum(w * p for w, p in zip(weights(model), pixels, strict=True)) for model in (plain, balanced)]
    rounding = MULTIPLE / min(inner)
    assert macs[1] == pytest.approx(macs[0], rel=rounding)
    costs = [w * (p + MACS_PER_WEIGHT) for w, p in zip(weights(balanced), pixels, strict=True)]
    assert max(costs) / min(costs) <= (1 + rounding) / (1 - rounding) if rounding < 1 else True


def test_a_balanced_cascade_is_still_the_cascade() -> None:
    """The lazy and the layer-wise executor agree with the literal recursion, inner widths or not."""
    torch.manual_seed(0)
    model = CascadedResNet((1, 2), 8, stem_pool=False, inner=[12, 4, 20]).eval()
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        literal = LiteralCascade(model).eval()(images)
        assert torch.allclose(model(images), literal, atol=1e-5)
        assert torch.allclose(torch.stack(list(model.stream(images))), literal, atol=1e-5)


def test_the_option_keeps_macs_exits_and_ticks() -> None:
    card = load_task("digits").card
    options = {"width": 32, "stem_pool": False}
    plain, balanced = (
        count_costs(load_method("serial_ce", balanced=chosen, **options).build(card), card.shape)
        for chosen in (False, True)
    )
    assert balanced.macs_prefix[-1] == pytest.approx(plain.macs_prefix[-1], rel=0.03)
    assert balanced.ticks == plain.ticks


def test_weights_of_a_balanced_serial_net_run_as_a_balanced_cascade() -> None:
    card = load_task("digits").card
    options = {"width": 16, "stem_pool": False, "balanced": True}
    serial, cascade = load_method("serial_ce", **options), load_method("cascaded_ce", **options)
    trained, model = serial.build(card).eval(), cascade.build(card).eval()
    cascade.adopt(model, trained.state_dict())
    images = torch.randn(2, *card.shape)
    with torch.no_grad():
        assert torch.allclose(model(images)[-1], trained(images)[-1], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inner": [8]}, r"inner is \(8,\), expected a width of at least 1 for each of 2 blocks"),
        ({"inner": [8, 0]}, "expected a width of at least 1"),
        ({"inner": [8, 8], "block": "bottleneck"}, "inner widths can be chosen for basic blocks only"),
    ],
)
def test_inner_widths_that_make_no_sense(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CascadedResNet((1, 1), 8, **changes)
