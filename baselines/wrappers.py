"""Wrappers of a trained anytime model that combine its answers so far, without training.

Two make it more monotone, from Jazbec, Allingham, Zhang and Nalisnick, *Towards Anytime Classification in Early-Exit
Architectures by Enforcing Conditional Monotonicity*, NeurIPS 2023; one takes its exits for an ensemble, from Qendro,
Campbell, Lio and Mascolo, *Early Exit Ensembles for Uncertainty Quantification*, ML4H 2021. With f_i(x) the logits of
exit i = 0..E-1 of the wrapped model:

- product of experts (Product Anytime): ``p_k(y|x)`` proportional to ``prod_{i<=k} max(f_i(x)_y, 0)^{w_i}``, with
  ``w_i = (i+1)/E``. Where no class keeps a positive product, exit k answers ``softmax(f_k(x))`` on its own.
- most confident (Caching Anytime): exit k answers with whichever of the exits 0..k was surest, the later one in a tie.
- mean of exits: exit k answers with the mean of ``softmax(f_i(x))`` over i <= k.

All are defined on the running answers, so exit k needs the heads of all exits before it, and costs what the wrapped
model costs up to there. A model with state over frames keeps it: the wrapper combines whatever the model answers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.tasks.task import TaskCard

#: Natural logarithm of the smallest probability a product answers with, where the formula says 0.
LOG_ZERO = -87.0


class RunningAnswers(AnytimeModel):
    """A model whose exit k answers with a combination of ``base``'s exits 0..k.

    ``combine`` takes the state ``(B, ...)`` left by the exits before (None at exit 0), the logits ``(B, C)`` of exit k
    and k; it returns the new state and the logits to answer with.
    """

    def __init__(self, base: AnytimeModel) -> None:
        super().__init__()
        self.base = base
        self.num_exits = base.num_exits
        self.ticks = base.ticks
        # The state has one row per sample, so samples can leave if those of the wrapped model can.
        self.compacts = base.compacts  # type: ignore[misc]

    @abstractmethod
    def combine(self, state: Tensor | None, logits: Tensor, k: int) -> tuple[Tensor, Tensor]: ...

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        return self._combined(self.base.stream(images))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack(list(self._combined(iter(self.base(images)))))

    def watch(self, frames: Tensor) -> Iterator[Tensor]:
        return self._combined(self.base.watch(frames))

    def _combined(self, answers: Iterator[Tensor]) -> Generator[Tensor, Tensor | None, None]:
        state: Tensor | None = None
        keep: Tensor | None = None
        for k in range(self.num_exits):
            if keep is None:
                logits = next(answers)
            else:
                assert isinstance(answers, Generator)
                assert state is not None
                logits, state = answers.send(keep), state[keep]
            state, answer = self.combine(state, logits, k)
            keep = yield answer


class ProductModel(RunningAnswers):
    """Product Anytime; the state is the logarithm of the product so far, not normalised, -inf where it is 0."""

    def combine(self, state: Tensor | None, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        factor = (k + 1) / self.num_exits * logits.clamp(min=0).log()
        product = factor if state is None else state + factor  # (B, C)
        collapsed = torch.isneginf(product).all(dim=1, keepdim=True)
        log_probability = torch.where(collapsed, logits, product).log_softmax(dim=1)
        return product, log_probability.clamp(min=LOG_ZERO)


class MostConfidentModel(RunningAnswers):
    """Caching Anytime; the state is the logits of the surest exit so far."""

    def combine(self, state: Tensor | None, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if state is not None:
            surer = logits.softmax(dim=1).amax(dim=1) >= state.softmax(dim=1).amax(dim=1)
            logits = torch.where(surer[:, None], logits, state)
        return logits, logits


class MeanModel(RunningAnswers):
    """Mean of the exits' probabilities; the state is the logarithm of their sum so far."""

    def combine(self, state: Tensor | None, logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
        own = logits.log_softmax(dim=1)
        total = own if state is None else torch.logaddexp(state, own)
        return total, total - math.log(k + 1)


@dataclass
class WrapperOptions:
    """``base`` is the name of the method whose trained model is wrapped, e.g. ``sdn``."""

    base: str = "cascaded_td"


class _Wrapper(Method):
    Config = WrapperOptions
    variant_option = "base"
    model_class: type[RunningAnswers]

    def __init__(self, config: WrapperOptions | None = None) -> None:
        super().__init__(config)
        self.weights_from = self.config.base

    @property
    def base(self) -> Method:
        """The wrapped method with the options of the run, or with its defaults where no harness has set any."""
        from anytime_bench.methods.plugins import load_method

        return self.weights_source or load_method(self.config.base)

    def build(self, task: TaskCard) -> AnytimeModel:
        return self.model_class(self.base.build(task))

    def adopt(self, model: AnytimeModel, weights: Mapping[str, Tensor]) -> None:
        assert isinstance(model, RunningAnswers)
        model.base.load_state_dict(dict(weights))

    def skip(self, task: TaskCard) -> str | None:
        return self.base.skip(task)


class ProductOfExperts(_Wrapper):
    """Product Anytime over any method of the registry: ``product_of_experts/sdn``."""

    card = MethodCard(
        title="Running product of experts",
        paper="Jazbec et al., Towards Anytime Classification in Early-Exit Architectures by Enforcing Conditional "
        "Monotonicity, NeurIPS 2023",
        year=2023,
        url="https://arxiv.org/abs/2306.02652",
        ticks="those of the wrapped method; the combination is not counted",
        deviations=(
            "answers with log-probabilities, floored at e^-87 where the product is exactly 0",
            "logits are not temperature-scaled before the product",
        ),
    )
    model_class = ProductModel


class MostConfident(_Wrapper):
    """Caching Anytime over any method of the registry: ``most_confident/sdn``."""

    card = MethodCard(
        title="Most confident so far",
        paper="Jazbec et al., Towards Anytime Classification in Early-Exit Architectures by Enforcing Conditional "
        "Monotonicity, NeurIPS 2023 (caching baseline)",
        year=2023,
        url="https://arxiv.org/abs/2306.02652",
        ticks="those of the wrapped method; the combination is not counted",
    )
    model_class = MostConfidentModel


class MeanOfExits(_Wrapper):
    """Mean of the exits' probabilities over any method of the registry: ``mean_of_exits/sdn``."""

    card = MethodCard(
        title="Mean of the exits so far",
        paper="Qendro et al., Early Exit Ensembles for Uncertainty Quantification, ML4H 2021",
        year=2021,
        url="https://proceedings.mlr.press/v158/qendro21a.html",
        ticks="those of the wrapped method; the combination is not counted",
        deviations=(
            "at every exit the mean over the exits so far; the paper averages over all exits at the end of the network",
            "any network of the registry under its own recipe; the paper trains its exits for this purpose",
        ),
    )
    model_class = MeanModel
