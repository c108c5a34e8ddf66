"""Seeded mutations of JSON, bytes, YAML and arrays, and a count of what became of them.

Case n of a kind is the same on every machine. A case survives when it is accepted, or refused by ``UserError`` in one
line; anything else is a crash, reported with its number.
"""

from __future__ import annotations

import copy
import os
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from anytime_bench.errors import UserError, message

#: Seconds and bytes that no case may exceed.
SECONDS, MEMORY = 20.0, 2**30
#: How many cases are tried: by default, under ``slow``, and with ``ANYTIME_BENCH_FAULTS=full``.
COUNTS = {
    "records": (200, 1000, 10_000),
    "archives": (50, 200, 1000),
    "recipes": (50, 200, 1000),
    "plans": (20, 100, 300),
    "kills": (10, 20, 200),
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 10**400, 1e308, -0.0, 0.5, 5e-324, "", "0", "nan", "../..", "a\0b", "\u202e",
    "<script>alert(1)</script>", "[/red]", "|x|\n# y", "😀" * 300, [], {}, [[]], [None], {"": 0}, [0] * 1000,
    "a" * 10_000, {"value": 1, "low": 2, "high": 0}, [1, "a", None], -1e308,
)  # fmt: skip


def count(kind: str, slow: bool) -> int:
    default, share, full = COUNTS[kind]
    if not slow:
        return default
    return full if os.environ.get("ANYTIME_BENCH_FAULTS") == "full" else share


@dataclass
class Tally:
    """Cases tried, by what became of them; ``crashes`` hold number and place."""

    accepted: int = 0
    refused: int = 0
    crashes: list[str] = field(default_factory=list)


def survive(kind: str, cases: int, attack: Callable[[np.random.Generator], Any], first: int = 0) -> Tally:
    """Run ``attack`` with the generator of each case; raises ``AssertionError`` naming the crashes."""
    tally, before = Tally(), _peak()
    for case in range(first, first + cases):
        started = time.process_time()
        try:
            attack(np.random.default_rng([crc32(kind.encode()), case]))
            tally.accepted += 1
        except UserError as error:
            tally.refused += 1
            # As the command line prints it.
            if len(message(error)) > 4000:
                tally.crashes.append(f"case {case}: {len(message(error))} characters: {message(error):.200}")
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            tally.crashes.append(f"case {case}: {frame.filename}:{frame.lineno} {type(error).__name__}: {error!s:.200}")
        if time.process_time() - started > SECONDS:
            tally.crashes.append(f"case {case}: took over {SECONDS} s")
    if _peak() - before > MEMORY:
        tally.crashes.append(f"memory grew by {(_peak() - before) / 2**20:.0f} MiB")
    print(f"{kind}: {cases} tried, {tally.accepted} accepted, {tally.refused} refused, {len(tally.crashes)} crashes")
    assert not tally.crashes, "\n".join(tally.crashes[:20])
    return tally


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mutated_json(value: Any, rng: np.random.Generator) -> Any:
    """A deep copy of ``value`` in which one to three places are replaced, removed, doubled, swapped or scaled."""
    made = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        parents = list(_containers(made))
        if parents:
            _mutate(parents[rng.integers(len(parents))], parents, rng)
    return made


def _containers(value: Any) -> Any:
    """Every dictionary and list that is not empty; deep places as likely as their number makes them."""
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def _mutate(parent: Any, others: list[Any], rng: np.random.Generator) -> None:
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    key = keys[rng.integers(len(keys))]
    how = rng.integers(6)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, dict):
        parent[str(ODD[rng.integers(len(ODD))])[:50]] = parent.pop(key)
    elif how == 2 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif how == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] * [0, -1, 0.5, 2, 1e30][rng.integers(5)]
    elif how == 4:
        other = others[rng.integers(len(others))]
        values = list(other.values()) if isinstance(other, dict) else other
        if values:
            parent[key] = copy.deepcopy(values[rng.integers(len(values))])
    else:
        parent[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])


def mutated_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with bytes flipped, cut out, inserted or doubled."""
    made = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at, size = int(rng.integers(len(made) + 1)), int(rng.integers(1, 40))
        how = rng.integers(5)
        if how == 0:
            del made[at : at + size]
        elif how == 1:
            made[at:at] = rng.bytes(size)
        elif how == 2:
            made[at:at] = made[at : at + size]
        elif how == 3 and rng.integers(8) == 0:
            del made[at:]
        elif at < len(made):
            made[at] ^= 1 << int(rng.integers(8))
    return bytes(made)


def odd_array(array: Any, rng: np.random.Generator) -> Any:
    """``array`` with another type, shape, order, size or odd values."""
    how, array = rng.integers(9), np.atleast_1d(array)
    if how == 0 and array.dtype.kind != "U":
        return array.astype(rng.choice(["i1", "u1", "i8", "f2", "f4", "f8", "?", "U3", "c8", "u8"]))
    if how == 1:
        return array[..., : rng.integers(0, 3)]
    if how == 2:
        return array[None]
    if how == 3:
        return np.asfortranarray(array)[::-1]
    if how == 4:
        return array.ravel()
    if how == 5:
        return np.zeros((0,) * int(rng.integers(1, 4)), array.dtype)
    if how == 6:
        return np.array(rng.choice([0, -1, 255, 2**40, np.nan, np.inf]))
    made = array.astype(np.float64) if rng.integers(2) and array.dtype.kind != "U" else array.copy()
    if made.size:
        values = [-1, 1e6, np.nan, np.inf] if made.dtype.kind == "f" else [0, 1, 127]
        made.flat[int(rng.integers(made.size))] = values[rng.integers(len(values))]
    return made
