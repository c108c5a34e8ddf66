"""Settings of torch that hold for the whole process: which are in force, and that what a plugin changed is put back and
said."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from anytime_bench.harness.timing_block import TorchSettings

#: Some of its newer names are made at run time, so a type checker does not know them.
BACKENDS: Any = torch.backends

#: What torch's older names of a precision read where it was set by a newer name alone; torch raises there.
MIXED = "mixed"


def _older(read: Callable[[], Any]) -> Callable[[], Any]:
    def value() -> Any:
        try:
            return read()
        except RuntimeError:
            return MIXED

    return value


def _attribute(place: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return partial(getattr, place, name), partial(setattr, place, name)


#: How float32 is multiplied. Older names set several of the newer, so they come first; a newer one says what holds.
OLDER: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the precision of float32 products": (
        _older(torch.get_float32_matmul_precision),
        torch.set_float32_matmul_precision,
    ),
    "cudnn.allow_tf32": (
        _older(lambda: BACKENDS.cudnn.allow_tf32),
        partial(setattr, BACKENDS.cudnn, "allow_tf32"),
    ),
}
NEWER: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "fp32_precision": _attribute(BACKENDS, "fp32_precision"),
    "cuda.matmul.fp32_precision": _attribute(BACKENDS.cuda.matmul, "fp32_precision"),
    "cudnn.conv.fp32_precision": _attribute(BACKENDS.cudnn.conv, "fp32_precision"),
    "cudnn.rnn.fp32_precision": _attribute(BACKENDS.cudnn.rnn, "fp32_precision"),
    "mkldnn.matmul.fp32_precision": _attribute(BACKENDS.mkldnn.matmul, "fp32_precision"),
    "mkldnn.conv.fp32_precision": _attribute(BACKENDS.mkldnn.conv, "fp32_precision"),
}

#: How each setting is read and set, by the name under which a change is reported.
SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
    "whether algorithms are deterministic": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "cudnn.benchmark": _attribute(BACKENDS.cudnn, "benchmark"),
    "cudnn.deterministic": _attribute(BACKENDS.cudnn, "deterministic"),
    **OLDER,
    **NEWER,
}


def in_force() -> TorchSettings:
    """The settings as they are now."""
    now = {name: read() for name, (read, _) in SETTINGS.items()}
    return TorchSettings(
        threads=now["the number of threads"],
        default_dtype=str(now["the default dtype"]).removeprefix("torch."),
        gradients=now["whether gradients are recorded"],
        float32_products=now["the precision of float32 products"],
        deterministic=now["whether algorithms are deterministic"],
        cudnn_benchmark=now["cudnn.benchmark"],
        cudnn_deterministic=now["cudnn.deterministic"],
    )


def tf32_convolutions() -> bool:
    """Whether a GPU's float32 convolutions are computed in TF32, torch's default."""
    return bool(BACKENDS.cudnn.conv.fp32_precision == "tf32")


def tf32_products() -> bool:
    """Whether a GPU's float32 matrix products are computed in TF32."""
    return bool(BACKENDS.cuda.matmul.fp32_precision == "tf32")


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Inside, a GPU's float32 convolutions and products use TF32 or do not; all else of cuDNN stays."""
    before = _values((*OLDER, *NEWER))
    BACKENDS.cuda.matmul.allow_tf32 = allowed
    BACKENDS.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        _put_back(before)


@contextlib.contextmanager
def restored_settings(who: str) -> Iterator[None]:
    """Afterwards every setting is what it was before; each that ``who`` changed is named on standard error."""
    before = _values(SETTINGS)
    try:
        yield
    finally:
        for name, value in _put_back(before).items():
            print(f"note: {who} set {name} to {value}; it is {before[name]} again", file=sys.stderr)


def _values(names: Iterable[str]) -> Mapping[str, Any]:
    return {name: SETTINGS[name][0]() for name in names}


def _put_back(before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Set what differs from ``before``; returns what it was, by name. An older name is set before the newer ones."""
    changed = {name: value for name, value in _values(before).items() if value != before[name]}
    for name in changed:
        if before[name] != MIXED:
            SETTINGS[name][1](before[name])
    if changed.keys() & OLDER.keys():
        for name, (_, put) in NEWER.items():
            put(before[name])
    return changed
