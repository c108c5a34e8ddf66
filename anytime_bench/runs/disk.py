"""Whether a folder can be written, asked before anything is trained or timed for nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from anytime_bench.errors import DiskError, make_room


def check_writable(folder: Path) -> None:
    """Create ``folder`` and try a small file in it; raises ``DiskError``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise DiskError(
            f"cannot write to the output folder '{folder}': {error.strerror or error}. {make_room(error)}, or "
            "choose another folder (--out)."
        ) from error
