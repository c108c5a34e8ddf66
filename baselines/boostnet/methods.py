"""The leaderboard rows ``boostnet`` (on MSDNet, as published) and ``boostnet/sdn`` (on a residual network)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.boostnet.model import BoostedNet, boosted_losses
from baselines.msdnet.methods import MSDNetAnytime, MSDNetOptions
from baselines.msdnet.model import MSDNet
from baselines.sdn.methods import SDN, SDNOptions
from baselines.sdn.model import ShallowDeepNet

#: The networks that can be boosted, by the row that trains them without.
BASES: dict[str, type[Method]] = {"msdnet": MSDNetAnytime, "sdn": SDN}


@dataclass
class BoostNetOptions:
    """``base``: "msdnet" or "sdn"; the network itself is described by the options of that name, as in its own row.

    ``reweight`` is one number for all exits or a list with one per exit. ``gradient_equilibrium`` rescales the
    gradients of the exits (only on MSDNet's coarsest scale). ``published_sum`` trains with the published code's
    weighted sum, which differs from the one in the answers where the weights do.
    """

    base: str = "msdnet"
    reweight: Any = 0.5
    gradient_equilibrium: bool = True
    published_sum: bool = False
    msdnet: MSDNetOptions = field(default_factory=MSDNetOptions)
    sdn: SDNOptions = field(default_factory=SDNOptions)


class BoostNet(Method):
    """A dynamic network trained as a boosted ensemble of its exits."""

    card = MethodCard(
        title="BoostNet",
        paper="Yu et al., Boosted Dynamic Neural Networks, AAAI 2023",
        year=2023,
        url="https://arxiv.org/abs/2211.16726",
        ticks="Those of the network that is boosted: on MSDNet one for the stem and one per layer, on SDN one for the "
        "stem and one per residual block. Adding up the exits is not counted.",
        deviations=(
            "Fixed: one definition of the weighted sum, F_k = f_k + w_k F_{k-1}, in training and in the answers; the "
            "published code uses w_{k-1} for it in training, which published_sum=true restores. With one weight for "
            "all exits, as published, both are the same (B1).",
            "Kept: gradients are rescaled on MSDNet's coarsest scale alone (B2).",
            "Fixed: the weights of the exits are stored with the network's weights, so they cannot be forgotten (B3).",
            "Fixed: neither the epoch nor a threshold is chosen on the test split, and validation images are not "
            "augmented (B4); stopping thresholds by the suite's own rule (M4).",
            "Kept: torch's default initialisation (M1). The loss is the sum over the exits, not their mean.",
            "The network is the suite's MSDNet, with its own deviations: features are computed when an exit first "
            "needs them. base=sdn, which the paper does not try, boosts the exits of a Shallow-Deep Network; "
            "the growing weights of their losses are then left out.",
        ),
    )
    Config = BoostNetOptions
    variant_option = "base"

    def build(self, task: TaskCard) -> AnytimeModel:
        """The boosted network for ``task``; ValueError for an unknown base or a wrong number of weights."""
        c: BoostNetOptions = self.config
        if c.base not in BASES:
            raise ValueError(f"base is '{c.base}'; expected one of {', '.join(BASES)}")
        network = BASES[c.base](getattr(c, c.base)).build(task)
        assert isinstance(network, MSDNet | ShallowDeepNet)
        network.gradient_equilibrium = c.gradient_equilibrium
        return BoostedNet(network, c.reweight)

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """Sum over the exits of the cross-entropy that each has on top of those before it."""
        assert isinstance(model, BoostedNet)
        return boosted_losses(model.base(images), targets, model.reweight, self.config.published_sum).sum()
