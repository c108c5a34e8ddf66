"""The lazy executor of a cascade: one step at a time, leaving alone whatever did not change since the step before.

A token that is the same object as at the last step stands for a tensor that has not changed, so identity (``is``)
decides what is computed again: for a still image, block l settles at step l, and the work of the later steps shrinks
accordingly. Nothing is kept between calls; the state lives in one ``LazySteps`` per run.

Where the parts run is a matter of lanes (:mod:`baselines.cascade.parallel`).

Shapes: images ``(B, D, H, W)``, features ``(B, C, H, W)``, keep-masks ``(B,)`` boolean.
Source: the recursion of Iuzzolino et al., NeurIPS 2021, as written in :mod:`baselines.cascade.literal`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.cascade.parallel import Inline, Lanes

if TYPE_CHECKING:
    from baselines.cascade.model import CascadedResNet


@dataclass
class BlockState:
    """What one block remembers from step to step. ``a`` and what was computed of it stand side by side."""

    last_input: Any = None  # in_l(k-1)
    residual_input: Any = None
    residual: Any = None  # F_l(residual_input)
    smoothed: Any = None  # the delay's content under "ews"
    shortcut_input: Any = None
    shortcut: Any = None  # S_l(shortcut_input)
    out_delayed: Any = None
    out: Any = None  # relu(shortcut + out_delayed)


class LazySteps:
    """A run of a cascade: ``advance`` moves one step on, ``logits`` answers, ``keep`` drops samples."""

    def __init__(self, model: CascadedResNet, lanes: Lanes | None = None) -> None:
        self.model = model
        self.lanes: Lanes = Inline() if lanes is None else lanes
        self.blocks = dict(model.numbered())
        self.states = {number: BlockState() for number in self.blocks}
        self.step = -1
        self.kept: Tensor | None = None  # indices of the samples still in the run
        self.stem: Any = None
        self.stem_before: Any = None
        self.stem_smoothed: Any = None

    def advance(self, image: Tensor | None = None) -> list[Any]:
        """Features of the stem and of blocks 1..L at the next step, as tokens; ``image`` is needed where it is new."""
        self.step += 1
        self.lanes.begin()
        self.stem_before = self.stem
        if image is not None:
            kept = image if self.kept is None else image[self.kept]
            self.stem = self.lanes.run(0, self.model.stem, self.lanes.give(kept))
        if self.model.delay == "osd":
            self._residuals()
        features = [self._delayed_stem()]
        for number, state in self.states.items():
            features.append(self._block(number, state, features[-1]))
        return features

    def logits(self, features: Any, k: int) -> Tensor:
        """Answer ``k`` from the last block's features."""
        return self.lanes.take(self.lanes.run(self.model.depth + 1, partial(self.model.head, k=k), features))

    def _delayed_stem(self) -> Any:
        assert self.stem is not None, "the first step needs an image"
        if not self.model.stem_delay:
            return self.stem
        if self.model.delay == "osd":
            return self.lanes.run(0, torch.zeros_like, self.stem) if self.stem_before is None else self.stem_before
        self.stem_smoothed = self._smooth(0, self.stem_smoothed, self.stem)
        return self.stem_smoothed

    def _residuals(self) -> None:
        """Every residual that this step adds and that is not known yet: none waits for another."""
        for number, state in self.states.items():
            source = state.last_input
            if self.step < self.model.start(number) or source is None or source is state.residual_input:
                continue
            work = partial(self.blocks[number].residual, steps=1, first=self.step - 1)
            state.residual, state.residual_input = self.lanes.run(number, work, source), source

    def _block(self, number: int, state: BlockState, x: Any) -> Any:
        block, counts = self.blocks[number], self.step >= self.model.start(number)
        if self.model.delay == "osd":
            state.last_input = x
            delayed = state.residual if counts else None
        else:
            if x is not state.residual_input or state.residual is None:
                work = partial(block.residual, steps=1, first=self.step)
                state.residual, state.residual_input = self.lanes.run(number, work, x), x
            state.smoothed = self._smooth(number, state.smoothed, state.residual)
            delayed = state.smoothed if counts else None
        if state.out is None or x is not state.shortcut_input or delayed is not state.out_delayed:
            identity = isinstance(block.shortcut, nn.Identity)
            if x is not state.shortcut_input:
                state.shortcut = x if identity else self.lanes.run(number, block.shortcut, x)
                state.shortcut_input = x
            if delayed is not None:
                state.out = self.lanes.run(number, self.lanes.add_relu, state.shortcut, delayed)
            else:  # the input of an identity shortcut is a relu's output already
                state.out = x if identity else self.lanes.run(number, F.relu, state.shortcut)
            state.out_delayed = delayed
        return state.out

    def _smooth(self, lane: int, before: Any, new: Any) -> Any:
        """a before + (1 - a) new; nothing before counts as zero."""
        alpha = self.model.alpha
        if before is None:
            return self.lanes.run(lane, lambda x: (1 - alpha) * x, new)
        return self.lanes.run(lane, lambda x, y: alpha * x + (1 - alpha) * y, before, new)

    def keep(self, mask: Tensor) -> None:
        """Go on with the samples where ``mask (B,)`` is true, B being the samples still in the run."""
        index = mask.nonzero().squeeze(1)
        self.kept = index if self.kept is None else self.kept[index]
        seen: dict[int, Any] = {}  # tokens that were one object stay one object

        def select(token: Any) -> Any:
            if token is None:
                return None
            if id(token) not in seen:
                seen[id(token)] = self.lanes.give(self.lanes.take(token)[index])
            return seen[id(token)]

        for owner in (self, *self.states.values()):
            names = ("stem", "stem_before", "stem_smoothed") if owner is self else [f.name for f in fields(BlockState)]
            for name in names:
                setattr(owner, name, select(getattr(owner, name)))
