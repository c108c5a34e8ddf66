"""JPEG compression by Pillow's libjpeg, image by image. Pixels ``(B, D, H, W)`` on the 8-bit grid, D = 1 or 3.

Colour images are stored as JFIF with chroma halved on both axes ("4:2:0"), Pillow's default, as in the script that made
CIFAR-10-C. Images on a GPU pass through the host.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anytime_bench.corruptions.draws import Draws


def jpeg_compression(pixels: Tensor, draws: Draws, quality: int) -> Tensor:
    """Compressed at ``quality`` (1 to 100) and decompressed, on the 8-bit grid."""
    steps = (pixels * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()  # (B, H, W, D)
    decoded = np.stack([_through_jpeg(image, quality) for image in steps])
    return torch.from_numpy(decoded).to(pixels).permute(0, 3, 1, 2).mul(1 / 255)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """One image ``(H, W, D)`` uint8, coded and decoded."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)
