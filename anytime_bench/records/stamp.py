"""When and by which software a file was made: date, version of the suite, the stamp of a drawn file with its data.

The bytes of a picture or a page depend on the versions of the libraries that draw it, not only on the records. The
stamp lets ``leaderboard check`` tell "other data" from "other library".
"""

from __future__ import annotations

import functools
import hashlib
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from anytime_bench.files import canonical_json
from anytime_bench.records.record import finite

#: The form of every stored date, in UTC.
DATE = "%Y-%m-%dT%H:%M:%SZ"
_STAMP = re.compile(rb"\[anytime_bench data ([0-9a-f]{64}) drawn by ([^\]]{1,200})\]")


def now() -> str:
    """The date that a file made now carries."""
    return datetime.now(UTC).strftime(DATE)


def suite_version() -> str:
    try:
        return version("anytime_bench")
    except PackageNotFoundError:
        return "0+unknown"


@functools.cache
def code_sha256(package: Path = Path(__file__).parents[1]) -> str:
    """Of a package's files, the suite's own if not another's: sources, templates, stored weights, not what is compiled
    of them."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def stamp(data: Any, *libraries: str) -> str:
    """``[anytime_bench data <SHA-256> drawn by <library version, ...>]`` for JSON-like ``data``."""
    digest = hashlib.sha256(canonical_json(finite(data)).encode()).hexdigest()
    return f"[anytime_bench data {digest} drawn by {', '.join(f'{name} {version(name)}' for name in libraries)}]"


def read_stamp(data: bytes) -> tuple[str, str] | None:
    """(digest, libraries) of a file made with ``stamp``, or None."""
    match = _STAMP.search(data)
    return (match[1].decode(), match[2].decode(errors="replace")) if match else None
