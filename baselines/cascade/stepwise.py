"""The lazy executor of a cascade: one step at a time, leaving alone whatever did not change since the step before.

A tensor that is the same object as at the last step has not changed, so identity (``is``) decides what is computed
again: for a still image, block l settles at step l, and the work of the later steps shrinks accordingly. Nothing is
kept between calls; the state lives in one ``LazySteps`` per run.

Shapes: images ``(B, D, H, W)``, features ``(B, C, H, W)``, keep-masks ``(B,)`` boolean.
Source: the recursion of Iuzzolino et al., NeurIPS 2021, as written in :mod:`baselines.cascade.model`.
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

    last_input: Tensor | None = None  # in_l(k-1)
    residual_input: Tensor | None = None
    residual: Tensor | None = None  # F_l(residual_input)
    ready: Any = None  # the point of the main line after which a lane can read last_input
    pending: Any = None  # the residual of this step, launched and not yet joined
    smoothed: Tensor | None = None  # the delay's content under "ews"
    shortcut_input: Tensor | None = None
    shortcut: Tensor | None = None  # S_l(shortcut_input)
    out_delayed: Tensor | None = None
    out: Tensor | None = None  # relu(shortcut + out_delayed)


class LazySteps:
    """A run of a cascade: ``advance`` moves one step on, ``keep`` drops samples."""

    def __init__(self, model: CascadedResNet, lanes: Lanes | None = None) -> None:
        self.model = model
        self.lanes: Lanes = Inline() if lanes is None else lanes
        self.blocks = dict(model.numbered())
        self.step = -1
        self.kept: Tensor | None = None  # indices of the samples still in the run
        self.stem: Tensor | None = None
        self.stem_before: Tensor | None = None
        self.stem_smoothed: Tensor | None = None
        self.states = [BlockState() for _ in model.blocks]

    def advance(self, image: Tensor | None = None) -> list[Tensor]:
        """Features of the stem and of blocks 1..L at the next step; ``image`` is needed where it is new."""
        self.step += 1
        if image is not None:
            self.stem_before = self.stem
            self.stem = self.model.stem(image if self.kept is None else image[self.kept])
        else:
            self.stem_before = self.stem
        if self.model.delay == "osd":
            self._launch()
        x = self._delayed_stem()
        features = [x]
        for number, state in enumerate(self.states, 1):
            x = self._block(number, state, x)
            features.append(x)
        return features

    def _delayed_stem(self) -> Tensor:
        assert self.stem is not None, "the first step needs an image"
        if not self.model.stem_delay:
            return self.stem
        if self.model.delay == "osd":
            return torch.zeros_like(self.stem) if self.stem_before is None else self.stem_before
        self.stem_smoothed = _smooth(self.stem_smoothed, self.stem, self.model.alpha)
        return self.stem_smoothed

    def _launch(self) -> None:
        """Start every residual that this step adds and that is not known yet: none waits for another."""
        for number, state in enumerate(self.states, 1):
            source = state.last_input
            if self.step < self.model.start(number) or source is None or source is state.residual_input:
                continue
            work = partial(self.blocks[number].residual, steps=1, first=self.step - 1)
            state.pending = self.lanes.launch(number - 1, state.ready, work, source)
            state.residual_input = source

    def _block(self, number: int, state: BlockState, x: Tensor) -> Tensor:
        block, counts = self.blocks[number], self.step >= self.model.start(number)
        if self.model.delay == "osd":
            if x is not state.last_input:
                state.last_input, state.ready = x, self.lanes.mark()
            if state.pending is not None:
                state.residual, state.pending = self.lanes.join(state.pending), None
            delayed = state.residual if counts else None
        else:
            if x is not state.residual_input or state.residual is None:
                state.residual, state.residual_input = block.residual(x, 1, self.step), x
            state.smoothed = _smooth(state.smoothed, state.residual, self.model.alpha)
            delayed = state.smoothed if counts else None
        if state.out is None or x is not state.shortcut_input or delayed is not state.out_delayed:
            if x is not state.shortcut_input:
                state.shortcut, state.shortcut_input = block.shortcut(x), x
            assert state.shortcut is not None
            if delayed is not None:
                state.out = F.relu(state.shortcut + delayed, inplace=True)
            else:  # the input of an identity shortcut is a relu's output already
                state.out = x if isinstance(block.shortcut, nn.Identity) else F.relu(state.shortcut)
            state.out_delayed = delayed
        return state.out

    def keep(self, mask: Tensor) -> None:
        """Go on with the samples where ``mask (B,)`` is true, B being the samples still in the run."""
        index = mask.nonzero().squeeze(1)
        self.kept = index if self.kept is None else self.kept[index]
        seen: dict[int, Tensor] = {}  # tensors that were one object stay one object

        def select(x: Any) -> Any:
            if isinstance(x, Tensor) and id(x) not in seen:
                seen[id(x)] = x[index]
            return seen[id(x)] if isinstance(x, Tensor) else x

        self.stem, self.stem_before = select(self.stem), select(self.stem_before)
        self.stem_smoothed = select(self.stem_smoothed)
        for state in self.states:
            for entry in fields(state):
                setattr(state, entry.name, select(getattr(state, entry.name)))
            if state.last_input is not None:
                state.ready = self.lanes.mark()


def _smooth(before: Tensor | None, new: Tensor, alpha: float) -> Tensor:
    return (1 - alpha) * new if before is None else alpha * before + (1 - alpha) * new
