"""What NVML says of the GPU that a torch device stands for; read only, None where there is none or NVML is silent."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
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

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def read_gpu(device: Any) -> GpuState | None:
    """The state of CUDA ``device``; None on a CPU or where NVML cannot be reached."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return None
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
    mig = ask("nvmlDeviceGetMigMode")
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
        foreign_processes=_foreign(ask("nvmlDeviceGetComputeRunningProcesses") or []),
        mig=None if mig is None else bool(mig[0]),
    )


def _handle(pynvml: Any, device: torch.device) -> Any:
    """By UUID, because NVML counts all GPUs and torch only the visible ones."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    for candidate in (f"GPU-{uuid}", uuid, f"MIG-{uuid}"):
        with suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByUUID(candidate)
    return pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device() if device.index is None else device.index)


def _foreign(processes: list[Any]) -> tuple[int, ...]:
    """Other processes on the GPU. In a container NVML may give this process a number of the host's: one is ours."""
    pids = sorted(int(process.pid) for process in processes)
    if os.getpid() in pids:
        return tuple(pid for pid in pids if pid != os.getpid())
    return tuple(pids[1:])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
