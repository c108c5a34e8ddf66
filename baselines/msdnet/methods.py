"""The leaderboard row ``msdnet``: MSDNet trained with the plain sum of the exits' cross-entropies."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.msdnet.model import MSDNet


@dataclass
class MSDNetOptions:
    """Options of ``MSDNet`` of the same names; the defaults are the paper's anytime network of CIFAR-10."""

    blocks: int = 7
    base: int = 4
    step: int = 2
    step_mode: str = "even"
    channels: int = 16
    growth: int = 6
    scale_factors: list[int] = field(default_factory=lambda: [1, 2, 4])
    bottleneck_factors: list[int] = field(default_factory=lambda: [1, 2, 4])
    prune: str = "max"
    reduction: float = 0.5
    stem: str = "cifar"
    classifier_channels: int = 128


class MSDNetAnytime(Method):
    """MSDNet in the anytime setting."""

    card = MethodCard(
        title="MSDNet",
        paper="Huang et al., Multi-Scale Dense Networks for Resource Efficient Image Classification, ICLR 2018",
        year=2018,
        url="https://arxiv.org/abs/1703.09844",
        ticks="One tick for the stem and one per layer: all scales of a layer run in parallel; "
        "transitions and classifiers are not counted.",
        deviations=(
            "Kept: torch's default initialisation; the published _init_weights is never applied (M1).",
            "Kept: the loss is the unweighted sum over the exits (M2).",
            "Fixed: checkpoints and thresholds never see the test split, and validation images are not augmented "
            "(M2, M3).",
            "Fixed: stopping thresholds by the suite's own rule, in which everyone leaves where too few samples "
            "remain (M4).",
            "Fixed: MACs are read off the executed operations, without ReLU, pooling and bias; counting twice gives "
            "the same number (M5).",
            "Fixed: a finer-scale feature is computed when the first exit that needs it is asked for; the published "
            "order is counted as the execution whole_blocks. Run-through costs include all earlier classifiers, "
            "prefix costs the exit's own alone (M6).",
            "Fixed: options are typed, logits are never reused across runs, scoring is vectorised (M7).",
            "The classifier averages over the whole of its last map, which for 32x32 and 224x224 images is the "
            "published 2x2 average.",
            "The ImageNet stem's convolution has no bias, which its batch norm would cancel.",
        ),
        reported={"cifar10": 0.937},
    )
    Config = MSDNetOptions

    def build(self, task: TaskCard) -> AnytimeModel:
        c: MSDNetOptions = self.config
        return MSDNet(
            num_classes=task.num_classes,
            in_channels=task.shape[0],
            blocks=c.blocks,
            base=c.base,
            step=c.step,
            step_mode=c.step_mode,
            channels=c.channels,
            growth=c.growth,
            scale_factors=tuple(c.scale_factors),
            bottleneck_factors=tuple(c.bottleneck_factors),
            prune=c.prune,
            reduction=c.reduction,
            stem=c.stem,
            classifier_channels=c.classifier_channels,
        )

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Sum over exits of the mean cross-entropy (section 4.2, all weights 1)."""
        return sum_of_exits(model(images), targets)


def sum_of_exits(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the exits of ``logits (E, B, C)`` of the mean cross-entropy with ``targets (B,)``."""
    loss = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))
    return loss * len(logits)
