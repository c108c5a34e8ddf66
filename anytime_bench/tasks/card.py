"""What a task is, without its pixels: the card that methods build from and records quote. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskCard:
    """A classification task.

    ``shape`` is (channels, height, width) of every image; ``sizes`` the number of images per split (``train``,
    ``val``, ``test``); ``mean`` and ``std`` are per channel, on pixels scaled to [0, 1], and normalise what models
    see; ``sha256`` identifies the pixels, labels and split; ``version`` changes whenever any of them would.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    sizes: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    version: str = "1"
    sha256: str = ""
    source: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def chance(self) -> float:
        """Accuracy of a blind guess, 1/C: what the harness credits before the first exit."""
        return 1.0 / len(self.classes)
