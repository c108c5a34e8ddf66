"""What NVML says of the GPU that a torch device stands for; read only, None where there is none or NVML is silent.

Whose processes compute there is judged by comparison: the process that appears when this one first touches the device
is this one, whatever number NVML gives it (in a container that of the host, or none at all).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

# Bits of nvmlDeviceGetCurrentClocksEventReasons that lengthen kernels; idle (1) and clock settings (2) do not.
THROTTLE_BITS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


@dataclass(frozen=True)
class GpuState:
    """One reading. Clocks in MHz, power in watts, temperature in degrees Celsius; None where NVML does not say."""

    name: str
    driver: str | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    sm_clock_max_mhz: int | None
    power_watts: float | None
    power_limit_watts: float | None
    temperature_celsius: int | None
    throttle_reasons: tuple[str, ...]
    foreign_processes: tuple[int, ...]
    mig: bool | None

    def to_dict(self) -> dict[str, object]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def read_gpu(device: Any) -> GpuState | None:
    """The state of CUDA ``device``; None on a CPU or where NVML cannot be reached."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
    own = own_processes(device)
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = _handle(pynvml, device)
    except Exception:  # NVML's absence must not stop a measurement
        return None

    def ask(function: str, *arguments: Any) -> Any:
        with suppress(Exception):
            return getattr(pynvml, function)(gpu, *arguments)
        return None

    driver = None
    with suppress(Exception):
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
    bits = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:
        bits = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    power, limit = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetEnforcedPowerLimit")
    # A part of a partitioned GPU answers that it is one; the whole of it, that it is partitioned.
    part, mode = ask("nvmlDeviceIsMigDeviceHandle"), ask("nvmlDeviceGetMigMode")
    return GpuState(
        name=torch.cuda.get_device_name(device),
        driver=driver,
        sm_clock_mhz=ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_MEM),
        sm_clock_max_mhz=ask("nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_SM),
        power_watts=None if power is None else power / 1000,
        power_limit_watts=None if limit is None else limit / 1000,
        temperature_celsius=ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        throttle_reasons=tuple(name for bit, name in THROTTLE_BITS.items() if bits & bit),
        foreign_processes=tuple(sorted(_pids(ask("nvmlDeviceGetComputeRunningProcesses")) - own)),
        mig=True if part else None if mode is None else bool(mode[0]),
    )


def handle_by_uuid(pynvml: Any, device: torch.device) -> Any:
    """NVML's handle of ``device``, a GPU or a part of one (MIG); None where NVML knows no such UUID."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    for candidate in (f"GPU-{uuid}", uuid, f"MIG-{uuid}"):
        with suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByUUID(candidate)
    return None


def _handle(pynvml: Any, device: torch.device) -> Any:
    """By UUID, because NVML counts all GPUs and torch only the visible ones."""
    handle = handle_by_uuid(pynvml, device)
    return pynvml.nvmlDeviceGetHandleByIndex(_index(device)) if handle is None else handle


def _index(device: torch.device) -> int:
    """The number of ``device``; to ask torch for the current one would initialise CUDA."""
    if device.index is not None:
        return device.index
    return torch.cuda.current_device() if torch.cuda.is_initialized() else 0


def _pids(processes: Any) -> frozenset[int]:
    return frozenset(int(process.pid) for process in processes or ())


#: Processes of this run beside this one, by NVML's numbers: those that started it or that it has started.
FAMILY = "ANYTIME_BENCH_GPU_PROCESSES"


def own_processes(device: torch.device) -> frozenset[int]:
    """NVML's numbers of this process and of those that it works with (``FAMILY``) on ``device``; touches the device.

    To be asked before anything else uses the device, so that this process is known as the one that came.
    """
    return _family() | _own_pids(_index(device))


def _family() -> frozenset[int]:
    return frozenset(int(pid) for pid in os.environ.get(FAMILY, "").split(",") if pid)


@cache
def _own_pids(index: int) -> frozenset[int]:
    touched_before = torch.cuda.is_initialized()
    before = _compute_pids(index)
    torch.zeros(1, device=f"cuda:{index}")
    torch.cuda.synchronize(index)
    return own_among(before, _compute_pids(index), os.getpid(), touched_before, _family())


def own_among(
    before: frozenset[int],
    after: frozenset[int],
    pid: int,
    touched_before: bool,
    family: frozenset[int] = frozenset(),
) -> frozenset[int]:
    """Which of the processes on a GPU are this one, which calls itself ``pid``; its ``family`` is not.

    ``before`` and ``after`` are NVML's numbers around the moment when this process first used the device. Where it had
    used it already (``touched_before``) and its own number is not among them, a single process on the device is taken
    to be this one; with more of them there is no telling, and none is.

    >>> own_among(frozenset({7}), frozenset({7, 31}), pid=5, touched_before=False)  # 7 is foreign, 31 is this process
    frozenset({31})
    """
    if pid in after:
        return frozenset({pid})
    new, there = after - before - family, after - family
    if new or not touched_before:
        return new if len(new) == 1 else frozenset()
    return there if len(there) == 1 else frozenset()


def _compute_pids(index: int) -> frozenset[int]:
    with suppress(Exception):  # NVML's absence must not stop a measurement
        import pynvml

        pynvml.nvmlInit()
        return _pids(pynvml.nvmlDeviceGetComputeRunningProcesses(_handle(pynvml, torch.device("cuda", index))))
    return frozenset()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
