"""Applying a corruption: input checks, the way between normalised values and pixels, and chunks.

Shapes: images ``(B, D, H, W)`` float32, D = 1 or 3; ``indices`` and ``frame`` ``(B,)``. Errors are ``UserError``, and
``PluginError`` where an operator raises.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anytime_bench.corruptions.catalogue import Corruption
from anytime_bench.corruptions.draws import Draws
from anytime_bench.errors import PluginError, UserError, describe

#: Values corrupted at once: keeps the temporaries of a chunk in the cache of a core, at no change of result.
CHUNK_VALUES = 1 << 19


def apply(
    images: Tensor,
    kind: Corruption,
    severity: int | None,
    seed: int,
    indices: Tensor | Sequence[int],
    frame: int | Tensor,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Tensor:
    """See ``anytime_bench.corruptions.corrupt``."""
    constants = kind.constants(severity)
    operator = kind.load()
    _check_images(images)
    index = _vector(indices, images, "indices")
    frames = _vector(torch.full_like(index, frame) if isinstance(frame, int) else frame, images, "frame")
    if (mean is None) != (std is None):
        raise UserError("mean and std: give both or neither")
    convert = kind.space == "unit" and mean is not None
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    step = max(1, CHUNK_VALUES // max(1, images[0].numel())) if len(images) else 1
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        batch = images[part].contiguous()
        if kind.space == "unit":
            batch = snap(to_pixels(batch, mean, std) if convert else batch)  # type: ignore[arg-type]
        draws = Draws(seed, kind.name, index[part], frames[part])
        try:
            noisy = operator(batch, draws, *constants)
        except UserError:
            raise
        except Exception as error:
            raise PluginError(f"corruption '{kind.name}': {describe(error)}") from error
        if noisy.shape != batch.shape:
            raise UserError(f"corruption '{kind.name}' returned shape {tuple(noisy.shape)} for {tuple(batch.shape)}")
        out[part] = to_normalised(noisy, mean, std) if convert else noisy  # type: ignore[arg-type]
    return out


def snap(pixels: Tensor) -> Tensor:
    """Pixels rounded to the 8-bit grid within [0, 1], value k being k * (1/255).

    A GPU divides by a number as it multiplies by its reciprocal; doing so everywhere gives equal bits everywhere.
    """
    return (pixels * 255).round_().clamp_(0, 255).mul_(1 / 255)


def to_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return images * _channels(std, images) + _channels(mean, images)


def to_normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (pixels - _channels(mean, pixels)) / _channels(std, pixels)


def _channels(values: Sequence[float], images: Tensor) -> Tensor:
    if len(values) != images.shape[1]:
        raise UserError(f"mean, std: expected one number per channel ({images.shape[1]}), got {len(values)}")
    return torch.tensor(values, dtype=images.dtype, device=images.device).reshape(1, -1, 1, 1)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"images: expected (batch, 1 or 3 channels, height, width), got {tuple(images.shape)}")
    if images.dtype != torch.float32:
        raise UserError(f"images: expected float32, got {images.dtype}; scale 8-bit pixels to [0, 1] first")


def _vector(values: Tensor | Sequence[int], images: Tensor, name: str) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.int64, device=images.device)
    if vector.shape != (len(images),):
        raise UserError(f"{name}: expected one number per image, shape ({len(images)},), got {tuple(vector.shape)}")
    return vector
