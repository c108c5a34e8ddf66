"""Reading a ``.npz`` that anyone may have written: every size is checked before anything is unpacked.

Memory stays within ``MAX_BYTES`` and the dictionary of one LZMA stream, whatever the file claims; there are no object
arrays, so no code runs. Errors: ``ArchiveError``, in one line.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What all arrays of a trace may take together, unpacked; those of 50,000 images and 100 exits take a third.
MAX_BYTES = 256 * 2**20
MAX_ARRAYS = 1000
MAX_HEADER = 10_000
MAX_DIMENSIONS = 8
#: Dictionary of an LZMA stream; Python's default has 8 MiB.
MAX_DICTIONARY = 64 * 2**20
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
#: Packed bytes that are unpacked at once; LZMA makes of them some 30 MB at most.
STEP = 4096
#: Numbers, truth values and text.
KINDS = "biufU"


class ArchiveError(ValueError):
    """A file that is no archive of plain arrays, or one that is too large."""


def read_npz(data: bytes, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays in the bytes of a ``.npz``, or those of them that ``names`` holds."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members)
            wanted = [m for m in members if names is None or m.filename.removesuffix(".npy") in names]
            return {member.filename.removesuffix(".npy"): _read(archive, member, data) for member in wanted}
    except ArchiveError:
        raise
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError,
        KeyError, IndexError, TypeError, SyntaxError, MemoryError, OverflowError,
    ) as error:  # fmt: skip
        raise ArchiveError(f"it is no readable archive of arrays ({' '.join(str(error).split())[:150]})") from error


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if not names:
        raise ArchiveError("it is an empty archive")
    if len(names) > MAX_ARRAYS or len(set(names)) < len(names):
        raise ArchiveError(f"it holds {len(names)} files, expected at most {MAX_ARRAYS}, each name once")
    for member in members:
        if not member.filename.endswith(".npy") or not member.filename.isprintable() or len(member.filename) > 200:
            raise ArchiveError(f"it holds {member.filename!a:.60}, which is no array")
        if member.flag_bits & 0x1:
            raise ArchiveError(f"{member.filename} is encrypted")
        if member.compress_type not in METHODS:
            raise ArchiveError(
                f"{member.filename} is packed by method {member.compress_type}, expected deflate or LZMA"
            )
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise ArchiveError(f"unpacked it would take {total / 2**20:,.0f} MiB, at most {MAX_BYTES // 2**20} are read")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, data: bytes) -> NDArray[Any]:
    if member.compress_type == zipfile.ZIP_LZMA:
        _check_dictionary(member, data)
    with archive.open(member) as file:
        # In steps: a single read would unpack a whole LZMA stream, however long, before it looked at the size.
        content = b"".join(iter(lambda: file.read(STEP), b""))
    return _array(content, member.filename)


def _check_dictionary(member: zipfile.ZipInfo, data: bytes) -> None:
    """Refuse an LZMA stream whose header asks for more memory than ``MAX_DICTIONARY``."""
    name_length, extra_length = struct.unpack_from("<HH", data, member.header_offset + 26)
    start = member.header_offset + 30 + name_length + extra_length
    size = int.from_bytes(data[start + 5 : start + 9], "little")
    if size > MAX_DICTIONARY:
        raise ArchiveError(f"{member.filename} asks for an LZMA dictionary of {size / 2**20:,.0f} MiB")


def _array(content: bytes, name: str) -> NDArray[Any]:
    """The array of a ``.npy``; its header must describe exactly the bytes that follow."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ArchiveError(f"{name} has the .npy version {version}, expected 1.0 or 2.0")
    shape, fortran, dtype = readers[version](file, max_header_size=MAX_HEADER)
    if dtype.kind not in KINDS or dtype.hasobject or len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise ArchiveError(f"{name} holds {dtype!s:.40} of shape {shape!s:.60}, expected plain numbers or text")
    count = 1
    for size in shape:
        count *= int(size)
    if count * dtype.itemsize != len(content) - file.tell():
        raise ArchiveError(f"{name} does not hold as many values as its header says")
    flat = np.frombuffer(content, dtype=dtype, count=count, offset=file.tell()) if count else np.empty(0, dtype)
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return array.copy()
