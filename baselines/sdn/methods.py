"""The leaderboard rows ``sdn``, ``sdn/disjoint``, ``sdn/mixed`` and ``sdn_ic_only``: one network, three trainings.

============ =================================== ====================================================================
regime       begins with                         trains
============ =================================== ====================================================================
``joint``    fresh weights                       network and internal classifiers (Kaya et al., SDN training)
``disjoint`` a trained network                   the internal classifiers alone (Kaya et al., IC-only training)
``mixed``    a trained network                   network and internal classifiers (Kubaty et al., ICML 2025)
============ =================================== ====================================================================

The trained network is ``serial_ce``'s, or what ``weights`` holds. ``sdn_ic_only`` is the disjoint regime under the name
that it was first published with.

All run on the suite's ResNet-18 (``backbone: suite``), the paper's CIFAR ResNet (``backbone: cifar``) and any timm
model of the ResNet family (``backbone: timm/<name>``). Impossible combinations raise UserError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

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


@dataclass
class RegimeOptions(SDNOptions):
    """``regime``: "joint", "disjoint" or "mixed"; the rest describes the network."""

    regime: str = "joint"


REGIMES = ("joint", "disjoint", "mixed")
_PAPER = "Kaya et al., Shallow-Deep Networks: Understanding and Mitigating Network Overthinking, ICML 2019"
_URL = "https://arxiv.org/abs/1810.07052"
_TICKS = "One tick for the stem and one per residual block; internal classifiers are not counted."
_DEVIATIONS = (
    "An IC reads the block's sum before its ReLU by default (ic_input=pre): that is what the published build, save, "
    "load flow trains and evaluates. ic_input=post is the other variant, which the published code gives right after "
    "conversion in memory; here it never depends on how the network was loaded (S1).",
    "Kept: learning rate steps take effect in their epoch, counted from 1, where the recipe names milestones (S4).",
    "Fixed: confidence thresholds come from the validation split, in batches (S5). Kept: a sample that no exit is "
    "sure of pays for the whole network (S6).",
    "Fixed: MACs are read off the executed operations, each once, on a network without hooks; alpha counts as a "
    "parameter (S7). They are MACs, not the published operations of about twice that (S14).",
    "Left out: the confusion distance and its epsilons, and the 0.1 in the overthinking averages; the suite scores "
    "overthinking for all methods alike (S8, S12).",
    "Fixed: images are normalised with the task's own mean and deviation (S9); accuracies are never measured on "
    "augmented images (S13).",
    "ICs stand where the measured share of MACs is nearest to 15, 30, 45, 60, 75, 90 %, and their loss weights are "
    "these nominal shares, as published (S10); a network with fewer blocks has fewer ICs.",
    "Kept: alpha is not confined to [0, 1] and is decayed with the other weights (S11).",
)
_FROZEN = (
    "Fixed: the frozen network's batch norm stays in eval mode, so neither its weights nor its statistics move while "
    "the ICs learn (S2)."
)


class SDN(Method):
    """Internal classifiers on a residual network, under one of three training regimes."""

    card = MethodCard(
        title="SDN",
        paper=f"{_PAPER}; regime=mixed: Kubaty et al., How to Train Your Multi-Exit Model?, ICML 2025",
        year=2019,
        url=_URL,
        ticks=_TICKS,
        deviations=(
            *_DEVIATIONS,
            "Fixed: the published SDN training stops with an error, ic_only being unset (S3); the weights tau follow "
            "the paper.",
            f"regime=disjoint: {_FROZEN}",
            "regime=mixed (arXiv 2407.14320): the network is trained first, then everything, each for the recipe's "
            "epochs and along its learning rates; the second training has SDN's loss with its growing weights.",
        ),
    )
    Config: ClassVar[type[SDNOptions]] = RegimeOptions
    variant_option: ClassVar[str | None] = "regime"

    def __init__(self, config: SDNOptions | None = None) -> None:
        super().__init__(config)
        if self.regime not in REGIMES:
            raise UserError(f"regime is '{self.regime}'; expected one of {', '.join(REGIMES)}.")
        if self.regime != "joint":
            self.starts_from = source_of_backbone(self.regime, self.config)

    @property
    def regime(self) -> str:
        """How the row is trained; joint where the options, as another row may hold them, describe a network alone."""
        return str(getattr(self.config, "regime", "joint"))

    def build(self, task: TaskCard) -> AnytimeModel:
        """The network with its internal classifiers for ``task``; trained weights come by ``adopt``."""
        frozen = self.regime == "disjoint"
        backbone = frozen_backbone(self.regime, self.config, task) if frozen else make_backbone(self.config, task)[0]
        return ShallowDeepNet(backbone, task.num_classes, task.shape, self.config.ic_input, frozen=frozen)

    def adopt(self, model: AnytimeModel, weights: Mapping[str, Tensor]) -> None:
        """Load ``serial_ce``'s weights into the network; the internal classifiers stay as initialised."""
        assert isinstance(model, ShallowDeepNet)
        adopt_serial(model.backbone, weights)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """sum_i tau_i CE_i + CE_final; with a frozen network the sum of the internal classifiers' CE_i."""
        logits = model(images)
        if self.regime == "disjoint":
            return ic_only_loss(logits, targets)
        return sdn_loss(logits, targets, tau(progress.epoch, progress.epochs, nominal_of(model)))


class SDNICOnly(SDN):
    """The disjoint regime under its first name, with the options that its published records hold."""

    card = MethodCard(
        title="SDN (IC only)", paper=_PAPER, year=2019, url=_URL, ticks=_TICKS, deviations=(*_DEVIATIONS, _FROZEN)
    )
    Config = SDNOptions
    variant_option = None

    @property
    def regime(self) -> str:
        return "disjoint"


def nominal_of(model: torch.nn.Module) -> Sequence[float]:
    """The ICs' nominal shares of the cost; looks through a wrapper for training on several devices."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, ShallowDeepNet)
    return inner.nominal


def source_of_backbone(regime: str, options: SDNOptions) -> str | None:
    """The method whose trained network ``regime`` begins with; None where a file of weights gives it."""
    if options.weights:
        return None
    if options.backbone != "suite":
        raise UserError(
            f"the {regime} regime begins with a trained network, and backbone '{options.backbone}' has "
            "none: give weights=FILE, or backbone=suite, which takes serial_ce's."
        )
    return "serial_ce"


def frozen_backbone(regime: str, options: SDNOptions, task: TaskCard) -> Backbone:
    """The backbone that ``regime`` leaves as it is; a file of weights must therefore hold its classifier too."""
    backbone, complete = make_backbone(options, task)
    if options.weights and not complete:
        raise UserError(
            f"weights file '{options.weights}' has no classifier for {task.num_classes} classes, and "
            f"the {regime} regime trains none: give those of a network trained on {task.name}, or use another."
        )
    return backbone


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
