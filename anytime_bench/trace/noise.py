"""Noise evaluations as arrays: one bit per (answer, image), packed for the ``.npz`` and unpacked into runs.

A *run* is one policy on one kind and severity in one mode (``clean``, ``persistent``, ``transient_<period>``,
``burst_<start>_<stop>``); its answers are in order of time.

======================== ========= ================================================================
array                    shape     content
======================== ========= ================================================================
noise_correct            (R, N/8)  correctness of answer r, packed by ``np.packbits`` along images
noise_run                (R,)      run of answer r
noise_<axis>             (R,)      cumulative cost of answer r on each axis that policies are charged on: ticks, MACs
noise_kind, _mode, ...   (U,)      kind, mode and policy of run u (text), ``noise_severity`` (0: none)
noise_images             ()        N
noise_classes            ()        C
======================== ========= ================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.trace.answers import TraceError
from anytime_bench.trace.axes import AXES

#: The arrays that every evaluation has; its costs are ``noise_<axis>``.
NAMES = tuple(f"noise_{name}" for name in ("correct", "run", "severity", "images", "classes", "kind", "mode", "policy"))
COSTS = tuple(f"noise_{axis}" for axis in AXES)

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseRun:
    """One policy on one kind, severity and mode: correctness ``(A, N)`` of its answers and their costs ``(A,)``."""

    kind: str
    severity: int
    mode: str
    policy: str
    correct: NDArray[np.bool_]
    costs: Mapping[str, Floats]

    @property
    def final(self) -> NDArray[np.bool_]:
        """Correctness of the last answer, ``(N,)``."""
        last: NDArray[np.bool_] = self.correct[-1]
        return last

    def at(self, axis: str, budget: float, chance: float) -> Floats:
        """Expected correctness per image ``(N,)`` of the answer owned at ``budget``; chance before the first."""
        owned = int(np.searchsorted(self.costs[axis], budget, side="right")) - 1
        if owned < 0:
            return np.full(self.correct.shape[1], chance)
        return self.correct[owned].astype(np.float64)


def pack(runs: Sequence[NoiseRun], num_classes: int) -> dict[str, Array]:
    """Runs as arrays for ``np.savez``."""
    lengths = [len(run.correct) for run in runs]
    arrays: dict[str, Array] = {
        "noise_correct": np.concatenate([np.packbits(run.correct, axis=1) for run in runs]),
        "noise_run": np.repeat(np.arange(len(runs), dtype=np.int32), lengths),
        "noise_severity": np.array([run.severity for run in runs], dtype=np.uint8),
        "noise_images": np.array(runs[0].correct.shape[1]),
        "noise_classes": np.array(num_classes),
    }
    for name in ("kind", "mode", "policy"):
        arrays[f"noise_{name}"] = np.array([getattr(run, name) for run in runs])
    for axis in runs[0].costs:
        arrays[f"noise_{axis}"] = np.concatenate([run.costs[axis] for run in runs])
    return arrays


def unpack(arrays: Mapping[str, Array]) -> list[NoiseRun]:
    """Runs from what ``pack`` wrote; ``TraceError`` names an array that is missing or out of shape."""
    missing = [name for name in (*NAMES, "noise_ticks") if name not in arrays]
    if missing:
        raise TraceError(f"{missing[0]}: missing from the stored noise evaluation")
    count, answers = int(arrays["noise_images"]), np.asarray(arrays["noise_run"])
    packed = np.asarray(arrays["noise_correct"])
    if packed.shape != (len(answers), (count + 7) // 8):
        raise TraceError(f"noise_correct: expected shape ({len(answers)}, {(count + 7) // 8}), got {packed.shape}")
    correct = np.unpackbits(packed, axis=1, count=count).astype(np.bool_)
    # Files of protocol 1 also hold measured axes that were never measured, all NaN.
    stored = {axis: np.asarray(arrays[f"noise_{axis}"], dtype=np.float64) for axis in AXES if f"noise_{axis}" in arrays}
    costs = {axis: values for axis, values in stored.items() if not np.isnan(values).any()}
    for axis, values in costs.items():
        if values.shape != answers.shape:
            raise TraceError(f"noise_{axis}: expected shape {answers.shape}, got {values.shape}")
    runs = []
    for number, kind in enumerate(arrays["noise_kind"]):
        rows = np.flatnonzero(answers == number)
        if len(rows) == 0:
            raise TraceError(f"noise_run: run {number} has no answers")
        runs.append(
            NoiseRun(
                str(kind),
                int(arrays["noise_severity"][number]),
                str(arrays["noise_mode"][number]),
                str(arrays["noise_policy"][number]),
                correct[rows],
                {axis: values[rows] for axis, values in costs.items()},
            )
        )
    return runs
