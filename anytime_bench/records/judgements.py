"""Verdicts on records' arrays by content, in the user's cache folder, so that what was verified is not derived again.

A verdict holds for the bytes of a record and of its trace, for this suite's code and for the plugins that are loaded;
where any of them changes, the record is judged anew. A folder that cannot be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from anytime_bench.files import cache_folder, file_sha256, write_atomically
from anytime_bench.records.scoring import from_plugins
from anytime_bench.records.stamp import code_sha256


@dataclass(frozen=True)
class Judgement:
    """What the arrays of a record do not give of what it says, and the hash of its answers."""

    faults: tuple[str, ...]
    answers: str


@cache
def _libraries() -> list[str]:
    return [f"{name} {version(name)}" for name in ("numpy", "scipy")]


class Judgements:
    """The verdicts of this suite with the plugins that are loaded now."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "verified"
        added = sorted((name, each.origin) for name, each in from_plugins().items())
        self._judge = f"{code_sha256()} {_libraries()} {added}"

    def of(self, path: Path) -> Judgement | None:
        """The verdict on the record at ``path``, or None where these files were not judged yet."""
        try:
            stored = json.loads(self._file(path).read_text())
            return Judgement(tuple(map(str, stored["faults"])), str(stored["answers"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, path: Path, judgement: Judgement) -> None:
        """Remember a verdict, if the folder can be written."""
        text = json.dumps({"faults": judgement.faults, "answers": judgement.answers})
        with contextlib.suppress(OSError):
            write_atomically(self._file(path), text.encode())

    def _file(self, path: Path) -> Path:
        parts = [self._judge, *(file_sha256(each) for each in (path, path.with_suffix(".npz")))]
        return self.folder / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()}.json"
