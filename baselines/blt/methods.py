"""The leaderboard row ``blt``: a recurrent network that answers at every step."""

from __future__ import annotations

from dataclasses import dataclass

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.tasks.task import TaskCard
from baselines.blt.model import RecurrentNet


@dataclass
class BLTOptions:
    """``areas`` layers, the first of ``width`` channels and each of twice as many as the one below; ``steps`` exits.

    ``lateral`` and ``top_down`` switch the recurrent connections. ``stem_pool`` as in ``serial_ce``.
    """

    width: int = 64
    areas: int = 4
    steps: int = 8
    lateral: bool = True
    top_down: bool = True
    stem_pool: bool = True


class BLT(Method):
    """Trained with the mean over steps of the cross-entropy, as published."""

    card = MethodCard(
        title="BLT",
        paper="Spoerer et al., Recurrent neural networks can explain flexible trading of speed and accuracy in "
        "biological vision, PLOS Computational Biology 2020; top-down connections: Spoerer et al., Frontiers in "
        "Psychology 2017",
        year=2020,
        url="https://doi.org/10.1371/journal.pcbi.1008215",
        ticks="One tick is one layer of ideal parallel time, all layers working side by side, the stem first. Once the "
        "first answer is there, one more every second tick, since a step waits for the step before in the layer above "
        "(every tick with top_down=false).",
        deviations=(
            "The network of 2020 with the top-down connections of 2017, transposed convolutions of stride 2; "
            "top_down=false is the network of 2020.",
            "Four recurrent layers of 3x3 convolutions, whose channels double, on the suite's stem. Published are "
            "seven, of 96 to 2048 channels and kernels of 7 to 1 pixels, for 128x128 images.",
            "Batch norm has statistics per step, as published, but one scale and shift for all steps.",
            "The image's drive to the first layer is computed once, as published; in watch, anew for each frame.",
            "Answers are those of the step alone. A cumulative readout is mean_of_exits/blt, which averages "
            "probabilities where the published one adds logits.",
            "Optimiser, learning rate and weight decay are the recipe's; published are Adam and an l2 of 1e-6.",
        ),
    )
    Config = BLTOptions

    def build(self, task: TaskCard) -> AnytimeModel:
        """The network for ``task``, untrained."""
        o: BLTOptions = self.config
        return RecurrentNet(
            task.num_classes, task.shape[0], o.width, o.areas, o.steps, o.lateral, o.top_down, o.stem_pool
        )
