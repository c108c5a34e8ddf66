"""The Trace: what every exit said about every image, in the precision in which it is stored. NumPy only.

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
set_size                 (E, N)   classes in the nested prediction set, see ``prediction_sets``
set_own                  (E, N)   classes in the exit's own set, before it is nested
set_covers               (E, N)   whether the nested set holds the true class
======================== ======== ==========================================================

The last three are optional: only a test split has them, calibrated on the validation split.

Published records hold many traces, so redundant values are not stored. Where an answer is right, ``confidence`` is
exp(true_log_probability) and stored as 0. ``squared_norm`` is stored as ``spread``: how the probability that the
predicted class left over is spread over the others, from 0 (evenly) to 255 (on a single one); see ``squared_norms``.
Of more than ``MANY`` images, whose rounding averages out, logarithms keep 8 significant bits instead of 11 and spreads
64 steps instead of 256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class TraceError(ValueError):
    """A trace that no score may be computed from; the message names the field."""


#: What a file holds of a trace, each name behind the split's: ``test_labels``, ...
STORED = ("num_classes", "labels", "predictions", "confidence", "true_log_probability", "spread", "true_rank")
#: Stored as they are, all three or none.
SETS = ("set_size", "set_own", "set_covers")
RANGES = {"confidence": (0.0, 1.0), "true_log_probability": (-65504.0, 0.0), "squared_norm": (0.0, 1.01)}
#: Steps of the stored ``spread``. One step moves a squared norm by at most 1/255 of (1 - confidence)^2.
SPREADS = 255
#: Splits of more images than this are stored in fewer bits.
MANY = 1000


def squared_norms(confidence: Array, spread: Array, num_classes: int) -> NDArray[np.float16]:
    """Sum of squared probabilities between its least and its greatest value at this confidence, float16.

    Least: c^2 + (1-c)^2 / (C-1), the rest evenly on the other classes; greatest: c^2 + (1-c)^2, all of it on one.

    >>> squared_norms(np.float16([[0.5, 0.5]]), np.uint8([[0, 255]]), num_classes=3).tolist()
    [[0.375, 0.5]]
    """
    certain = np.asarray(confidence, dtype=np.float64)
    least = 1.0 / max(num_classes - 1, 1)
    share = least + (1.0 - least) * np.asarray(spread, dtype=np.float64) / SPREADS
    return (certain**2 + (1.0 - certain) ** 2 * share).astype(np.float16)


def spreads(confidence: Array, squared_norm: Array, num_classes: int) -> NDArray[np.uint8]:
    """The nearest stored ``spread`` of each squared norm; 0 where nothing is left to spread."""
    certain = np.asarray(confidence, dtype=np.float64)
    least, rest = 1.0 / max(num_classes - 1, 1), (1.0 - certain) ** 2
    width = rest * (1.0 - least)
    above = np.asarray(squared_norm, dtype=np.float64) - certain**2 - rest * least
    share = np.divide(above, width, out=np.zeros_like(above), where=width > 0)
    step = 4 if certain.shape[1] > MANY else 1
    return np.minimum(np.rint(np.clip(share, 0.0, 1.0) * SPREADS / step) * step, SPREADS).astype(np.uint8)


def _stored_logarithms(logarithms: NDArray[np.float64]) -> NDArray[np.float16]:
    """Logarithms of probabilities ``(E, N)`` in the precision in which they are stored."""
    # float16 ends at 65504; what is less likely than e^-60000 is stored as e^-60000.
    short = np.maximum(logarithms, -60000.0).astype(np.float16)
    if short.shape[1] <= MANY:
        return short
    bits = short.view(np.uint16).astype(np.uint32)
    # Halves to even: rounding them all away from 0 would make every mean log-likelihood 0.04 % worse.
    return (((bits + 3 + ((bits >> 3) & 1)) >> 3) << 3).astype(np.uint16).view(np.float16)


def _confidences(stored: Array, true_log_probability: Array, correct: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Stored confidence, with exp(log p of the true class) where the true class was the answer."""
    certain = np.exp(np.asarray(true_log_probability, dtype=np.float64))
    return np.where(correct, certain, np.asarray(stored, dtype=np.float64)).astype(np.float16)


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
    set_size: Array | None = None
    set_own: Array | None = None
    set_covers: Array | None = None

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

    def subset(self, images: NDArray[np.intp]) -> Trace:
        """The trace of the given images, in their order."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "num_classes"}
        return replace(self, **{name: table[..., images] for name, table in arrays.items() if table is not None})

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
        truth = _stored_logarithms(np.take_along_axis(log_probability, index, axis=2)[..., 0])
        # By way of its logarithm for every image, so that no rounding tells right answers from wrong ones.
        certainty = _stored_logarithms(log_probability.max(axis=2))
        confidence = np.exp(certainty.astype(np.float64)).astype(np.float16)
        return cls(
            num_classes=classes,
            labels=labels.astype(small),
            predictions=predictions.astype(small),
            confidence=confidence,
            true_log_probability=truth,
            squared_norm=squared_norms(confidence, spreads(confidence, (probability**2).sum(axis=2), classes), classes),
            true_rank=rank.astype(small),
        )

    def to_arrays(self, prefix: str) -> dict[str, Array]:
        """Arrays for ``np.savez``: ``<prefix>_<field>`` (``test_labels``, ...), ``spread`` for ``squared_norm``."""
        stored: dict[str, Array] = {
            "num_classes": np.array(self.num_classes),
            "labels": self.labels,
            "predictions": self.predictions,
            "confidence": np.where(self.correct, np.float16(0), self.confidence),
            "true_log_probability": self.true_log_probability,
            "spread": spreads(self.confidence, self.squared_norm, self.num_classes),
            "true_rank": self.true_rank,
        }
        if self.set_size is not None:
            stored |= {name: getattr(self, name) for name in SETS}
        return {f"{prefix}_{name}": values for name, values in stored.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], prefix: str) -> Trace:
        """Read back what ``to_arrays`` wrote, refusing anything that cannot be scored."""
        names = (*STORED, *SETS)
        values = {name: np.asarray(arrays[f"{prefix}_{name}"]) for name in names if f"{prefix}_{name}" in arrays}
        demanded = names if set(SETS) & set(values) else STORED
        missing = [f"{prefix}_{name}" for name in demanded if name not in values]
        if missing:
            raise TraceError(f"{missing[0]}: missing from the stored trace")
        classes = values["num_classes"]
        if classes.shape != () or classes.dtype.kind not in "iu":
            shape = f"shape {classes.shape} in {classes.dtype}"
            raise TraceError(f"{prefix}_num_classes: {shape}, expected a single whole number")
        num_classes, spread = int(values.pop("num_classes")), values.pop("spread")
        tables = {name: array for name, array in {**values, "spread": spread}.items() if name != "labels"}
        _check_shapes(prefix, values["labels"], num_classes, tables)
        for name in ("confidence", "true_log_probability"):
            _check_range(prefix, name, values[name], *RANGES[name])
        correct = values["predictions"] == values["labels"][None]
        values["confidence"] = _confidences(values["confidence"], values["true_log_probability"], correct)
        norms = squared_norms(values["confidence"], spread, num_classes)
        trace = cls(num_classes, squared_norm=norms, **values)
        trace.validate(prefix)
        return trace

    def validate(self, prefix: str = "trace") -> None:
        """Raise ``TraceError`` naming the first field that is out of shape or range."""
        ranges = {**RANGES, "true_rank": (0.0, self.num_classes - 1.0)}
        sets = SETS if self.set_size is not None else ()
        tables = {name: np.asarray(getattr(self, name)) for name in ("predictions", *ranges, *sets)}
        _check_shapes(prefix, self.labels, self.num_classes, tables)
        if self.predictions.max() >= self.num_classes:
            raise TraceError(f"{prefix}_predictions: expected classes below {self.num_classes}")
        for name, (low, high) in ranges.items():
            _check_range(prefix, name, tables[name], low, high)
        if not np.array_equal(np.asarray(self.true_rank) == 0, self.correct):
            raise TraceError(f"{prefix}_true_rank: disagrees with predictions and labels")
        if self.set_size is not None and self.set_own is not None and self.set_covers is not None:
            _check_sets(prefix, self.num_classes, self.set_size, self.set_own, self.set_covers)


def _check_shapes(prefix: str, labels: Array, num_classes: int, tables: Mapping[str, Array]) -> None:
    """Labels in range, and every table with one row per exit and one column per label, or ``TraceError``."""
    if labels.ndim != 1 or len(labels) == 0:
        raise TraceError(f"{prefix}_labels: expected a non-empty vector, got shape {labels.shape}")
    if labels.max() >= num_classes or labels.min() < 0:
        raise TraceError(f"{prefix}_labels: expected 0..{num_classes - 1}, got up to {labels.max()}")
    shape = tables["predictions"].shape
    if len(shape) != 2 or shape[0] == 0 or shape[1] != len(labels):
        raise TraceError(f"{prefix}_predictions: expected (exits, {len(labels)}), got {shape}")
    for name, table in tables.items():
        if table.shape != shape:
            raise TraceError(f"{prefix}_{name}: expected shape {shape}, got {table.shape}")


def _check_sets(prefix: str, num_classes: int, size: Array, own: Array, covers: Array) -> None:
    """Nested sets only shrink, lie within their exit's own, and hold the true class only where they hold a class."""
    sizes, own_sizes, holds = size.astype(np.int64), own.astype(np.int64), covers.astype(np.bool_)
    if covers.dtype != np.bool_:
        raise TraceError(f"{prefix}_set_covers: expected true or false, got {covers.dtype}")
    if own_sizes.max() > num_classes or (sizes > own_sizes).any():
        raise TraceError(f"{prefix}_set_size: expected at most set_own, and that at most {num_classes}")
    if (np.diff(sizes, axis=0) > 0).any() or (holds[1:] & ~holds[:-1]).any():
        raise TraceError(f"{prefix}_set_size: nested sets grow from an exit to a later one")
    if (holds & (sizes == 0)).any():
        raise TraceError(f"{prefix}_set_covers: an empty set cannot hold the true class")


def _check_range(prefix: str, name: str, table: Array, low: float, high: float) -> None:
    values = table.astype(np.float64)
    if not np.isfinite(values).all():
        raise TraceError(f"{prefix}_{name}: holds NaN or infinity")
    if values.min() < low or values.max() > high:
        raise TraceError(f"{prefix}_{name}: expected [{low}, {high}], got {values.min()}..{values.max()}")
