"""The leaderboard row ``ranet``: a resolution-adaptive network trained with the sum of the exits' cross-entropies."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.msdnet.methods import sum_of_exits
from baselines.ranet.model import RANet


@dataclass
class RANetOptions:
    """Options of ``RANet`` of the same names."""

    scales: list[int] = field(default_factory=lambda: [1, 2, 3])
    blocks: list[int] = field(default_factory=lambda: [2, 4, 6])
    base: int = 2
    step: int = 2
    step_mode: str = "lin_grow"
    channels: int = 16
    growth: int = 6
    factors: list[int] = field(default_factory=lambda: [4, 2, 1])
    bottleneck_factors: list[int] = field(default_factory=lambda: [4, 2, 1])
    fusion: float = 0.25
    reduction: float = 0.5
    classifier_channels: int = 128


class RANetAnytime(Method):
    """RANet in the anytime setting."""

    card = MethodCard(
        title="RANet",
        paper="Yang et al., Resolution Adaptive Networks for Efficient Inference, CVPR 2020",
        year=2020,
        url="https://arxiv.org/abs/2003.07326",
        ticks="One tick per layer on the longest chain from the image to the exit (convolutions of the initial layer, "
        "dense layers, halvings, fusions); sub-networks run side by side as far as they depend on one another, and "
        "classifiers are not counted.",
        deviations=(
            "Written from the paper's description, of which we did not have every detail; layers are those of MSDNet "
            "(1x1 bottleneck, 3x3 convolution, batch norm and ReLU after each).",
            "Our own readings: by how much a stride-2 layer narrows and which share a fusion block takes from the "
            "coarser sub-network (options reduction and fusion, 0.5 and 0.25), and the growth per sub-network.",
            "A fusion block's halving is one stride-2 layer whose bottleneck stands for the transition layer.",
            "Halvings are spread evenly over the fusion blocks, and classifiers stand after the blocks that a "
            "sub-network adds to the number of the one before.",
            "The loss is the unweighted sum over the exits, as in MSDNet.",
        ),
    )
    Config = RANetOptions

    def build(self, task: TaskCard) -> AnytimeModel:
        return RANet(task.num_classes, task.shape[0], **asdict(self.config))

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Sum over exits of the mean cross-entropy."""
        return sum_of_exits(model(images), targets)
