"""Under the CPU recipes a row's last answer costs between half and twice the reference's."""

from __future__ import annotations

import pytest

from anytime_bench.harness.cost import count_costs
from anytime_bench.methods.plugins import method_class
from anytime_bench.tasks.task import TaskCard
from anytime_bench.training.config import build_config
from anytime_bench.training.recipes import recipe_for

#: The shapes of the tasks that have a recipe for the CPU; digits has one recipe for all machines.
SHAPES = {"digits": (1, 8, 8), "fashion_mnist": (1, 28, 28), "cifar10_jpeg": (3, 32, 32)}
ROWS = [
    "blt", "boostnet", "boostnet/sdn", "ensemble/last", "ensemble/mean", "msdnet", "ranet", "sdn", "sdn/mixed",
    "serial_ce", "serial_td", "serial_td_multihead", "vit_exits", "vit_exits/deit_tiny_patch16_224", "ztw",
]  # fmt: skip


def macs(row: str, task: str, last: str) -> int:
    """MACs of the last exit under the task's CPU recipe, ``last`` being the way to it: "macs" or "macs_prefix"."""
    target, _, variant = method_class(row)
    config = build_config(row, target, recipe_for(task, device="cpu"), variant=variant)
    card = TaskCard(task, task, tuple("abcdefghij"), SHAPES[task], {}, (0.0,), (1.0,))
    return getattr(count_costs(target(config.options).build(card), card.shape), last)[-1]


@pytest.mark.parametrize("task", SHAPES)
@pytest.mark.parametrize("row", ROWS)
def test_the_last_exit_costs_half_to_twice_the_reference(row, task):
    assert 0.5 <= macs(row, task, "macs") / macs("serial_ce", task, "macs_prefix") <= 2


@pytest.mark.parametrize("task", SHAPES)
def test_the_ladder_reaches_from_a_fraction_to_twice_the_reference(task):
    reference = macs("serial_ce", task, "macs_prefix")
    assert macs("static/b1w50", task, "macs") / reference < 0.06
    assert macs("static/b8w100", task, "macs") == reference
    assert 2 < macs("static/b8w150", task, "macs") / reference < 2.5


@pytest.mark.parametrize("task", SHAPES)
def test_the_cascaded_vits_plain_pass_is_as_large_and_its_run_is_four_and_a_half_of_them(task):
    reference, plain = macs("serial_ce", task, "macs_prefix"), macs("cascaded_vit", task, "macs_prefix")
    assert 0.5 <= plain / reference <= 2
    assert plain == pytest.approx(macs("vit_exits", task, "macs_prefix"), rel=1e-3)
    assert macs("cascaded_vit", task, "macs") == pytest.approx(4.5 * plain, rel=0.05)  # (L + 1) / 2 for L = 8
