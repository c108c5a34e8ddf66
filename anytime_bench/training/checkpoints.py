"""Weights and checkpoints on disk: safetensors with the loss history and a hash of the content in the header.

Files are written whole or not at all, and reading one never runs code from it. ``UserError`` says what is wrong with
a file and what to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from anytime_bench.errors import UserError, make_room
from anytime_bench.files import file_sha256, write_all


@dataclass
class TrainingReport:
    """What a finished training leaves for the record. ``seconds`` counts all sessions of a resumed run; ``precision``
    is the forward pass's, "fp32" or "bf16", and empty for weights that do not say it."""

    weights_sha256: str
    epochs: int
    seconds: float
    losses: list[float] = field(default_factory=list)
    precision: str = ""


class Stored(NamedTuple):
    """What ``write_tensors`` wrote."""

    tensors: dict[str, Tensor]
    seconds: float
    losses: list[float]
    precision: str


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one clear line. Files are written whole or not at all either way."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to '{folder}': {error.strerror or error}. {make_room(error)} or choose another --out; "
            "the last complete checkpoint is kept."
        ) from error


def write_tensors(
    path: Path, tensors: dict[str, Tensor], *, seconds: float, losses: list[float], precision: str = ""
) -> None:
    """Atomically write tensors with the training history in the header. Equal tensors and losses give equal files.

    The header carries a hash of both. Seconds would make two equal runs differ, so they go into a file beside it.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    history = json.dumps(losses)
    # One entry: safetensors writes several in any order, and equal files would not have equal bytes.
    header = json.dumps({"losses": history, "sha256": _content_hash(plain, history), "precision": precision})
    # The tensors last: where they lie, all is written, and no later run would look for what a kill left half-done.
    beside = {path.with_suffix(".seconds"): f"{seconds:.3f}\n".encode()}
    write_all({**beside, path: save(plain, metadata={"training": header})})


def read_tensors(path: Path) -> Stored:
    """What ``write_tensors`` stored. Never runs code from the file.

    Raises ValueError where the content does not have the hash it was written with.
    """
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {}).get("training", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    history = header.get("losses", "[]")
    if header.get("sha256") != _content_hash(tensors, history):
        raise ValueError("its content does not have the hash it was written with")
    losses = json.loads(history)
    if not (isinstance(losses, list) and all(isinstance(loss, float) for loss in losses)):
        raise ValueError("its history of losses is not a list of numbers")
    return Stored(tensors, _seconds(path.with_suffix(".seconds")), losses, str(header.get("precision", "")))


def _seconds(path: Path) -> float:
    """Wall time of earlier sessions; 0 where the file is missing or does not hold a number."""
    try:
        seconds = float(path.read_text())
    except (OSError, ValueError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds >= 0 else 0.0


def _content_hash(tensors: Mapping[str, Tensor], history: str) -> str:
    """SHA-256 over names, shapes, types and bytes of all tensors, and the losses."""
    digest = hashlib.sha256(history.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def load_weights(folder: Path) -> tuple[dict[str, Tensor], TrainingReport] | None:
    """The finished weights in ``folder`` with their report, or None where training has not finished.

    A truncated file counts as not finished. A readable one without the hash it was written with was altered, and
    raises ``UserError``.
    """
    path = folder / "weights.safetensors"
    if not path.is_file():
        return None
    try:
        tensors, seconds, losses, precision = read_tensors(path)
    except SafetensorError:
        return None
    except ValueError as error:
        raise UserError(f"weights '{path}' were altered: {error}. Remove the file to train again.") from error
    return tensors, TrainingReport(file_sha256(path), len(losses), seconds, losses, precision)


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


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything an epoch leaves behind: the model's tensors and the optimiser's, numbered as it numbers parameters."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                tensors[f"optimizer.{number}.{key}"] = torch.as_tensor(value)
    return tensors


def restore(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a snapshot back; raises ValueError, before anything is changed, where it does not fit."""
    own = model.state_dict()
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in weights.items()}:
        raise ValueError("its tensors are not those of this model")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith("optimizer."):
            continue
        _, number, key = name.split(".", 2)
        parameter = parameters[int(number)]
        if value.shape == parameter.shape:
            # In the parameter's own memory layout: vectorised updates of another layout may round differently.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        state.setdefault(int(number), {})[key] = value
    model.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
