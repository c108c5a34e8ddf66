"""Weights and checkpoints on disk: safetensors with the loss history in the header, hashes beside them.

Files are written whole or not at all, and reading one never runs code from it. ``UserError`` says what is wrong with
a file and what to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from anytime_bench.errors import UserError
from anytime_bench.files import file_sha256, write_atomically


@dataclass
class TrainingReport:
    """What a finished training leaves for the record. ``seconds`` counts all sessions of a resumed run."""

    weights_sha256: str
    epochs: int
    seconds: float
    losses: list[float] = field(default_factory=list)


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one clear line. Files are written whole or not at all either way."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to '{folder}': {error.strerror or error}. Free some space or choose another --out; "
            "the last complete checkpoint is kept."
        ) from error


def write_tensors(path: Path, tensors: dict[str, Tensor], *, seconds: float, losses: list[float]) -> None:
    """Atomically write tensors with the training history in the header. Equal tensors and losses give equal files.

    Seconds would make two equal runs differ, so they go into a small file beside the weights.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, metadata={"losses": json.dumps(losses)}))
    write_atomically(path.with_suffix(".seconds"), f"{seconds:.3f}\n".encode())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], float, list[float]]:
    """Tensors, seconds and losses that ``write_tensors`` stored. Never runs code from the file."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    seconds = path.with_suffix(".seconds")
    return tensors, float(seconds.read_text()) if seconds.exists() else 0.0, json.loads(metadata.get("losses", "[]"))


def load_weights(folder: Path) -> tuple[dict[str, Tensor], TrainingReport] | None:
    """The finished weights in ``folder`` with their report, or None where training has not finished.

    A truncated file counts as not finished. A readable one without the hash it was written with was altered, and
    raises ``UserError``.
    """
    path = folder / "weights.safetensors"
    if not path.exists():
        return None
    try:
        tensors, seconds, losses = read_tensors(path)
    except SafetensorError:
        return None
    hashed, written = file_sha256(path), path.with_suffix(".sha256")
    if written.exists() and written.read_text().strip() not in ("", hashed):
        raise UserError(
            f"weights '{path}' were altered: they do not have the SHA-256 they were written with. "
            "Remove the file to train again."
        )
    return tensors, TrainingReport(hashed, len(losses), seconds, losses)


def verify_weights(path: Path, sha256: str, owner: str) -> None:
    """Refuse weights that are not those ``owner`` was made with, before anything is read from them.

    Raises ``UserError`` for a missing file or another SHA-256.
    """
    if not path.is_file():
        raise UserError(f"weights '{path}' of {owner} do not exist; train again with run.")
    if file_sha256(path) != sha256:
        raise UserError(
            f"weights '{path}' are refused: they do not have the SHA-256 that {owner} names. "
            "They were altered or belong to another training; train again with run."
        )


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for i, parameter in enumerate(parameters):
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{i}"] = momentum
    return tensors


def restore(
    state: tuple[dict[str, Tensor], float, list[float]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
) -> tuple[float, list[float]]:
    tensors, seconds, losses = state
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for i, parameter in enumerate(parameters):
        if f"momentum.{i}" in tensors:
            # In the parameter's own memory layout: vectorised updates of another layout may round differently.
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{i}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return seconds, losses


def run_key(parts: dict[str, object]) -> str:
    """Sixteen hex digits that name a run's folder: equal for equal method, options, recipe, data and seed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
