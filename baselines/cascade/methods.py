"""The six rows of the cascade paper: serial or parallel schedule, cross-entropy or TD loss, one head or one per exit.

Source: Iuzzolino, Mozer, Bengio, *Improving Anytime Prediction with Parallel Cascaded Networks and a
Temporal-Difference Loss*, NeurIPS 2021 (arXiv 2102.09808), figure 3. SerialCE is the plain ResNet and the suite's
reference; SerialTD-MultiHead is the paper's form of a shallow-deep network. In the published figures lambda is 0 for
parallel and 1 for serial models.

Shapes: images ``(B, D, H, W)``, logits ``(E, B, C)`` with E = L + 1 exits for L blocks. A configuration that makes no
sense (``lam`` outside [0, 1], ``alpha`` outside [0, 1), unknown words, images too small) raises ValueError in
``build``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.balance import inner_widths
from baselines.cascade.model import CascadedResNet
from baselines.cascade.norm import TemporalNorm
from baselines.cascade.td import check_lam, td_loss


@dataclass
class ResNetOptions:
    """The network: blocks per stage, kind of block ("basic" or "bottleneck"), channels of the first stage.

    ``balanced`` chooses the channels inside the basic blocks so that all blocks take about equally long.
    """

    blocks: list[int] = field(default_factory=lambda: [2, 2, 2, 2])
    block: str = "basic"
    width: int = 64
    stem_pool: bool = True
    balanced: bool = False


@dataclass
class CascadeOptions(ResNetOptions):
    """The delay ("osd" or "ews"), its smoothing ``alpha`` (for "ews"), and the published form's delayed stem."""

    delay: str = "osd"
    alpha: float = 0.9
    stem_delay: bool = False


@dataclass
class ParallelTDOptions(CascadeOptions):
    """TD(lambda) for parallel models; the published figures use lambda = 0."""

    lam: float = 0.0


@dataclass
class SerialTDOptions(CascadeOptions):
    """TD(lambda) for serial models; the published figures use lambda = 1."""

    lam: float = 1.0


_DEVIATIONS = (
    "the stem's output is not delayed (stem_delay=true restores the published form, whose exit 0 is blind and whose "
    "last exit is one step short of full depth)",
    "batch norm uses eps 1e-5 and momentum 0.1; the released code passes its arguments one position off and trains "
    "with eps 0.1 and momentum 1.0",
    "batch-norm rows are kept for distinct inputs only, and equal inputs are computed once",
)
_TICKS = "one tick is one residual block of ideal parallel time; the stem is the first tick"


def _card(title: str, cifar10: float, cifar100: float, tiny_imagenet: float, deviations: tuple[str, ...]) -> MethodCard:
    """Final accuracies in percent, as read off the vector figures of the authors' repository."""
    percent = {"cifar10": cifar10, "cifar100": cifar100, "tiny_imagenet": tiny_imagenet}
    return MethodCard(
        title=title,
        paper="Improving Anytime Prediction with Parallel Cascaded Networks and a Temporal-Difference Loss",
        year=2021,
        url="https://arxiv.org/abs/2102.09808",
        ticks=_TICKS,
        deviations=deviations,
        reported={task: round(value / 100, 4) for task, value in percent.items()},
    )


class _CascadeRow(Method):
    """What the six rows share: how options become a network. Rows differ in ``schedule``, ``heads`` and loss."""

    schedule: ClassVar[str]
    heads: ClassVar[str] = "single"

    def build(self, task: TaskCard) -> AnytimeModel:
        """The network for ``task``, untrained."""
        options = self.config
        if hasattr(options, "lam"):
            check_lam(options.lam)
        delays = {name: getattr(options, name) for name in ("delay", "alpha", "stem_delay") if hasattr(options, name)}
        model = CascadedResNet(
            blocks=tuple(options.blocks),
            block=options.block,
            width=options.width,
            num_classes=task.num_classes,
            in_channels=task.shape[0],
            schedule=self.schedule,
            heads=self.heads,
            stem_pool=options.stem_pool,
            inner=self._inner(task) if options.balanced else None,
            **delays,
        )
        model.check_size(*task.shape[1:])
        return model

    def _inner(self, task: TaskCard) -> list[int]:
        height, breadth = (-(-side // 2) if self.config.stem_pool else side for side in task.shape[1:])
        return inner_widths(self.config.blocks, self.config.width, height, breadth)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """TD(lambda), summed over the exits; the published form's blind exit 0 does not count."""
        assert isinstance(model, CascadedResNet)
        first = 1 if model.stem_delay and model.delay == "osd" else 0
        return td_loss(model(images)[first:], targets, self.config.lam)


class CascadedTD(_CascadeRow):
    card = _card("CascadedTD", 91.47, 64.78, 55.03, _DEVIATIONS)
    Config = ParallelTDOptions
    schedule = "parallel"


class CascadedTDMultiHead(_CascadeRow):
    card = _card("CascadedTD-MultiHead", 90.01, 64.57, 53.10, _DEVIATIONS)
    Config = ParallelTDOptions
    schedule, heads = "parallel", "multi"


class SerialTD(_CascadeRow):
    card = _card("SerialTD", 87.23, 59.28, 44.83, _DEVIATIONS)
    Config = SerialTDOptions
    schedule = "serial"


class SerialTDMultiHead(_CascadeRow):
    card = _card("SerialTD-MultiHead", 90.34, 60.22, 49.83, _DEVIATIONS)
    Config = SerialTDOptions
    schedule, heads = "serial", "multi"


class SerialCE(_CascadeRow):
    """The plain ResNet, trained at its last exit alone; the earlier exits leave out the upper residual branches."""

    card = _card("SerialCE", 91.85, 65.87, 56.02, _DEVIATIONS[:2])
    Config = ResNetOptions
    schedule = "serial"

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Cross-entropy of the last exit: one plain pass."""
        return F.cross_entropy(model.answer(images, model.num_exits - 1), targets)


class CascadedCE(_CascadeRow):
    """SerialCE's weights run as a parallel cascade, without training of its own."""

    card = _card(
        "CascadedCE",
        91.85,
        65.87,
        56.02,
        (*_DEVIATIONS[:2], "every step uses SerialCE's one row of batch-norm statistics"),
    )
    Config = CascadeOptions
    schedule = "parallel"
    weights_from = "serial_ce"

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Refused: this row has no training of its own."""
        raise RuntimeError("cascaded_ce evaluates serial_ce's weights: train serial_ce instead")

    def adopt(self, model: AnytimeModel, weights: Mapping[str, Tensor]) -> None:
        """Load SerialCE's weights, its one row of batch-norm statistics standing for every step."""
        rows = {name: module.rows for name, module in model.named_modules() if isinstance(module, TemporalNorm)}
        expanded = dict(weights)
        for name, count in rows.items():
            for statistic in ("running_mean", "running_var"):
                key = f"{name}.{statistic}"
                if key in expanded:
                    expanded[key] = expanded[key][-1:].expand(count, -1)
        model.load_state_dict(expanded)
