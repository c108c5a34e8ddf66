"""Another task's test images, shown to a record's model in the form the model expects.

The images are brought to the model's channels and size and then normalised with the mean and deviation of the model's
own task, as if they had been its own. Labels are not used: the classes are others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from anytime_bench.errors import UserError
from anytime_bench.harness.predict import predict
from anytime_bench.records.record import Record
from anytime_bench.runs.rerun import plan_of, weights_of
from anytime_bench.tasks.loading import load_task, remove_empty_folders
from anytime_bench.tasks.task import Split
from anytime_bench.trace.answers import Trace
from anytime_bench.training.data import DeviceSplit

Images = NDArray[np.uint8]

#: Luma of ITU-R BT.601, the usual weights of red, green and blue in a grey image.
LUMA = (0.299, 0.587, 0.114)


def as_images_of(images: Images, shape: tuple[int, int, int]) -> Images:
    """``images (N, D, H, W)`` uint8 as uint8 of ``shape (D, H, W)``.

    Grey becomes three equal channels, colour becomes grey by luma. Size is changed by bilinear interpolation, with
    antialiasing where it shrinks; other proportions are stretched. Raises ``UserError`` for other channel counts.
    """
    channels, height, width = shape
    own = images.shape[1]
    if own != channels and {own, channels} != {1, 3}:
        raise UserError(
            f"out-of-distribution images have {own} channels and the model reads {channels}: expected 1 (grey) and 3 "
            "(RGB), or equal numbers. Choose another task for --ood."
        )
    parts = []
    for start in range(0, len(images), 1024):
        part = torch.from_numpy(images[start : start + 1024].astype(np.float32))
        if own != channels:
            grey = (part * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True) if own == 3 else part
            part = grey.expand(-1, channels, -1, -1)
        if part.shape[-2:] != (height, width):
            part = F.interpolate(part, (height, width), mode="bilinear", antialias=True, align_corners=False)
        parts.append(part.round().clamp(0, 255).byte().numpy())
    return np.concatenate(parts)


class OODImages:
    """The test images of one task, read once and converted once per shape."""

    def __init__(self, task: str, data_root: Path | None = None, device: str = "auto") -> None:
        self.data_root, self.device = data_root, device
        self.task = load_task(task, data_root)
        self.converted: dict[tuple[int, int, int], Images] = {}

    def check(self, records: Sequence[Record]) -> None:
        """Raise ``UserError`` if some record's own task is this one."""
        for record in records:
            if record.task.sha256 == self.task.card.sha256:
                raise UserError(
                    f"--ood {self.task.card.name}: these are the images the records are about. Name another task."
                )

    def trace(self, path: Path, record: Record, advance: Callable[[float], None] = lambda share: None) -> Trace:
        """What the record's model answers to these images; true classes are set to 0 and mean nothing.

        Raises ``UserError`` where the record's weights are not beside it in the store.
        """
        plan = plan_of(record, path, data_root=self.data_root, device=self.device)
        try:
            model = weights_of(plan, record)
        except UserError:
            # A plan makes its folder; where no weights are in it, reading leaves none behind.
            remove_empty_folders(plan.folder)
            raise
        card = plan.task.card
        if card.shape not in self.converted:
            self.converted[card.shape] = as_images_of(self.task.splits["test"].images, card.shape)
        images = self.converted[card.shape]
        labels = np.zeros(len(images), dtype=np.int64)
        split = DeviceSplit.place(Split(images, labels), card, plan.device)
        logits = predict(
            model, split, plan.resolved.config.evaluation.prediction_batch, lambda done: advance(done / len(images))
        )
        return Trace.from_logits(logits, labels)
