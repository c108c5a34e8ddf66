"""The leaderboard rows ``vit_exits/<timm name>`` and ``cascaded_vit/<timm name>``.

Shapes: images ``(B, D, H, W)``, logits ``(E, B, C)``, labels ``(B,)``. Options that cannot be raise UserError in
``build``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard, Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.td import check_lam, td_loss
from baselines.vit.cascade import CascadedViT
from baselines.vit.exits import ViTExits
from baselines.vit.network import ViTOptions, create_vit, decay_groups

_TICKS = "One tick for the embedding and one per branch of the residual stream (attention or MLP), two to a block; "


@dataclass
class ViTExitsOptions(ViTOptions):
    """``every``: a head after each block (1) or after every n-th; the last block always has one."""

    every: int = 1


@dataclass
class CascadedViTOptions(ViTOptions):
    """``schedule`` "parallel" or "serial"; ``heads`` "single" (one readout for all exits) or "multi".

    ``loss``: "td" for TD(lambda) with ``lam``, by default 0.5 for the parallel and 1 for the serial schedule; "last"
    for cross-entropy at the last exit alone, which trains the plain ViT.
    """

    schedule: str = "parallel"
    heads: str = "single"
    loss: str = "td"
    lam: float | None = None


class ViTWithExits(Method):
    """A Vision Transformer with heads between its blocks, trained with the mean cross-entropy over exits."""

    card = MethodCard(
        title="ViT with exits",
        paper="Bakhtiarnia et al., Multi-Exit Vision Transformer for Dynamic Inference, 2021",
        year=2021,
        url="https://arxiv.org/abs/2106.15183",
        ticks=_TICKS + "heads are not counted.",
        deviations=(
            "A head is the network's own form of readout (norm, pool, linear layer) with weights of its own; the paper "
            "compares seven larger forms.",
            "The network and all heads learn together from scratch, every exit with equal weight; the paper adds heads "
            "to a trained network.",
            "Patches are smaller than the model's own where an image would be cut into fewer than 49; width, depth and "
            "heads are options.",
        ),
    )
    Config = ViTExitsOptions
    variant_option = "model"

    def build(self, task: TaskCard) -> AnytimeModel:
        return ViTExits(create_vit(self.config, task), self.config.every)

    def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
        """Positions and prefix tokens are never decayed."""
        return decay_groups(model)


class CascadedViTMethod(Method):
    """A Vision Transformer whose branches are delayed by a step each, trained with TD(lambda)."""

    card = MethodCard(
        title="Cascaded ViT",
        paper="Iuzzolino, Mozer, Bengio, Improving Anytime Prediction with Parallel Cascaded Networks and a "
        "Temporal-Difference Loss, NeurIPS 2021 (there for ResNets)",
        year=2021,
        url="https://arxiv.org/abs/2102.09808",
        ticks=_TICKS + "in the parallel schedule all branches work at once, each on the step before.",
        deviations=(
            "The paper cascades ResNets and publishes nothing on transformers: this row carries its delay and its loss "
            "over to attention and MLP branches.",
            "The stem is not delayed, the delay is one step (no exponential smoothing), and equal inputs are computed "
            "once, as in the suite's other cascades.",
            "Layer norm needs no statistics per step, so there is no temporal batch norm.",
            "Lambda is 0.5 in the parallel schedule; the paper's figures have 0, with which this network learned more "
            "slowly on the validation split of digits.",
            "A branch is half a block, so L is twice the depth, and running through all exits takes (L+1)/2 plain "
            "passes.",
        ),
    )
    Config = CascadedViTOptions
    variant_option = "model"

    def build(self, task: TaskCard) -> AnytimeModel:
        if self.config.loss not in ("td", "last"):
            raise UserError(f"loss is '{self.config.loss}'; expected 'td' or 'last'.")
        if self.config.loss == "last" and self.config.heads == "multi":
            raise UserError("loss=last trains no early head: use heads=single, or loss=td.")
        check_lam(self.lam)
        return CascadedViT(create_vit(self.config, task), self.config.schedule, self.config.heads)

    def parameter_groups(self, model: AnytimeModel) -> list[dict[str, Any]]:
        """Positions and prefix tokens are never decayed."""
        return decay_groups(model)

    @property
    def lam(self) -> float:
        """Lambda of the TD loss."""
        if self.config.lam is not None:
            return self.config.lam
        return 0.5 if self.config.schedule == "parallel" else 1.0

    def training_loss(self, model: AnytimeModel, images: Tensor, targets: Tensor, progress: Progress) -> Tensor:
        """TD(lambda) summed over exits, or cross-entropy at the last exit: one plain pass."""
        if self.config.loss == "last":
            return F.cross_entropy(model.answer(images, model.num_exits - 1), targets)
        return td_loss(model(images), targets, self.lam)
