"""Settings of torch that hold for the whole process: which are in force, and that what a plugin changed is put back and
said."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from anytime_bench.harness.timing_block import TorchSettings

#: How each setting is read and set, by the name under which a change is reported.
SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the precision of float32 products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "whether algorithms are deterministic": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    ),
    "cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    ),
}


def in_force() -> TorchSettings:
    """The settings as they are now."""
    threads, dtype, gradients, products, deterministic, benchmark, cudnn_deterministic = (
        read() for read, _ in SETTINGS.values()
    )
    return TorchSettings(
        threads=threads,
        default_dtype=str(dtype).removeprefix("torch."),
        gradients=gradients,
        float32_products=products,
        deterministic=deterministic,
        cudnn_benchmark=benchmark,
        cudnn_deterministic=cudnn_deterministic,
    )


@contextlib.contextmanager
def restored_settings(who: str) -> Iterator[None]:
    """Afterwards every setting is what it was before; each that ``who`` changed is named on standard error."""
    before = {name: read() for name, (read, _) in SETTINGS.items()}
    try:
        yield
    finally:
        for name, (read, put) in SETTINGS.items():
            if (value := read()) != before[name]:
                put(before[name])
                print(f"note: {who} set {name} to {value}; it is {before[name]} again", file=sys.stderr)
