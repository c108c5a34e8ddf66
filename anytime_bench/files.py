"""Atomic writes, reproducible bytes and safe file names. Imports nothing from the package.

``write_atomically`` raises the operating system's ``OSError``; callers say what it means to the user.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def safe_name(name: object) -> str:
    """``name`` as one part of a path: no separator, no control character, no lone surrogate, no leading dot.

    >>> safe_name("timm/vit"), safe_name("image_folder:pictures"), safe_name(".."), safe_name("a\\0b"), safe_name("")
    ('timm-vit', 'image_folder-pictures', '-.', 'a-b', '-')
    """
    text = re.sub(r"[/\\\\:\x00-\x1f\x7f\ud800-\udfff]", "-", str(name))
    return "-" + text[1:] if text[:1] in ("", ".") else text


def is_record_file(path: Path) -> bool:
    """Whether ``path`` is named as a record is: 64 hex digits and ``.json``."""
    return re.fullmatch(r"[0-9a-f]{64}\.json", path.name) is not None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either what it held before or all of ``data``, even across a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def npz_bytes(arrays: Mapping[str, NDArray[Any]], *, quick: bool = False) -> bytes:
    """A compressed ``.npz`` with fixed time stamps and sorted names, so equal arrays give equal bytes.

    LZMA makes a trace about a seventh smaller than deflate does; ``quick`` is the latter at its fastest, for what is
    not kept for long. ``numpy.load`` reads both.
    """
    method, level = (zipfile.ZIP_DEFLATED, 1) if quick else (zipfile.ZIP_LZMA, None)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=level) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(arrays[name]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue(), method, level)
    return buffer.getvalue()


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, shortest round-trip floats; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
