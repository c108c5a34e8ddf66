"""The leaderboard rows ``timm/<name>``: any timm classification model as it stands, with its one answer at the end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.tasks.task import TaskCard
from baselines.single_exit import SingleExit
from baselines.timm import backbones as timm_backbones


@dataclass
class TimmOptions:
    """``backbone``: a name of timm. ``weights``: a local .safetensors or .pth state dict, or nothing."""

    backbone: str = "resnet18"
    weights: str = ""


def residual_blocks(network: nn.Module) -> int:
    """Modules whose class is named a block, bottleneck or residual and that hold no other such module.

    >>> from timm import create_model
    >>> [residual_blocks(create_model(name)) for name in ("resnet18", "resnet50", "vit_tiny_patch16_224")]
    [8, 16, 12]
    """

    def is_block(module: nn.Module) -> bool:
        name = type(module).__name__.lower()
        return any(word in name for word in ("block", "bottleneck", "residual", "depthwiseseparable"))

    blocks = [module for module in network.modules() if is_block(module)]
    return sum(not any(is_block(inner) for inner in block.modules() if inner is not block) for block in blocks)


class TimmSingleExit(Method):
    """A model of timm, trained with cross-entropy."""

    card = MethodCard(
        title="timm",
        paper="Wightman, PyTorch Image Models",
        year=2019,
        url="https://github.com/huggingface/pytorch-image-models",
        ticks="One tick for the stem and one per innermost block of the network, one block after another.",
        deviations=("Not an anytime method: one answer, at full cost.",),
    )
    Config = TimmOptions
    variant_option = "backbone"

    def build(self, task: TaskCard) -> AnytimeModel:
        network = timm_backbones.create(self.config.backbone, task.num_classes, task.shape, self.config.weights)
        return SingleExit(network, 1 + residual_blocks(network))
