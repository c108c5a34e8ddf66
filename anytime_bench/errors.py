"""Errors a user can mend: the command line prints them as one line and exits with status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input, raised once where it enters: what was given, what was expected, what to do."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``' Did you mean a or b?'`` for the nearest known names, else the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return f" Known: {', '.join(names)}." if names else ""
