"""The memory peak of one run-through: bytes held above what the process held before it.

CUDA: the caching allocator's own peak. CPU: the storages of all tensors that operations return, from birth to release;
weights and the input are there before and do not count, nor does scratch memory inside an operation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(run: Callable[[], None], device: torch.device) -> tuple[int, str]:
    """Most bytes held at once while ``run()`` runs, and where the number comes from."""
    if device.type == "cuda":
        run()
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "CUDA caching allocator"
    with _Storages() as storages:
        run()
    return storages.peak, "tensor storages"


class _Storages(TorchDispatchMode):
    """Counts the bytes of live storages that operations under this mode made."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = {_key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and _key(value) not in old | self._known:
                self._add(value.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _key(value: torch.Tensor) -> int:
    return int(value.untyped_storage()._cdata)
