"""The leaderboard rows ``sdn`` (network and internal classifiers trained together) and ``sdn_ic_only``.

Both run on the suite's ResNet-18 (``backbone: suite``), the paper's CIFAR ResNet (``backbone: cifar``) and any timm
model of the ResNet family (``backbone: timm/<name>``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.residual import Backbone, adopt_serial, cifar_resnet, suite_resnet
from baselines.sdn.model import ShallowDeepNet, ic_only_loss, sdn_loss, tau


@dataclass
class SDNOptions:
    """``backbone``: "suite", "cifar" or "timm/<name>".

    ``blocks``, ``width`` and ``stem_pool`` shape the suite's ResNet as in ``serial_ce``, ``depth`` the CIFAR one.
    ``ic_input`` is what an IC reads: "pre" or "post" the block's last ReLU. ``weights`` is a local state dict of the
    backbone (.safetensors or .pth; timm's own names for a timm model), or nothing.
    """

    backbone: str = "suite"
    blocks: list[int] = field(default_factory=lambda: [2, 2, 2, 2])
    width: int = 64
    stem_pool: bool = True
    depth: int = 56
    ic_input: str = "pre"
    weights: str = ""


_PAPER = "Kaya et al., Shallow-Deep Networks: Understanding and Mitigating Network Overthinking, ICML 2019"
_URL = "https://arxiv.org/abs/1810.07052"
_TICKS = "One tick for the stem and one per residual block; internal classifiers are not counted."
_DEVIATIONS = (
    "An IC reads the block's sum before its ReLU by default (ic_input=pre): that is what the published build, save, "
    "load flow trains and evaluates. ic_input=post is the other variant, which the published code gives right after "
    "conversion in memory; here it never depends on how the network was loaded (S1).",
    "Kept: learning rate steps take effect in their epoch, counted from 1, where the recipe names milestones (S4).",
    "Mended: confidence thresholds come from the validation split, in batches (S5). Kept: a sample that no exit is "
    "sure of pays for the whole network (S6).",
    "Mended: MACs are read off the executed operations, each once, on a network without hooks; alpha counts as a "
    "parameter (S7). They are MACs, not the published operations of about twice that (S14).",
    "Left out: the confusion distance and its epsilons, and the 0.1 in the overthinking averages; the suite scores "
    "overthinking for all methods alike (S8, S12).",
    "Mended: images are normalised with the task's own mean and deviation (S9); accuracies are never measured on "
    "augmented images (S13).",
    "ICs stand where the measured share of MACs is nearest to 15, 30, 45, 60, 75, 90 %, and their loss weights are "
    "these nominal shares, as published (S10); a network with fewer blocks has fewer ICs.",
    "Kept: alpha is not confined to [0, 1] and is decayed with the other weights (S11).",
)


class SDN(Method):
    """SDN training: the network and its internal classifiers learn together, the ICs' weights growing over time."""

    card = MethodCard(
        title="SDN",
        paper=_PAPER,
        year=2019,
        url=_URL,
        ticks=_TICKS,
        deviations=(
            *_DEVIATIONS,
            "Mended: the published SDN training stops with an error, ic_only being unset (S3); the weights tau follow "
            "the paper.",
        ),
    )
    Config = SDNOptions

    def build(self, task: TaskCard) -> AnytimeModel:
        backbone, _ = make_backbone(self.config, task)
        return ShallowDeepNet(backbone, task.num_classes, task.shape, self.config.ic_input)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """sum_i tau_i CE_i + CE_final."""
        return sdn_loss(model(images), targets, tau(progress.epoch, progress.epochs, nominal_of(model)))


class SDNICOnly(Method):
    """IC-only training: internal classifiers on a trained network that stays as it is.

    On the suite's backbone the network is ``serial_ce``'s; on any other it is read from ``weights``.
    """

    card = MethodCard(
        title="SDN (IC only)",
        paper=_PAPER,
        year=2019,
        url=_URL,
        ticks=_TICKS,
        deviations=(
            *_DEVIATIONS,
            "Mended: the frozen network's batch norm stays in eval mode, so neither its weights nor its statistics "
            "move while the ICs learn (S2).",
        ),
    )
    Config = SDNOptions

    def __init__(self, config: SDNOptions | None = None) -> None:
        super().__init__(config)
        if not self.config.weights and self.config.backbone != "suite":
            raise UserError(
                f"sdn_ic_only trains classifiers on a trained network, and backbone '{self.config.backbone}' has none: "
                "give weights=FILE, or backbone=suite, which takes serial_ce's."
            )
        self.starts_from = None if self.config.weights else "serial_ce"

    def build(self, task: TaskCard) -> AnytimeModel:
        backbone, complete = make_backbone(self.config, task)
        if self.config.weights and not complete:
            raise UserError(
                f"weights file '{self.config.weights}' has no classifier for {task.num_classes} classes, and "
                f"sdn_ic_only trains none: give the weights of a network trained on {task.name}, or use sdn."
            )
        return ShallowDeepNet(backbone, task.num_classes, task.shape, self.config.ic_input, frozen=True)

    def adopt(self, model: AnytimeModel, weights: Mapping[str, Tensor]) -> None:
        """Load ``serial_ce``'s weights into the backbone; the ICs stay as initialised."""
        assert isinstance(model, ShallowDeepNet)
        adopt_serial(model.backbone, weights)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """sum_i CE_i over the internal classifiers."""
        return ic_only_loss(model(images), targets)


def nominal_of(model: torch.nn.Module) -> Sequence[float]:
    """The ICs' nominal shares of the cost; looks through a wrapper for training on several devices."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, ShallowDeepNet)
    return inner.nominal


def make_backbone(options: SDNOptions, task: TaskCard) -> tuple[Backbone, bool]:
    """The backbone for ``task``, and whether all of its weights, head included, came from ``options.weights``."""
    channels, classes = task.shape[0], task.num_classes
    if options.backbone.startswith("timm/"):
        from baselines.timm import backbones as timm_backbones

        timm_backbones.require_resnet(options.backbone)
        model = timm_backbones.create(options.backbone, classes, task.shape)
        complete = bool(options.weights) and timm_backbones.load_weights(model, options.weights)
        return timm_backbones.timm_resnet(model, options.backbone), complete
    if options.backbone == "suite":
        backbone = suite_resnet(options.blocks, options.width, classes, channels, options.stem_pool)
    elif options.backbone == "cifar":
        backbone = cifar_resnet(options.depth, classes, channels)
    else:
        raise UserError(f"backbone is '{options.backbone}'; expected suite, cifar or timm/<name of a timm ResNet>.")
    if options.weights:
        from baselines.timm.backbones import read_weights

        try:
            backbone.load_state_dict(dict(read_weights(options.weights)))
        except RuntimeError as error:
            raise UserError(
                f"weights file '{options.weights}' does not fit backbone '{options.backbone}': {error}"
            ) from error
    return backbone, bool(options.weights)
