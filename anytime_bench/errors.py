"""Errors the user can fix: the command line prints them as one line and exits with status 2."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

#: The environment variable that asks for full tracebacks; ``--traceback`` sets it.
TRACEBACK = "ANYTIME_BENCH_TRACEBACK"


class UserError(ValueError):
    """Bad input, raised once where it enters: what was given, what was expected, what to do."""


class DiskError(UserError):
    """A disk that cannot be written: whatever else was to be stored on it would fail too."""


class PluginError(RuntimeError):
    """What a plugin raised, its message being the plugin's kind and name and what ``describe`` says."""


def make_room(error: OSError) -> str:
    """What to do about a disk that takes nothing: only a full one wants space."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "Free some space" if full else "Make it writable"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``' Did you mean a or b?'`` for the nearest known names, else the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return f" Known: {', '.join(names)}." if names else ""


def traceback_wanted() -> bool:
    """Whether the user asked for full tracebacks."""
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def describe(error: BaseException) -> str:
    """``file:line: Type: message`` on one line, where ``file:line`` is the plugin's own line rather than a library's.

    The innermost frame of code that is neither the suite, nor Python's library, nor installed counts as the plugin's;
    without one, the innermost frame outside the suite and torch, else the innermost. What called a verb is none of
    them. A ``PluginError`` says by itself where it comes from.
    """
    if isinstance(error, PluginError):
        return message(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    verbs = [place for place, frame in enumerate(frames) if _is_below(frame.filename, _SUITE / "cli")]
    frames = frames[verbs[-1] if verbs else 0 :]
    own = [f for f in frames if not _is_library(f.filename)]
    outside = [f for f in frames if not _is_below(f.filename, _SUITE) and "/torch/" not in f.filename]
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}: "
    elif frames:
        frame = (own or outside or frames)[-1]
        where = f"{frame.filename}:{frame.lineno}: "
    return f"{where}{type(error).__name__}: {message(error)}"


def location(description: str) -> tuple[str, int] | None:
    """File and line that ``describe`` names first, or None where it names no place or a library's."""
    match = re.search(r"(?:^|: )([^:]+):(\d+): ", description)
    return None if match is None or _is_library(match[1]) else (match[1], int(match[2]))


def message(error: BaseException) -> str:
    """The error's own words as ``one_line``, also where its ``__str__`` raises."""
    try:
        return one_line(str(error))
    except Exception as fault:
        return f"(its message cannot be shown: {type(fault).__name__})"


def one_line(text: str) -> str:
    """``text`` on one line, control characters escaped.

    A word of more than 500 characters is cut: it is a value that somebody quoted, and its beginning names it.
    """
    words = [f"{word[:200]}... ({len(word)} characters)" if len(word) > 500 else word for word in text.split()]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(words))


_SUITE = Path(__file__).parent
_LIBRARIES = (_SUITE, *{Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")})


def _is_library(file: str) -> bool:
    installed = file.startswith("<") or "site-packages" in file or "dist-packages" in file
    return installed or any(_is_below(file, folder) for folder in _LIBRARIES)


def _is_below(file: str, folder: Path) -> bool:
    return Path(file).is_relative_to(folder)
