"""The cores at hand. No torch here, so that verbs and sweeps may ask."""

from __future__ import annotations

import os


def cores_at_hand() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
