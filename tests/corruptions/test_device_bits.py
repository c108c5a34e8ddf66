"""What must hold on a CPU for a GPU to draw the same bits: whose divisions are exact, and where pixels lie."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anytime_bench.corruptions import conditions, corrupt, named
from anytime_bench.corruptions.apply import snap
from anytime_bench.corruptions.draws import Draws
from anytime_bench.corruptions.paper import perlin_noise


class Divisors(TorchDispatchMode):
    """The numbers by which tensors of floats are divided."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: set[float] = set()
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::div", "aten::div_") and args[0].is_floating_point() and args[0].ndim:
            divisor = args[1]
            if not isinstance(divisor, Tensor) or divisor.ndim == 0:
                self.numbers.add(float(divisor))
                self.devices.add(args[0].device.type)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "severity"), conditions(named("all"), [5]))
def test_no_kind_divides_by_a_number_whose_reciprocal_is_rounded(kind: str, severity: int | None) -> None:
    """A GPU divides by a number as it multiplies by its reciprocal: the same for powers of two alone."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with Divisors() as seen:
        corrupt(images, kind, severity=severity, seed=5, indices=range(2), mean=[0.5] * 3, std=[0.2] * 3)
    assert all(math.frexp(number)[0] == 0.5 for number in seen.numbers), seen.numbers


def test_the_watch_sees_a_division() -> None:
    with Divisors() as seen:
        torch.ones(3) / 28
    assert seen.numbers == {28.0}


@pytest.mark.parametrize("size", [28, 32])
def test_perlin_noise_divides_by_the_size_on_the_cpu_wherever_it_is_drawn(size: int) -> None:
    there = torch.device("meta")
    draws = Draws(0, "perlin", torch.arange(2, device=there), torch.zeros(2, dtype=torch.int64, device=there))
    with Divisors() as seen:
        noise = perlin_noise(draws, size, size)
    assert noise.device == there
    assert seen.numbers == {float(size)}
    assert seen.devices == {"cpu"}


def test_all_256_values_of_a_pixel_are_multiples_of_the_reciprocal() -> None:
    values = torch.arange(256, dtype=torch.float32)
    assert torch.equal(snap(values / 255), values * (1 / 255))
