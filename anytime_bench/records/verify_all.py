"""Many records at once: each verified, by several processes where that pays, and held against the others."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.records.consistency import conflicts
from anytime_bench.records.entries import Entry
from anytime_bench.records.judgements import Judgements
from anytime_bench.records.record import Record
from anytime_bench.records.scoring import from_plugins
from anytime_bench.records.verify import examine

#: Records for which another process is worth its start.
WORTH_A_PROCESS = 12


@dataclass(frozen=True)
class Verified:
    """A record, if the file holds one, with its faults; ``answers`` is ``consistency.answers_sha256``, "" without."""

    path: Path
    record: Record | None
    faults: tuple[str, ...] = ()
    answers: str = ""


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Processes for work on records, of one thread each: more would take the others' cores for small matrices.

    A script that asks for them must guard its main part, as ``multiprocessing`` demands.
    """
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    # Read when a process imports numpy, so it must stand here while processes start.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = before


def verify_paths(paths: Sequence[Path], workers: int = 1) -> Iterator[tuple[Path, list[str]]]:
    """(path, faults) per record, in order; a conflict between two records is a fault of the later one."""
    for each in with_conflicts(list(verified(paths, workers=workers))):
        yield each.path, list(each.faults)


def verified(paths: Sequence[Path], *, anew: bool = True, workers: int = 1) -> Iterator[Verified]:
    """Every record examined alone, in order.

    ``anew`` derives every score again; without it, a verdict on the same bytes by the same suite is good enough. With
    more than one of ``workers`` records are judged in ``processes`` of their own.
    """
    one = partial(_verified, anew=anew)
    count = workers if workers < 2 else min(workers, (len(paths) if anew else _unjudged(paths)) // WORTH_A_PROCESS)
    # Scores of plugins are known in this process only.
    if count < 2 or from_plugins():
        yield from map(one, paths)
        return
    with processes(count) as pool:
        yield from pool.map(one, paths, chunksize=4)


def with_conflicts(records: Sequence[Verified]) -> list[Verified]:
    """The same records, those at odds with others with that fault too."""
    entries = [Entry(each.path, each.record) for each in records if each.record is not None]
    answers = {each.record.record_id: each.answers for each in records if each.record is not None and each.answers}
    between = conflicts(entries, answers)
    return [
        replace(each, faults=(*each.faults, *(line for line in between if line.startswith(f"record '{each.path}'"))))
        for each in records
    ]


def require_verified(root: Path, workers: int = 1) -> list[Entry]:
    """The records of the store at ``root``; what was verified before is not done again.

    Raises ``UserError`` with the first fault.
    """
    judged = list(verified(list(store.find(root)), anew=False, workers=workers))
    faults = [fault for each in with_conflicts(judged) for fault in each.faults]
    if faults:
        more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        raise UserError(f"{faults[0].rstrip('.')}{more}. See: anytime-bench verify {root}")
    return [Entry(each.path, each.record) for each in judged if each.record is not None]


def _verified(path: Path, *, anew: bool) -> Verified:
    record, faults, answers = examine(path, Judgements(), anew=anew)
    return Verified(path, record, tuple(faults), answers)


def _unjudged(paths: Sequence[Path]) -> int:
    judgements = Judgements()
    return sum(judgements.of(path) is None for path in paths)
