"""The leaderboard row ``ensemble``: independent ResNets of growing size, run one after another.

The simplest anytime method, and the control curve of Huang et al. (ICLR 2018, section 5): the answers share nothing, so
each pays anew for what the nets before it computed. With the nets f_0, ..., f_{E-1}::

    mode "last"    answer k = f_k
    mode "mean"    answer k = log of the mean of softmax(f_0), ..., softmax(f_k)

In training every net has a cross-entropy of its own, as if it were trained alone on the same batches. Sizes are those
of the rows ``static/<size>``.

Shapes: images ``(B, D, H, W)``, logits of an exit ``(B, C)``, logits of all exits ``(E, B, C)``. Raises ValueError for
an unknown mode or size, and for no sizes at all.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from torch import Tensor, nn
from torch.nn import functional as F

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.residual import Backbone
from baselines.static import LADDER, depth, resnet_of_size
from baselines.wrappers import MeanModel


class IndependentNets(AnytimeModel):
    """Exit k is the answer of net k alone."""

    compacts = True

    def __init__(self, nets: Sequence[Backbone]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.num_exits = len(nets)
        self.ticks = tuple(accumulate(map(depth, nets)))

    def stream(self, images: Tensor) -> Generator[Tensor, Tensor | None, None]:
        """Logits ``(B, C)`` of one net after another; ``send`` a mask ``(B,)`` to go on with some samples alone."""
        for net in self.nets:
            keep = yield net(images)
            if keep is not None:
                images = images[keep]

    def answer(self, images: Tensor, k: int) -> Tensor:
        """Logits ``(B, C)`` of net k, without the others."""
        self.check_exit(k)
        return self.nets[k](images)


@dataclass
class EnsembleOptions:
    """``sizes`` of the nets, in order, as in ``static/<size>``; ``mode`` is "last" or "mean".

    ``width`` and ``stem_pool`` describe the full-sized net, as in ``serial_ce``.
    """

    mode: str = "mean"
    sizes: list[str] = field(default_factory=lambda: list(LADDER[:5]))
    width: int = 64
    stem_pool: bool = True


class Ensemble(Method):
    """Independent nets, trained side by side under one recipe."""

    card = MethodCard(
        title="Ensemble of ResNets",
        paper="Huang et al., Multi-Scale Dense Networks for Resource Efficient Image Classification, ICLR 2018 (the "
        "ensemble of ResNets of varying depth)",
        year=2018,
        url="https://arxiv.org/abs/1703.09844",
        ticks="One tick for the stem and one per residual block, net after net. Nets could run side by side; that is "
        "for the span to show.",
        deviations=(
            "The nets differ in depth and width and are the suite's ResNets, so that the row has the same parts as the "
            "others.",
            "Trained together: the loss is the sum of the nets' cross-entropies, whose gradient in each net is that of "
            "training it alone.",
            "mode=mean averages probabilities, as in the paper; mode=last, which forgets the smaller nets, is a second "
            "control.",
        ),
    )
    Config = EnsembleOptions
    variant_option = "mode"

    def build(self, task: TaskCard) -> AnytimeModel:
        """The nets for ``task``, untrained."""
        options: EnsembleOptions = self.config
        if options.mode not in ("last", "mean"):
            raise ValueError(f"mode is '{options.mode}'; expected last or mean")
        if not options.sizes:
            raise ValueError(f"sizes is empty; an ensemble has at least one net, for example {', '.join(LADDER[:2])}")
        nets = [resnet_of_size(size, options.width, options.stem_pool, task) for size in options.sizes]
        return MeanModel(IndependentNets(nets)) if options.mode == "mean" else IndependentNets(nets)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Sum of the nets' cross-entropies, in either mode."""
        nets = model.base if isinstance(model, MeanModel) else model
        return F.cross_entropy(nets(images).flatten(0, 1), targets.repeat(nets.num_exits)) * nets.num_exits
