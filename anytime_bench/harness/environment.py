"""The machine and the software a run took place on, and what of it harms a measurement.

``capture`` reads, ``findings`` judges: each finding says what is the case and what that does to a measurement. Nothing
is ever changed. torch must import; torchvision need not: the CPU build of one beside the CUDA build of the other does
not import, and saying so is half the purpose.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from anytime_bench.harness.cores import cores_at_hand
from anytime_bench.harness.gpu_state import read_gpu
from anytime_bench.harness.torch_settings import tf32_convolutions, tf32_products

LIBRARIES = (
    "anytime_bench",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "nvidia-ml-py",
    "psutil",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "KMP_AFFINITY", "CUDA_VISIBLE_DEVICES")

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing noticed: how bad, what it is, and what it does to a measurement."""

    level: Level
    what: str
    effect: str


def capture(device: torch.device | str = "cpu", *, import_torchvision: bool = False) -> dict[str, Any]:
    """Everything about this machine that a reader of a time needs, JSON-able. Takes well under a second.

    ``device_class`` is the name under which results are kept apart: ``cpu``, or a slug of the GPU's name. With
    ``import_torchvision`` (a second or more) it is also tried whether torchvision imports beside torch; without, its
    version alone is read.
    """
    device = torch.device(device)
    gpu = read_gpu(device)
    name = _cpu_model()
    if device.type == "cuda" and torch.cuda.is_available():
        name = torch.cuda.get_device_name(device)
    return {
        "device": str(device),
        "device_name": name,
        "device_class": slug(name) if device.type == "cuda" else device.type,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {library: _version(library) for library in LIBRARIES},
        "builds": _builds(import_torchvision or "torchvision" in sys.modules),
        "cpu": {
            "model": _cpu_model(),
            "cores": psutil.cpu_count(logical=False),
            "logical_cores": psutil.cpu_count(),
            "usable_cores": cores_at_hand(),
            "mhz": _cpu_mhz(),
            "governor": _governor(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "busy_share": _busy_share(),
        },
        "memory_bytes": psutil.virtual_memory().total,
        "threads": {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()},
        "variables": {key: os.environ[key] for key in THREAD_VARIABLES if key in os.environ},
        "cuda": _cuda(),
        "gpu": None if gpu is None else gpu.to_dict(),
    }


def findings(environment: Mapping[str, Any]) -> list[Finding]:
    """What in ``environment`` (from ``capture``) helps or harms a measurement, worst first."""
    judged = [*_library_findings(environment), *_cpu_findings(environment), *_gpu_findings(environment)]
    order = {"error": 0, "warn": 1, "ok": 2}
    return sorted(judged, key=lambda finding: order[finding.level])


def slug(name: str) -> str:
    """``NVIDIA H100 80GB HBM3`` -> ``nvidia-h100-80gb-hbm3``: usable as a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def _library_findings(environment: Mapping[str, Any]) -> list[Finding]:
    builds = environment["builds"]
    versions = f"torch {builds['torch']} and torchvision {builds['torchvision']}"
    if builds["torchvision_error"] is not None:
        return [
            Finding(
                "error",
                f"torchvision does not import beside torch ({versions}): {builds['torchvision_error']}",
                "official data sets and timm models cannot be loaded; install both from one index",
            )
        ]
    if builds["one_index"] is False:
        return [
            Finding(
                "error",
                f"{versions} come from different indexes",
                "their compiled operators do not match and may fail or differ; install both from one index",
            )
        ]
    return [Finding("ok", versions, "one index, so their compiled operators match")]


def _cpu_findings(environment: Mapping[str, Any]) -> list[Finding]:
    cpu, results = environment["cpu"], []
    usable = cpu["usable_cores"] or 1
    if cpu["busy_share"] is not None and cpu["busy_share"] > 0.10:
        results.append(
            Finding(
                "warn",
                f"the cores are {cpu['busy_share']:.0%} busy before anything is measured",
                "CPU times lengthen and scatter, GPU latencies gain launch delays; timings will not be comparable",
            )
        )
    else:
        results.append(Finding("ok", "the cores are idle", "times are this process's own"))
    threads = environment["threads"]["intra_op"]
    if threads > usable:
        results.append(
            Finding(
                "warn",
                f"{threads} threads on {usable} usable cores",
                "threads wait for each other's cores at every barrier, which multiplies CPU times; use --threads",
            )
        )
    if cpu["governor"] not in (None, "performance"):
        results.append(
            Finding("warn", f"CPU governor is {cpu['governor']}", "short inferences run before the clock has gone up")
        )
    return results


def _gpu_findings(environment: Mapping[str, Any]) -> list[Finding]:
    gpu, cuda = environment["gpu"], environment["cuda"]
    if not str(environment["device"]).startswith("cuda"):
        unused = (
            f"{cuda['devices']} CUDA device(s) are here but not used" if cuda["devices"] else "no CUDA device is used"
        )
        return [Finding("ok", unused, "times are CPU times and never ranked against GPU times")]
    if not cuda["devices"]:
        built = "a CUDA build that finds no device" if cuda["built_for"] else "a CPU build"
        return [
            Finding("error", f"{environment['device']} was asked for, but torch is {built}", "nothing can be measured")
        ]
    if gpu is None:
        return [Finding("warn", "NVML does not answer", "throttling and foreign processes would go unseen")]
    results = []
    if gpu["foreign_processes"]:
        pids = ", ".join(map(str, gpu["foreign_processes"]))
        results.append(
            Finding("warn", f"other processes compute on the GPU (pid {pids})", "times will not be comparable")
        )
    if gpu["throttle_reasons"]:
        listed = ", ".join(gpu["throttle_reasons"])
        results.append(
            Finding("warn", f"the GPU throttles ({listed})", "every kernel takes longer than on a cool device")
        )
    if gpu["mig"]:
        results.append(
            Finding("warn", "the GPU is partitioned (MIG)", "times are of a part of it, and the name hides that")
        )
    if not results:
        results.append(Finding("ok", f"{gpu['name']}, driver {gpu['driver']}, nobody else on it", "times are its own"))
    return results


def _builds(import_torchvision: bool) -> dict[str, Any]:
    """Build tags of torch and torchvision (the part behind the plus: cpu, cu128, ...) and whether they agree.

    Where wheels carry no tag, only an import can tell.
    """
    error, version, cuda = None, _version("torchvision"), None
    if import_torchvision:
        try:
            version = str(import_module("torchvision").__version__)
            import_module("torchvision.ops")
            cuda = getattr(import_module("torchvision.version"), "cuda", None)
        except Exception as problem:  # a mismatched build raises RuntimeError, OSError or ImportError
            first = (str(problem).splitlines() or [""])[0]
            error = f"{type(problem).__name__}: {first}"
    mine, theirs = _tag(torch.__version__), _tag(version)
    one_index: bool | None = None
    if error is not None:
        one_index = False if mine and theirs and mine != theirs else None
    elif mine and theirs:
        one_index = mine == theirs
    elif import_torchvision:
        # Wheels of some indexes carry no tag; then the CUDA version both were built for must do.
        one_index = _major(cuda) == _major(torch.version.cuda)
    return {
        "torch": torch.__version__,
        "torchvision": version,
        "torch_cuda": torch.version.cuda,
        "torchvision_cuda": cuda,
        "torchvision_error": error,
        "one_index": one_index,
    }


def _tag(version: str | None) -> str:
    return (version or "").partition("+")[2]


def _major(version: str | int | None) -> int | None:
    """13 of torch's ``13.2`` and of torchvision's 13020."""
    if version is None:
        return None
    return version // 1000 if isinstance(version, int) else int(version.split(".")[0])


def _cuda() -> dict[str, Any]:
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "built_for": torch.version.cuda,
        "devices": devices,
        "cudnn": torch.backends.cudnn.version() if devices else None,
        "tf32_matmul": tf32_products(),
        "tf32_convolution": tf32_convolutions(),
    }


def _version(library: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(library)
    return None


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpu_mhz() -> float | None:
    with suppress(Exception):  # not every platform has it
        return float(psutil.cpu_freq().current)
    return None


def _governor() -> str | None:
    with suppress(OSError):
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    return None


def _busy_share() -> float | None:
    """Share of all cores that others keep busy over a fifth of a second in which this process sleeps."""
    with suppress(Exception):
        return float(psutil.cpu_percent(interval=0.2)) / 100
    return None
