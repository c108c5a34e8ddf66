"""Joules per answer where a counter can be read, never guessed: RAPL (Linux's powercap) for a CPU, NVML for a GPU.

A counter is of the whole package or board, whoever uses it, so an answer's joules hold the machine's idle power for as
long as it takes, and that of neighbours: on a machine that is not idle they say nothing. Where no counter can be read,
``energy_counter`` gives the reason.

Units: joules, seconds. Sources: Linux, Documentation/power/powercap/powercap.rst; NVML API,
nvmlDeviceGetTotalEnergyConsumption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from anytime_bench.harness.gpu_state import handle_by_uuid

POWERCAP = Path("/sys/class/powercap")
#: RAPL counts every millisecond or so; over this many seconds its step is below a percent.
LEAST_SECONDS = 0.3


@dataclass
class Counter:
    """A counter of joules: ``name`` says of what, ``read`` gives joules so far from each of its parts.

    A part falls back to 0 at its ``range``, in joules (None: never).
    """

    name: str
    read: Callable[[], list[float]]
    ranges: list[float | None]
    _last: list[float] = field(default_factory=list)

    def restart(self) -> None:
        """Count from now on."""
        self._last = self.read()

    def joules(self) -> float:
        """Joules since the last call or ``restart``; a counter that wrapped once in between is put right."""
        now = self.read()
        parts = zip(now, self._last or now, self.ranges, strict=True)
        spent = sum(after - before if after >= before or not top else after + top - before
                    for after, before, top in parts)  # fmt: skip
        self._last = now
        return spent


@dataclass(frozen=True)
class NoCounter:
    """Why joules cannot be read here."""

    reason: str


def energy_counter(device: torch.device | str, powercap: Path = POWERCAP) -> Counter | NoCounter:
    """The counter of what ``device`` takes, or why there is none."""
    device = torch.device(device)
    return _nvml(device) if device.type == "cuda" else _rapl(powercap)


def joules_per_answer(run: Callable[[], Any], counter: Counter, seconds: float = LEAST_SECONDS) -> float:
    """Mean joules of one call of ``run``, which must wait for its device, over at least ``seconds``."""
    run()
    calls, begun = 0, perf_counter()
    counter.restart()
    while calls == 0 or perf_counter() - begun < seconds:
        run()
        calls += 1
    return counter.joules() / calls


def _rapl(powercap: Path) -> Counter | NoCounter:
    """The packages' zones; those below a package (cores, memory controller) are part of it."""
    if not powercap.is_dir():
        return NoCounter(f"there is no {powercap}: this kernel or container shows no energy counter")
    zones = sorted(zone for zone in powercap.glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [zone for zone in zones if _text(zone / "name").startswith("package")]
    if not packages:
        return NoCounter(f"{powercap} holds no RAPL package, which some processors and all virtual machines lack")
    try:
        for zone in packages:
            int((zone / "energy_uj").read_text())
        ranges: list[float | None] = [int((zone / "max_energy_range_uj").read_text()) * 1e-6 for zone in packages]
    except PermissionError:
        return NoCounter(f"{packages[0] / 'energy_uj'} may be read by root alone")
    except (OSError, ValueError) as error:
        return NoCounter(f"{packages[0] / 'energy_uj'} cannot be read: {error}")
    names = ", ".join(_text(zone / "name") for zone in packages)
    return Counter(f"RAPL {names}", lambda: [int((zone / "energy_uj").read_text()) * 1e-6 for zone in packages], ranges)


def _nvml(device: torch.device) -> Counter | NoCounter:
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = handle_by_uuid(pynvml, device)
        if gpu is None:
            raise LookupError("it knows no device of this UUID")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except Exception as error:  # whatever NVML or torch says, there is no counter
        return NoCounter(f"NVML does not count the energy of {device}: {error}")
    return Counter("NVML", lambda: [pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) * 1e-3], [None])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
