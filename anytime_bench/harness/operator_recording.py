"""Record the operators that a model's ``stream`` runs, and which of them must wait for which.

An operator is one dispatched call of torch (a kernel, or a few that belong together). It waits

- for the last operator that wrote a storage it reads, and
- where it writes a storage itself, for every operator that read or wrote that storage since.

Dependencies go by storage, so operators on disjoint views of one tensor wait for each other. Making a view is free and
no operator, nor is telling the allocator which stream reads a tensor (``record_stream``, a write by its schema). An
operator whose result steers Python (a number, or a shape that depends on data) is a *barrier*: everything issued after
it waits for it. The same holds where Python reads a tensor directly (``tolist``, ``numpy``).

A recording holds numbers and names alone; no tensor outlives the forward pass. Storages are told apart by weak
references, because the allocator hands out one address again and again.

Seen: whatever passes torch's dispatcher in the calling thread. Not seen: work in other threads, in numpy, in compiled
code and in CUDA graphs.

Units: MACs of one call of ``stream`` (half the FLOPs of ``torch.utils.flop_counter``). Errors: ``SpanError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.errors import describe
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.operator_graph import Operator, OperatorGraph, SpanError
from anytime_bench.methods.contract import AnytimeModel

#: Ways in which Python reads a tensor on the CPU without a dispatched operator.
DIRECT_READS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})

#: Tells the allocator which stream reads a tensor: a write by its schema, but no work and nothing to wait for.
ANNOUNCEMENT = torch.ops.aten.record_stream.default


@dataclass(frozen=True)
class Call:
    """One dispatched call: the function, the shape it returned, and its operator's index, None for a view."""

    function: Any
    shape: tuple[int, ...] | None
    operator: int | None


@dataclass(frozen=True)
class Recording:
    """A graph and the calls, views included, from which it was made."""

    graph: OperatorGraph
    calls: tuple[Call, ...]


def operator_graph(model: AnytimeModel, images: Tensor) -> OperatorGraph:
    """The operators of one eval pass of ``model.stream`` over ``images (B, D, H, W)``; see ``record``."""
    return record(model, images).graph


def record(model: AnytimeModel, images: Tensor) -> Recording:
    """The graph of one eval pass of ``model.stream`` over ``images (B, D, H, W)``, with MACs, and its calls.

    The model is left as it was, and so is the random state. Raises ``SpanError`` where the stream raises, ends early,
    goes on after its last exit or yields something else than a tensor.
    """
    answers = []
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(model, counter)
    with evaluating(model), counter, recorder, _DirectReads(recorder):
        for logits in answers_of(model, images):
            answers.append(recorder.behind(logits))
    return Recording(OperatorGraph(tuple(recorder.operators), tuple(answers)), tuple(recorder.calls))


def answers_of(model: AnytimeModel, images: Tensor) -> Iterator[Tensor]:
    """The answers of ``model.stream(images)``, one per exit; ``SpanError`` where the stream breaks its contract."""
    count = 0
    try:
        for logits in model.stream(images):
            if not isinstance(logits, Tensor):
                raise SpanError(f"stream gave exit {count} as {type(logits).__name__}, expected logits (B, C)")
            count += 1
            yield logits
    except SpanError:
        raise
    except Exception as error:
        raise SpanError(f"stream raised after {count} answers: {describe(error)}") from error
    if count != model.num_exits:
        raise SpanError(f"stream gave {count} answers, but num_exits is {model.num_exits}")


class _Recorder(TorchDispatchMode):
    """Notes every operator and what it waits for. ``flops`` is a counter that is active outside of this one."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, flops: FlopCounterMode) -> None:
        super().__init__()
        self.flops = flops
        self.operators: list[Operator] = []
        self.calls: list[Call] = []
        self.barrier: tuple[int, ...] = ()
        self._storages: dict[int, StorageWeakRef] = {}
        self._writer: dict[int, int] = {}
        self._readers: dict[int, list[int]] = {}
        self._modules: dict[int, str] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._modules.setdefault(self._storage(tensor), name.rpartition(".")[0] or name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is ANNOUNCEMENT:
            return func(*args, **kwargs)
        macs_before = self.flops.get_total_flops() // 2
        result = func(*args, **kwargs)
        macs = self.flops.get_total_flops() // 2 - macs_before
        self._note(func, args, kwargs, result, macs)
        return result

    def behind(self, tensor: Tensor) -> tuple[int, ...]:
        """The operators after which ``tensor`` can be read by whoever runs the Python code up to here."""
        writer = self._writer.get(self._storage(tensor))
        return self.barrier if writer is None else tuple(sorted({writer, *self.barrier}))

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any, macs: int) -> None:
        read = {self._storage(tensor): None for tensor in _tensors((args, kwargs))}
        made = {self._storage(tensor): None for tensor in _tensors(result)}
        written = {self._storage(tensor): None for tensor in _written(func, args, kwargs)}
        is_view = bool(made) and not written and made.keys() <= read.keys()
        index = len(self.operators)
        self.calls.append(Call(func, shape_of(result), None if is_view else index))
        if is_view:
            return
        after = set(self.barrier)
        for storage in (*read, *written):
            if storage in self._writer:
                after.add(self._writer[storage])
        for storage in written:
            after.update(self._readers.get(storage, ()))
        barrier = _steers_python(func, args)
        module = next((self._modules[storage] for storage in read if storage in self._modules), "")
        shapes = tuple(tuple(tensor.shape) for tensor in _tensors(result))
        self.operators.append(Operator(_name(func), macs, tuple(sorted(after)), barrier, module, shapes))
        for storage in read:
            self._readers.setdefault(storage, []).append(index)
        for storage in (*written, *(storage for storage in made if storage not in read)):
            self._writer[storage], self._readers[storage] = index, []
        if barrier:
            self.barrier = (index,)

    def _storage(self, tensor: Tensor) -> int:
        """A number for the storage of ``tensor`` that no other storage of this recording has."""
        try:
            storage = tensor.untyped_storage()
        except RuntimeError as error:
            raise SpanError(
                f"stream works on a {tensor.layout} tensor, which has no storage to follow: expected strided tensors"
            ) from error
        key = storage._cdata
        if key not in self._storages:
            # A weak reference frees the data with the tensor, but keeps the storage's own address from being reused.
            self._storages[key] = StorageWeakRef(storage)
        return key


class _DirectReads(TorchFunctionMode):
    """Tells the recorder when Python reads a tensor's values without an operator."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in DIRECT_READS:
            self.recorder.barrier = self.recorder.behind(args[0])
        return result


def shape_of(result: Any) -> tuple[int, ...] | None:
    """The shape of a call's result, None where that is not one tensor."""
    return tuple(result.shape) if isinstance(result, Tensor) else None


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _written(func: Any, args: Any, kwargs: Any) -> Iterable[Tensor]:
    """The tensors that ``func`` writes in place, by its schema."""
    if not hasattr(func, "_schema"):
        return
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[position] if position < len(args) else kwargs.get(argument.name))


def _steers_python(func: Any, args: Any) -> bool:
    """Whether Python learns something from the values that ``func`` reads: a number, or the shape of the result."""
    if not hasattr(func, "_schema"):
        return False
    if torch.Tag.data_dependent_output in func.tags or func is torch.ops.aten.is_nonzero.default:
        return True
    if func is torch.ops.aten.index.Tensor:  # the shape depends on values where a mask selects
        return any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1:]))
    return torch.Tag.dynamic_output_shape in func.tags


def _name(func: Any) -> str:
    name = func.name() if hasattr(func, "_schema") else str(func)
    return name.removeprefix("aten::").partition(".")[0]
