"""The cascade written out step by step, as its equations stand: read this first.

A ResNet of blocks l = 1..L, residual branch F_l and shortcut S_l, runs for the steps k = 0..L. Every block works at
every step on what the block before it has *by then*; a delay line holds its residual back for a step::

    in_1(k)   = stem(image at step k)
    out_l(k)  = relu(S_l(in_l(k)) + m_l(k) d_l(k))          in_{l+1}(k) = out_l(k)
    d_l(k)    = F_l(in_l(k-1)),  d_l(0) = 0                 one-step delay ("osd")
    d_l(k)    = a d_l(k-1) + (1-a) F_l(in_l(k)),  d_l(-1)=0 exponential smoothing ("ews")
    m_l(k)    = 1 in parallel; [k >= l] in the serial schedule
    logits(k) = head(mean over the map of out_L(k))         exit k, so E = L + 1 exits

Shortcuts are never delayed, so a first answer arrives at once and at k = L the cascade equals the plain ResNet. Batch
norm has statistics of its own per step. Nothing is reused here: the fast executors are judged by this one.
Source: Iuzzolino, Mozer, Bengio, NeurIPS 2021 (arXiv 2102.09808).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.cascade.model import CascadedResNet
from baselines.cascade.norm import TemporalNorm


class LiteralCascade(nn.Module):
    """Shares the parameters of a :class:`CascadedResNet`; its statistics have one row per step, ``(E, C)`` per norm."""

    def __init__(self, model: CascadedResNet) -> None:
        super().__init__()
        self.model = model
        self.means, self.variances = {}, {}
        for module in model.modules():
            if isinstance(module, TemporalNorm):
                row = torch.arange(model.num_exits).clamp(max=module.rows - 1)
                self.means[module], self.variances[module] = module.running_mean[row], module.running_var[row]

    def norm(self, module: TemporalNorm, x: Tensor, k: int) -> Tensor:
        mean, variance = self.means[module][k], self.variances[module][k]
        return F.batch_norm(x, mean, variance, module.weight, module.bias, self.training, 0.1, 1e-5)

    def residual(self, block: Any, x: Tensor, k: int) -> Tensor:
        x = self.norm(block.norm1, block.conv1(x), k)
        x = self.norm(block.norm2, block.conv2(F.relu(x)), k)
        if hasattr(block, "conv3"):
            x = self.norm(block.norm3, block.conv3(F.relu(x)), k)
        return x

    def delayed(self, name: object, new: Tensor, memory: dict[object, Tensor]) -> Tensor:
        """What the delay line ``name`` emits while ``new`` enters it."""
        if self.model.delay == "osd":
            out = memory.get(name, torch.zeros_like(new))
            memory[name] = new
            return out
        memory[name] = self.model.alpha * memory.get(name, torch.zeros_like(new)) + (1 - self.model.alpha) * new
        return memory[name]

    def forward(self, frames: Tensor) -> Tensor:
        """Logits ``(E, B, C)`` for ``frames (E, B, D, H, W)``, or for one still image ``(B, D, H, W)``."""
        model: Any = self.model
        logits = []
        memory: dict[object, Tensor] = {}
        for k in range(model.num_exits):
            image = frames if frames.ndim == 4 else frames[k]
            x = model.stem.pool(F.relu(self.norm(model.stem.norm, model.stem.conv(image), k)))
            if model.stem_delay:
                x = self.delayed("stem", x, memory)
            for number, block in enumerate(model.blocks, 1):
                delayed = self.delayed(block, self.residual(block, x, k), memory)
                mask = 1.0 if model.schedule == "parallel" or k >= number else 0.0
                x = F.relu(block.shortcut(x) + mask * delayed)
            head = model.heads[k] if len(model.heads) > 1 else model.heads[0]
            logits.append(head(x.mean((2, 3))))
        return torch.stack(logits)
