"""The ladder of single-exit ResNets: sizes, costs counted by hand, and the full size as the reference's plain pass."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anytime_bench.harness.cost import count_costs
from anytime_bench.methods.plugins import load_method
from anytime_bench.tasks.task import TaskCard
from baselines.static import LADDER, Static, StaticOptions, read_size

DIGITS = TaskCard("digits", "t", tuple("abcdefghij"), (1, 8, 8), {}, (0.0,), (1.0,))
COLOUR = TaskCard("colour", "t", tuple("abcdefghij"), (3, 32, 32), {}, (0.0,), (1.0,))


def costs(size: str, task: TaskCard, width: int = 16, stem_pool: bool = False):
    return count_costs(Static(StaticOptions(size, width, stem_pool)).build(task), task.shape)


def test_macs_of_a_small_size_counted_by_hand():
    # 8x8 grey images, 12 channels, two stages of one block: maps of 8x8 and 4x4.
    stem = 9 * 1 * 12 * 64
    first = 2 * 9 * 12 * 12 * 64
    second = (9 * 12 * 24 + 9 * 24 * 24 + 12 * 24) * 16
    head = 24 * 10
    assert costs("b2w75", DIGITS).macs == (stem + first + second + head,)


def test_macs_and_ticks_of_the_full_size_counted_by_hand():
    # 32x32 colour images, a pooled stem, 16 channels: stages of 16x16, 8x8, 4x4 and 2x2.
    stem = 9 * 3 * 16 * 1024
    first = 4 * 9 * 16 * 16 * 256
    entered = sum((9 * c * 2 * c + 9 * 4 * c * c + c * 2 * c) * (128 // c) ** 2 for c in (16, 32, 64))
    again = 3 * first // 2
    head = 128 * 10
    counted = costs("b8w100", COLOUR, stem_pool=True)
    assert counted.macs == (stem + first + entered + again + head,)
    assert counted.ticks == (9,)


def test_the_full_size_is_the_references_plain_pass():
    reference = load_method("serial_ce", width=16, stem_pool=False).build(DIGITS)
    counted = count_costs(reference, DIGITS.shape)
    assert costs("b8w100", DIGITS).macs == counted.macs_prefix[-1:]
    assert costs("b8w100", DIGITS).ticks == counted.ticks[-1:]


@pytest.mark.parametrize(("task", "stem_pool"), [(DIGITS, False), (COLOUR, True)])
def test_the_ladder_climbs_in_steps_of_about_two(task, stem_pool):
    full = costs("b8w100", task, stem_pool=stem_pool).macs[0]
    shares = [costs(size, task, stem_pool=stem_pool).macs[0] / full for size in LADDER]
    assert shares[0] < 0.06
    assert 2 < shares[-1] < 2.5
    assert all(1.6 < after / before < 4 for before, after in pairwise(shares))


@given(st.integers(1, 3) | st.integers(1, 20).map(lambda n: 4 * n), st.integers(1, 400))
def test_every_size_has_the_blocks_it_names(blocks, percent):
    stages, width = read_size(f"b{blocks}w{percent}")
    assert (sum(stages), width) == (blocks, percent)
    assert len(stages) == min(blocks, 4)
    assert len(set(stages)) == 1


@pytest.mark.parametrize("size", ["", "b4", "w50", "b0w50", "b4w0", "b5w100", "b10w100", "b4w75x", "large"])
def test_a_size_of_another_form_is_answered_with_the_ladder(size):
    with pytest.raises(ValueError, match=rf"size is '{size}'; expected b<blocks>w<percent.*b4w75"):
        read_size(size)


def test_the_name_behind_the_slash_is_the_size():
    model = load_method("static/b1w50", width=16, stem_pool=False).build(DIGITS).eval()
    assert (model.num_exits, model.ticks) == (1, (2,))
    assert model(torch.zeros(2, 1, 8, 8)).shape == (1, 2, 10)


def test_its_card_says_that_sizes_are_alternatives():
    assert Static.card.family == "static"
