"""Who else used the machine while we measured: what makes a timing not comparable, in words.

CPU: the time the cores were busy less our own process's CPU time, and the time the hypervisor took away. GPU: other
processes on the device, throttle reasons, and how far the clock moved, read through NVML. Nothing is ever set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import psutil

from anytime_bench.harness.gpu_state import read_gpu
from anytime_bench.harness.readings import cpu_reasons

#: A GPU whose clock moved by more than this share makes a timing not comparable; ``readings`` has the CPU's limits.
CLOCK_LIMIT = 0.05


@dataclass
class DisturbanceWatch:
    """Made before a timing block, finished after it. ``report`` is JSON-able; ``finish`` returns what disturbed."""

    device: Any
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._clocks: list[int] = []
        self._foreign: set[int] = set()
        self._throttle: set[str] = set()
        self._process = psutil.Process()
        self.sample()
        self._begun = perf_counter()
        self._system, self._own = _busy_and_stolen(), self._own_seconds()

    def _own_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def sample(self) -> None:
        """Look at the GPU; cheap enough for once a round, a no-op without one."""
        state = read_gpu(self.device)
        if state is None:
            return
        if state.sm_clock_mhz is not None:
            self._clocks.append(state.sm_clock_mhz)
        self._foreign.update(state.foreign_processes)
        self._throttle.update(state.throttle_reasons)

    def finish(self, queue_share: float | None = None) -> list[str]:
        """Reasons why the block that ends now is not comparable; fills ``report``."""
        seconds = max(perf_counter() - self._begun, 1e-9)
        busy, stolen = (after - before for after, before in zip(_busy_and_stolen(), self._system, strict=True))
        cores = psutil.cpu_count() or 1
        foreign = max(0.0, busy - (self._own_seconds() - self._own)) / seconds
        self.report = {
            "seconds": seconds,
            "cores": cores,
            "foreign_busy_cores": foreign,
            "stolen_cores": stolen / seconds,
            "queue_share": queue_share,
            "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        }
        return cpu_reasons(self.report, cores) + self._gpu_reasons()

    def _gpu_reasons(self) -> list[str]:
        self.sample()
        reasons = []
        if self._foreign:
            listed = ", ".join(str(pid) for pid in sorted(self._foreign))
            reasons.append(f"other processes computed on the same GPU (pid {listed}), which share its cores and memory")
        if self._throttle:
            reasons.append(f"the GPU throttled ({', '.join(sorted(self._throttle))}), which lengthens every kernel")
        if self._clocks:
            low, high = min(self._clocks), max(self._clocks)
            self.report["sm_clock_mhz"] = [low, high]
            # An idle GPU clocks down, so the lowest reading before the first inference says nothing by itself.
            steady = self._clocks[1:-1] or self._clocks
            if max(steady) > (1 + CLOCK_LIMIT) * min(steady):
                reasons.append(f"the GPU clock moved between {min(steady)} and {max(steady)} MHz")
        return reasons


def _busy_and_stolen() -> tuple[float, float]:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    stolen = getattr(times, "steal", 0.0)
    # guest time is part of user time already on Linux.
    busy = sum(times) - idle - stolen - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return busy, stolen
