"""The leaderboard row ``ztw``: Zero Time Waste on a shallow-deep network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.residual import adopt_serial
from baselines.sdn.methods import SDNOptions, frozen_backbone, make_backbone, source_of_backbone
from baselines.sdn.model import exit_losses
from baselines.ztw.ensembles import EPSILON, Ensembles
from baselines.ztw.heads import head_maker
from baselines.ztw.model import StackedHeads, ZeroTimeWaste

#: The rewrite's smallest probability; float32 holds it only as a denormal number, which is enough for a logarithm.
REWRITE_EPSILON = 1e-40


@dataclass
class ZTWOptions(SDNOptions):
    """The network, ``ic_input`` and ``weights`` as in ``sdn``.

    ``regime``: "frozen" (heads on a trained network that stays as it is) or "joint" (both learn together).
    ``heads``: "every" (after each block but the last) or "sdn" (where SDN puts them). ``head``: "original", or the
    rewrite's "pool" or "conv". ``stack``: whether a head reads the previous one's logits. ``ensemble``: "geometric",
    "additive" or "standard", fitted by Adam over ``ensemble_epochs`` epochs.
    """

    regime: str = "frozen"
    heads: str = "every"
    head: str = "original"
    stack: bool = True
    ensemble: str = "geometric"
    ensemble_epochs: int = 501
    ensemble_batch_size: int = 512
    ensemble_lr: float = 5e-4


class ZTW(Method):
    """Zero Time Waste.

    On the suite's backbone the frozen network is ``serial_ce``'s; on any other it is read from ``weights``.
    """

    card = MethodCard(
        title="Zero Time Waste",
        paper="Wolczyk et al., Zero Time Waste: Recycling Predictions in Early Exit Neural Networks, NeurIPS 2021",
        year=2021,
        url="https://arxiv.org/abs/2106.05409",
        ticks="One tick for the stem and one per residual block; heads and ensembles are not counted.",
        deviations=(
            "Heads, losses and ensembles are those of the paper's own code by default. head=pool and head=conv are its "
            "later rewrite's, which normalises the previous logits, leaves the network's own answer out of the "
            "ensembles, and takes the mean of the losses (Z4). The rewrite's first head has no layer norm here: it "
            "would have nothing to normalise (Z6).",
            "A head reads the block's sum before its ReLU by default (ic_input=pre), as in SDN (S1).",
            "A head after every block but the last, whose place the network's own answer takes; the paper has both.",
            "Fixed: the frozen network's batch norm stays in eval mode (S2), and its weights are loaded strictly (Z5).",
            "Kept: joint training takes the mean of the heads' losses plus the last exit's; the published ramp of "
            "weights is computed and then overwritten (Z1).",
            "Fixed: confidence is the softmax over the classes of one sample; the published early exit takes it over "
            "the batch, where everyone leaves at the first exit (Z2).",
            "Fixed: when a part of a batch leaves, the previous logits and the ensemble's members leave with it; the "
            "rewrite stops with an error there (Z3).",
            "The heads learn as the recipe says: by Adam, as published, in the full ones, by the SGD of all rows "
            "on the CPU's cuts. The ensembles learn by Adam, as published, on one augmented pass over the training "
            "images.",
            "Cost is MACs, read off the executed operations, each once (S7).",
        ),
    )
    Config = ZTWOptions

    def __init__(self, config: ZTWOptions | None = None) -> None:
        super().__init__(config)
        c: ZTWOptions = self.config
        for name, words in {"regime": ("frozen", "joint"), "heads": ("every", "sdn")}.items():
            if getattr(c, name) not in words:
                raise ValueError(f"{name} is '{getattr(c, name)}'; expected {' or '.join(words)}")
        self.starts_from = source_of_backbone(c.regime, c) if c.regime == "frozen" else None

    def build(self, task: TaskCard) -> AnytimeModel:
        """Backbone, heads and ensembles for ``task``."""
        c: ZTWOptions = self.config
        frozen = c.regime == "frozen"
        backbone = frozen_backbone(c.regime, c, task) if frozen else make_backbone(c, task)[0]
        heads = StackedHeads(
            backbone, task.num_classes, task.shape,
            range(len(backbone.blocks) - 1) if c.heads == "every" else None,
            head_maker(c.head, c.stack), c.ic_input, frozen,
        )  # fmt: skip
        original = c.head == "original"
        members = heads.num_exits if original else heads.num_exits - 1
        epsilon = EPSILON if original else REWRITE_EPSILON
        return ZeroTimeWaste(heads, Ensembles(c.ensemble, members, task.num_classes, epsilon))

    def adopt(self, model: AnytimeModel, weights: Mapping[str, Tensor]) -> None:
        """Load ``serial_ce``'s weights into the backbone; heads and ensembles stay as initialised."""
        assert isinstance(model, ZeroTimeWaste)
        adopt_serial(model.base.backbone, weights)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """The heads' loss; the ensembles learn in ``finish``."""
        assert isinstance(model, ZeroTimeWaste)
        return heads_loss(model.base(images), targets, self.config.regime, self.config.head)

    def finish(self, model: AnytimeModel, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Fit the ensembles to the finished heads."""
        assert isinstance(model, ZeroTimeWaste)
        c: ZTWOptions = self.config
        model.fit_ensembles(batches(), c.ensemble_epochs, c.ensemble_batch_size, c.ensemble_lr)


def heads_loss(logits: Tensor, targets: Tensor, regime: str = "frozen", head: str = "original") -> Tensor:
    """Loss of the exits' ``logits (E, B, C)``, the last ones the network's own, for ``targets (B,)``.

    The original code's: the sum over the heads where the network is frozen; their mean plus the network's where it
    learns too. The rewrite's ("pool", "conv"): the mean over all exits.
    """
    losses = exit_losses(logits, targets)
    if head != "original":
        return losses.mean()
    return losses[:-1].sum() if regime == "frozen" else losses[:-1].mean() + losses[-1]
