"""What a run measured before it was timed: traces and noise, kept in the run's folder between two processes.

A sweep trains and predicts many runs at once, but times each one alone, later. The file is named by everything that
decides its content next to the weights, and holds the SHA-256 of the weights it was made with. Arrays are those of the
record's ``.npz``. Whatever cannot be read, or belongs to other weights, is made again.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anytime_bench.files import npz_bytes, write_atomically
from anytime_bench.records.record import PROTOCOL_VERSION
from anytime_bench.runs.plan import Plan
from anytime_bench.training.checkpoints import run_key, storage_errors

Arrays = dict[str, NDArray[Any]]
WEIGHTS = "weights_sha256"


def prepared_path(plan: Plan) -> Path:
    """Where the arrays of ``plan`` wait for their timing."""
    evaluation = dataclasses.asdict(plan.row.config.evaluation)
    parts = {key: evaluation[key] for key in ("prediction_batch", "noise", "noise_images")}
    name = run_key({"method": plan.row.name, "options": plan.row.options, "protocol": PROTOCOL_VERSION, **parts})
    return plan.folder / f"prepared-{name}.npz"


def write_prepared(plan: Plan, arrays: Arrays, weights_sha256: str) -> None:
    """Keep ``arrays``, made with the weights of this hash. Raises ``UserError`` where the disk is full."""
    with storage_errors(plan.folder):
        write_atomically(prepared_path(plan), npz_bytes({**arrays, WEIGHTS: np.array(weights_sha256)}, quick=True))


def read_prepared(plan: Plan, weights_sha256: str) -> Arrays | None:
    """The arrays kept for these weights, or None where there are none."""
    try:
        with np.load(prepared_path(plan), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return arrays if str(arrays.pop(WEIGHTS, "")) == weights_sha256 else None
