"""Atomic writes, reproducible bytes and safe file names. Imports nothing from the package.

``write_atomically`` and ``write_all`` raise ``OSError``; callers say what it means to the user.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
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


def cache_folder() -> Path:
    """Where this user keeps what can be made again; ``ANYTIME_BENCH_CACHE`` names another folder. May not exist yet."""
    own = os.environ.get("ANYTIME_BENCH_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anytime_bench"


def cached_arrays(key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """What ``make`` gives, or what it gave before for the same ``key``: all that decides it, the code included.

    Stored in the user's cache folder. A file there that cannot be read, and a folder that cannot be written, cost time
    and nothing else.
    """
    path = _cached_file(key)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        arrays = dict(make())
    with contextlib.suppress(OSError):
        write_atomically(path, npz_bytes(arrays, quick=True))
    return arrays


def is_cached(key: str) -> bool:
    """Whether ``cached_arrays`` has made something for ``key`` before."""
    return _cached_file(key).is_file()


def _cached_file(key: str) -> Path:
    return cache_folder() / "made" / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"


def is_record_file(path: Path) -> bool:
    """Whether ``path`` is named as a record is: 64 hex digits and ``.json``."""
    return re.fullmatch(r"[0-9a-f]{64}\.json", path.name) is not None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either what it held before or all of ``data``, even across a crash."""
    write_all({path: data})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files, each whole or not at all; a disk that cannot take all of them keeps what it held before.

    All data is on the disk before the first file appears under its name. What writers that died left in the folders is
    removed. Raises ``OSError`` with the name of the file that could not be written.
    """
    parts: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            with _named_error(path):
                parts[path] = _write_part(path, data)
        for path in contents:
            with _named_error(path):
                os.replace(parts[path], path)
                del parts[path]
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _named_error(path: Path) -> Iterator[None]:
    """An ``OSError`` about a temporary file becomes one about ``path``."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_part(path: Path, data: bytes) -> Path:
    """``data`` in a temporary file beside ``path``, flushed to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_parts(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.{_HOST}-{os.getpid()}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


#: This machine's name in the names of temporary files, so that only its own processes are asked whether they live.
_HOST = safe_name(socket.gethostname())[:40]


def _remove_abandoned_parts(folder: Path) -> None:
    """Remove temporary files of processes of this machine that are no more."""
    for part in folder.glob(f".*.{_HOST}-*.part"):
        owner = part.name.rpartition(f".{_HOST}-")[2].partition(".")[0]
        if owner.isdigit() and not _is_alive(int(owner)):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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


def short_hash(value: object) -> str:
    """Sixteen hex digits, equal for equal values: they name runs' folders, locks and jobs' files on users' disks."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
