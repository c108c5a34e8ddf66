"""The Trace: what every exit said about every image, in the form in which it is stored. NumPy only.

A trace is the narrow waist of the suite: the harness turns logits into it, every score is computed from it and
from nothing else, and it is what the ``.npz`` beside a record holds. Scores are always computed from the stored
precision, so that recomputing them from the file gives the same bits as the record.

======================== ======== ==========================================================
field                    shape    content
======================== ======== ==========================================================
labels                   (N,)     true class, uint8 or uint16
predictions              (E, N)   predicted class, uint8 or uint16
confidence               (E, N)   probability of the predicted class, float16
true_log_probability     (E, N)   natural logarithm of the true class's probability, float16
squared_norm             (E, N)   sum over classes of the squared probabilities, float16
true_rank                (E, N)   classes that scored above the true one; 0 means correct
confusion                (N,)     summed L1 distance of the earlier answers to the last one (SDN), float16;
                                  None in traces stored without it
======================== ======== ==========================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class TraceError(ValueError):
    """A trace that no score may be computed from; the message names the field."""


@dataclass(frozen=True)
class Trace:
    """Answers of E exits on N images of C classes. Built by ``from_logits`` or ``from_arrays``, which validate."""

    num_classes: int
    labels: Array
    predictions: Array
    confidence: Array
    true_log_probability: Array
    squared_norm: Array
    true_rank: Array
    confusion: Array | None = None

    @property
    def num_exits(self) -> int:
        return int(self.predictions.shape[0])

    @property
    def num_samples(self) -> int:
        return int(self.predictions.shape[1])

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether exit k is right about image n, ``(E, N)``."""
        return self.predictions == self.labels[None]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Accuracy per exit in [0, 1], ``(E,)``."""
        return self.correct.mean(axis=1, dtype=np.float64)

    @classmethod
    def from_logits(cls, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Trace:
        """Reduce logits ``(E, N, C)`` and labels ``(N,)`` to a trace. Ties go to the lowest class."""
        logits = np.asarray(logits, dtype=np.float64)
        labels = np.asarray(labels)
        if logits.ndim != 3:
            raise TraceError(f"logits: expected shape (exits, images, classes), got {logits.shape}")
        _, samples, classes = logits.shape
        if labels.shape != (samples,):
            raise TraceError(f"labels: expected shape ({samples},) to match the logits, got {labels.shape}")
        if samples == 0:
            raise TraceError("labels: the split is empty, so nothing can be scored")
        if not np.isfinite(logits).all():
            exit_index = int(np.argwhere(~np.isfinite(logits))[0][0])
            raise TraceError(f"logits: exit {exit_index} holds NaN or infinity")
        if labels.min() < 0 or labels.max() >= classes:
            raise TraceError(f"labels: expected 0..{classes - 1}, got {labels.min()}..{labels.max()}")
        shifted = logits - logits.max(axis=2, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
        probability = np.exp(log_probability)
        index = labels.astype(np.intp)[None, :, None]
        predictions = logits.argmax(axis=2)
        true_logit = np.take_along_axis(logits, index, axis=2)
        # A tie is lost to a lower class, as in argmax, so that rank 0 and a correct prediction are the same event.
        lower = np.arange(classes)[None, None] < index
        rank = ((logits > true_logit) | ((logits == true_logit) & lower)).sum(axis=2)
        small = np.uint8 if classes <= 256 else np.uint16
        return cls(
            num_classes=classes,
            labels=labels.astype(small),
            predictions=predictions.astype(small),
            confidence=probability.max(axis=2).astype(np.float16),
            # float16 ends at 65504; a true class less likely than e^-60000 is stored as e^-60000.
            true_log_probability=np.maximum(
                np.take_along_axis(log_probability, index, axis=2)[..., 0], -60000.0
            ).astype(np.float16),
            squared_norm=(probability**2).sum(axis=2).astype(np.float16),
            true_rank=rank.astype(small),
            confusion=sum(
                (np.abs(row - probability[-1]).sum(axis=1) for row in probability[:-1]), np.zeros(samples)
            ).astype(np.float16),
        )

    def to_arrays(self, prefix: str) -> dict[str, Array]:
        """Arrays for ``np.savez``, named ``<prefix>_<field>`` (``test_labels``, ...)."""
        arrays: dict[str, Array] = {
            f"{prefix}_{field.name}": getattr(self, field.name) for field in fields(self) if field.name != "num_classes"
        }
        if self.confusion is None:
            del arrays[f"{prefix}_confusion"]
        arrays[f"{prefix}_num_classes"] = np.array(self.num_classes)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], prefix: str) -> Trace:
        """Read back what ``to_arrays`` wrote, refusing anything that cannot be scored."""
        names = [field.name for field in fields(cls) if field.name != "confusion" or f"{prefix}_confusion" in arrays]
        missing = [f"{prefix}_{name}" for name in names if f"{prefix}_{name}" not in arrays]
        if missing:
            raise TraceError(f"{missing[0]}: missing from the stored trace")
        values = {name: np.asarray(arrays[f"{prefix}_{name}"]) for name in names}
        num_classes = int(values.pop("num_classes"))
        trace = cls(num_classes, **values)
        trace.validate(prefix)
        return trace

    def validate(self, prefix: str = "trace") -> None:
        """Raise ``TraceError`` naming the first field that is out of shape or range."""
        if self.labels.ndim != 1 or len(self.labels) == 0:
            raise TraceError(f"{prefix}_labels: expected a non-empty vector, got shape {self.labels.shape}")
        if self.labels.max() >= self.num_classes or self.labels.min() < 0:
            raise TraceError(f"{prefix}_labels: expected 0..{self.num_classes - 1}, got up to {self.labels.max()}")
        shape = self.predictions.shape
        if len(shape) != 2 or shape[0] == 0 or shape[1] != len(self.labels):
            raise TraceError(f"{prefix}_predictions: expected (exits, {len(self.labels)}), got {shape}")
        if self.predictions.max() >= self.num_classes:
            raise TraceError(f"{prefix}_predictions: expected classes below {self.num_classes}")
        ranges = {
            "confidence": (0.0, 1.0),
            "true_log_probability": (-65504.0, 0.0),
            "squared_norm": (0.0, 1.01),
            "true_rank": (0, self.num_classes - 1),
        }
        for name, (low, high) in ranges.items():
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != shape:
                raise TraceError(f"{prefix}_{name}: expected shape {shape}, got {values.shape}")
            if not np.isfinite(values).all():
                raise TraceError(f"{prefix}_{name}: holds NaN or infinity")
            if values.min() < low or values.max() > high:
                raise TraceError(f"{prefix}_{name}: expected [{low}, {high}], got {values.min()}..{values.max()}")
        if not np.array_equal(np.asarray(self.true_rank) == 0, self.correct):
            raise TraceError(f"{prefix}_true_rank: disagrees with predictions and labels")
        if self.confusion is not None:
            values = np.asarray(self.confusion, dtype=np.float64)
            # Two answers are at most 2 apart; float16 may round that up.
            if values.shape != self.labels.shape or not (values >= 0).all() or values.max() > 2.01 * shape[0]:
                raise TraceError(f"{prefix}_confusion: expected {len(self.labels)} numbers in [0, {2 * shape[0] - 2}]")
