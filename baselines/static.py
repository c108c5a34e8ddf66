"""The leaderboard rows ``static/<size>``: plain ResNets with one exit on a ladder of sizes, each trained alone.

Whoever knows the deadline in advance needs no anytime network: of these nets, the best that fits will do. Their upper
envelope is the curve that a network with exits has to beat; cf. the baselines of Huang et al., ICLR 2018, section 5.

A size is named by its residual blocks and its width in percent of the recipe's, ``b4w75``. Blocks are spread evenly
over four stages; with fewer than four blocks there are as many stages, of one block each. ``b8w100`` is the suite's
ResNet-18. The cost grows about linearly with the blocks and with the square of the width.

Shapes: images ``(B, D, H, W)``, logits ``(1, B, C)``. A size of another form raises ValueError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.tasks.task import TaskCard
from baselines.residual import Backbone, suite_resnet
from baselines.single_exit import SingleExit

#: From about 1/25 of the reference's MACs to somewhat more than twice as many, each about twice the one before.
LADDER = ("b1w50", "b2w75", "b4w75", "b4w100", "b8w100", "b8w150")
STAGES = 4


def read_size(size: str) -> tuple[tuple[int, ...], int]:
    """Blocks per stage, and the width in percent.

    >>> read_size("b2w75"), read_size("b8w150")
    (((1, 1), 75), ((2, 2, 2, 2), 150))
    """
    match = re.fullmatch(r"b([1-9]\d*)w([1-9]\d*)", size)
    blocks = int(match[1]) if match else 0
    if match is None or (blocks > STAGES and blocks % STAGES):
        raise ValueError(
            f"size is '{size}'; expected b<blocks>w<percent of the recipe's width>, blocks being 1, 2, 3 or a multiple "
            f"of {STAGES}: {', '.join(LADDER)}"
        )
    stages = min(blocks, STAGES)
    return (blocks // stages,) * stages, int(match[2])


def resnet_of_size(size: str, width: int, stem_pool: bool, task: TaskCard) -> Backbone:
    """The suite's ResNet of this size; ``width`` is the one that 100 percent stand for, in channels."""
    blocks, percent = read_size(size)
    return suite_resnet(blocks, round(width * percent / 100), task.num_classes, task.shape[0], stem_pool)


def depth(network: Backbone) -> int:
    """Ticks of ideal parallel time from images to logits: one for the stem, one per block."""
    return 1 + len(network.blocks)


@dataclass
class StaticOptions:
    """``size``, as in ``b4w75``; ``width`` and ``stem_pool`` describe the full-sized net, as in ``serial_ce``."""

    size: str = "b8w100"
    width: int = 64
    stem_pool: bool = True


class Static(Method):
    """A ResNet with one exit, trained with cross-entropy."""

    card = MethodCard(
        title="Static ResNet",
        paper="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
        year=2016,
        url="https://arxiv.org/abs/1512.03385",
        ticks="One tick for the stem and one per residual block, one block after another.",
        deviations=(
            "Not an anytime method: one answer, at full cost. All sizes together answer what a known deadline allows.",
            "The suite's ResNet: 3x3 stem, shortcuts of a bare 1x1 convolution. Sizes below four blocks lack the upper "
            "stages.",
        ),
        family="static",
    )
    Config = StaticOptions
    variant_option = "size"

    def build(self, task: TaskCard) -> AnytimeModel:
        """The net for ``task``, untrained."""
        network = resnet_of_size(self.config.size, self.config.width, self.config.stem_pool, task)
        return SingleExit(network, depth(network))
