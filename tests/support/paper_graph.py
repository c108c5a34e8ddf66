"""A CUDA graph of paper: a capture records its operators and undoes what they did; a replay runs them on its memory.

What a real capture refuses raises here too: reading a value in Python, or shapes that depend on one. Random numbers are
not rewound, so a step that draws some is not for this graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operators through which Python learns a value.
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Recorder(TorchDispatchMode):
    """The calls of a capture, and what every storage that they write held before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._save(named.get(argument.name))
        if "native_batch_norm" in func._schema.name and "backward" not in func._schema.name:
            self._save(args[3:5])  # writes its statistics without saying so
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result

    def _save(self, written: Any) -> None:
        for tensor in tree_leaves(written):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.before.setdefault(storage._cdata, (storage, storage.clone()))


class Graph:
    """``replays`` counts those of all graphs."""

    replays = 0
    calls: list[tuple[Any, Any, Any, Any]]

    def replay(self) -> None:
        Graph.replays += 1
        with torch.no_grad():
            for func, args, kwargs, result in self.calls:
                for old, new in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                        old.copy_(new)


class Stream:
    def __init__(self, device: Any = None) -> None:
        pass

    def wait_stream(self, other: Stream) -> None:
        pass


@contextmanager
def graph(target: Graph, pool: Any = None, stream: Any = None) -> Iterator[None]:
    recorder = Recorder()
    try:
        with recorder:
            yield
    finally:
        for storage, saved in recorder.before.values():
            storage.copy_(saved)  # a capture runs nothing
    target.calls = recorder.calls


def one_hot(targets: Tensor, classes: int) -> Tensor:
    """As torch's, which looks at the labels on a CPU alone."""
    return (targets[..., None] == torch.arange(classes)).long()


def paper_graph(monkeypatch: Any) -> type[Graph]:
    """Graphs of paper in the place of ``torch.cuda``'s, none of them replayed yet."""
    current = Stream()
    fakes: dict[str, Any] = {
        "CUDAGraph": Graph, "graph": graph, "Stream": Stream, "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: current, "set_stream": lambda stream: None,
        "synchronize": lambda device=None: None,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(F, "one_hot", one_hot)
    monkeypatch.setattr(Graph, "replays", 0)
    return Graph
