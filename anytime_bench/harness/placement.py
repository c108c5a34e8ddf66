"""Where weights lie in memory: worth a percent and more of a small model's time on a CPU, and not the method's doing.

Equal networks in one process differed by 0 to 1.4 % for as long as it lived (four seeds, idle processor); with weights
that moved before every pass, by 0.1 to 0.3 %. So the weights of all that is compared move between rounds, and the
median over rounds is one over places.

Units: bytes. Errors: none; what cannot move stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

#: Gaps between weights are drawn up to two pages, so that no weight has the same offset in its page twice.
GAP = 8192


@torch.inference_mode(False)  # a weight that moved while nothing is learned must still be able to learn
def moved(models: Iterable[nn.Module], rng: np.random.Generator) -> list[Tensor]:
    """Give the weights and buffers of ``models`` new memory; values, strides and identity stay.

    The gaps between them are returned, to be held until the next move. Tensors that share their memory with another
    one, or whose strides a copy would not have, stay where they are.
    """
    tensors = list({id(each): each for model in models for each in (*model.parameters(), *model.buffers())}.values())
    # Meta and sparse tensors have no plain memory to move.
    plain = [each for each in tensors if each.device.type == "cpu" and each.layout == torch.strided and each.numel()]
    sharers = Counter(each.untyped_storage().data_ptr() for each in plain)
    gaps = []
    for index in rng.permutation(len(plain)):
        tensor = plain[index]
        copy = tensor.detach().clone()
        if sharers[tensor.untyped_storage().data_ptr()] == 1 and copy.stride() == tensor.stride():
            gaps.append(torch.empty(int(rng.integers(64, GAP)), dtype=torch.uint8))
            tensor.data = copy
    return gaps
