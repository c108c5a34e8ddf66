"""The leaderboard: a pure function from a store of records to files, and the check that the files are its image.

``build`` writes ``<out>/<task>/<device>.{md,csv,json,html}``, the figures of each board (SVG and PDF; of a board that
a later one replaced the first alone, as SVG: ``leaderboard figures`` draws the rest, and PNG), a page
``<out>/<NAME>.md`` per entry point ``anytime_bench.pages``, and ``<out>/index.html`` over all; ``check`` rebuilds them
in memory and compares bytes. Nothing but the records decides the bytes: no clock, no host, no file order. Pictures and
pages also depend on the libraries that draw them, whose versions they name; where those differ from the ones here,
``check`` compares the digest of the drawn data, which every such file carries.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from anytime_bench.files import cached_arrays, is_cached, safe_name, write_all, write_atomically
from anytime_bench.leaderboard.assembly import assemble
from anytime_bench.leaderboard.board import Board
from anytime_bench.leaderboard.figures import PAPER, SCREEN, board_figure, figure_names
from anytime_bench.leaderboard.index import difference, index_page
from anytime_bench.leaderboard.page import LIBRARIES, board_page
from anytime_bench.leaderboard.tables import FILES
from anytime_bench.leaderboard.text import BUILD, to_csv, to_json, to_markdown
from anytime_bench.records.consistency import read_entries
from anytime_bench.records.entries import Entry, Group, groups
from anytime_bench.records.scoring import from_plugins
from anytime_bench.records.stamp import code_sha256, read_stamp
from anytime_bench.records.store import find
from anytime_bench.records.verify_all import processes, require_verified
from anytime_bench.registry import installed

PAGES = "anytime_bench.pages"
#: What decides a file's bytes besides the board and the suite's own code.
RENDERERS = (*LIBRARIES, "numpy", "pandas", "scipy")
#: Fewer records than this are read and drawn before a second process has started.
WORTH_PROCESSES = 50
#: Where records lie from the boards' folder in a repository of results.
RECORDS = "../results"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Placed:
    """A board and the path of its files without suffix, relative to the leaderboards' folder; ``others`` share it."""

    stem: Path
    board: Board
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One board to be made; what is read of its records is the records' own business."""

    stem: Path
    group: Group
    others: tuple[str, ...] = ()

    def placed(self) -> Placed:
        return Placed(self.stem, assemble(self.group), self.others)

    def key(self) -> str:
        """What decides the board and its files; a record's name is the hash of its content."""
        group = self.group
        counted = [entry.path.name for entry in group.entries]
        absent = [entry.path.name for entry in group.absent]
        place = [group.task, group.device, group.key, group.conditions]
        parts = [self.stem, *self.others, *place, counted, absent, group.notes]
        return "\0".join([*map(str, parts), str(sorted(from_plugins().items())), code_sha256(), *_versions()])


def jobs(entries: Sequence[Entry]) -> list[Job]:
    """All boards of records. A place's current group has the device's name; earlier ones add what differs."""
    places: dict[tuple[str, str], list[Group]] = {}
    for group in groups(entries):
        places.setdefault((group.task, group.device), []).append(group)
    every = []
    for (task, device), members in places.items():
        names = [safe_name(device)]
        names = [*(f"{safe_name(device)}.{_difference_of(group, members)}" for group in members[:-1]), *names]
        for group, name in zip(members, names, strict=True):
            others = tuple(other for other in names if other != name)
            every.append(Job(Path(safe_name(task)) / name, group, others))
    return every


def boards(results: Path, on_progress: Progress | None = None) -> Iterator[Placed]:
    """The boards of a store, one after the other."""
    every = jobs(read_entries(results))
    for done, job in enumerate(every):
        if on_progress:
            on_progress(f"{job.group.task} on {job.group.device}", done, len(every))
        yield job.placed()
    if on_progress:
        on_progress("done", len(every), len(every))


def render(placed: Placed) -> Iterator[tuple[Path, bytes]]:
    """All files of a board, relative to the leaderboards' folder."""
    stem, board = placed.stem, placed.board
    yield _named(stem, "json"), to_json(board).encode()
    for name, end in FILES.items():
        if name != "pairs" or board.pairs:
            yield _named(stem, end), to_csv(board, name).encode()
    yield _named(stem, "md"), to_markdown(board, stem.name, list(placed.others)).encode()
    replaced = bool(difference(stem, board))
    for name in figure_names(board)[: 1 if replaced else None]:
        for form, drawn in board_figure(board, name, forms=("svg",) if replaced else ("svg", "pdf")):
            yield _named(stem, f"{name}.{form}"), drawn
    yield _named(stem, "html"), board_page(board).encode()


def pages(results: Path, on_progress: Progress | None = None) -> Iterator[tuple[Path, bytes]]:
    """Pages across boards, such as REPRODUCTION.md: each entry point is a function of a store's path and progress that
    returns Markdown by path below the boards' folder; nothing where the store has nothing for it.

    They are written once for equal records, code and libraries. A record's name is the hash of its content.
    """
    for entry, key in _page_keys(results):
        yield from _cached(key, partial(_texts, entry, results, on_progress))


def _page_keys(results: Path) -> Iterator[tuple[EntryPoint, str]]:
    common = [*(path.name for path in find(results)), code_sha256(), *_versions()]
    for entry in sorted(installed(PAGES), key=lambda entry: entry.name):
        yield entry, "\0".join([*common, entry.value, *(code_sha256(folder) for folder in _package(entry.module))])


def _texts(entry: EntryPoint, results: Path, on_progress: Progress | None) -> Iterator[tuple[str, bytes]]:
    for name, text in entry.load()(results, on_progress).items():
        yield name, text.encode()


def files(results: Path, on_progress: Progress | None = None, workers: int = 1) -> Iterator[tuple[Path, bytes]]:
    """Every generated file, relative to the leaderboards' folder, with its bytes.

    With more than one of ``workers`` pages and boards are made in processes of their own, which costs each the time to
    import the suite; a script that asks for it must guard its main part, as ``multiprocessing`` demands. Raises
    ``UserError``, before the first file, where a record does not hold (``verify``).
    """
    with ExitStack() as stack:
        pool = None
        if workers > 1 and sum(1 for _ in find(results)) >= WORTH_PROCESSES:
            pool = stack.enter_context(processes(workers - 1))
        # Pages take longest and read the store themselves, so they are begun before the records are known to hold.
        written = all(is_cached(key) for _, key in _page_keys(results))
        beside = [pool.submit(_pages, results)] if pool and not written else []
        every = jobs(require_verified(results, workers))
        drawn = all(is_cached(job.key()) for job in every)
        made = _shared(every, pool, workers - 1, beside) if pool and not drawn else map(_made, every)
        listed = []
        for done, (job, (board, contents)) in enumerate(zip(every, made, strict=True), start=1):
            if on_progress:
                on_progress(f"{job.group.task} on {job.group.device}", done, len(every))
            yield from contents
            listed.append((job.stem, board))
        texts = beside[0].result() if beside else list(pages(results, on_progress))
        yield from texts
        if listed:
            yield Path("index.html"), index_page(listed, [path.name for path, _ in texts], RECORDS).encode()


Made = tuple[Board, list[tuple[Path, bytes]]]


def _shared(every: Sequence[Job], pool: Executor, count: int, beside: Sequence[Future[Any]]) -> Iterator[Made]:
    """Boards in order, made here and, from the last on, in the ``count`` processes of ``pool``, each as soon as it has
    nothing else to do, such as ``beside``."""
    waiting = deque(enumerate(every))
    elsewhere: dict[int, Future[Made]] = {}
    lock = Lock()

    def send(_: object = None) -> None:
        with lock:
            if not waiting:
                return
            place, job = waiting.pop()
            future = elsewhere[place] = pool.submit(_made, job)
        future.add_done_callback(send)

    for each in beside:
        each.add_done_callback(send)
    for _ in range(count - len(beside)):
        send()
    try:
        while waiting:
            with lock:
                mine = [waiting.popleft()] if waiting else []
            yield from (_made(job) for _, job in mine)
        with lock:
            rest = [elsewhere[place] for place in sorted(elsewhere)]
        yield from (future.result() for future in rest)
    finally:
        waiting.clear()  # so that nothing is sent to a pool that an error has closed


def _made(job: Job) -> Made:
    """A board and its files, assembled and rendered once for equal records, code and libraries."""
    (_, board), *contents = _cached(job.key(), lambda: _rendered(job.placed()))
    return Board.model_validate_json(board), contents


def _rendered(placed: Placed) -> Iterator[tuple[str, bytes]]:
    yield "", placed.board.model_dump_json().encode()
    yield from ((str(path), data) for path, data in render(placed))


def _cached(key: str, make: Callable[[], Iterable[tuple[str, bytes]]]) -> list[tuple[Path, bytes]]:
    """Files in the order of their names, made once for a key."""
    arrays = cached_arrays(key, lambda: {name: np.frombuffer(data, dtype=np.uint8) for name, data in make()})
    return [(Path(name), arrays[name].tobytes()) for name in sorted(arrays)]


def _versions() -> list[str]:
    return [f"{name} {version(name)}" for name in RENDERERS]


def _package(module: str) -> list[Path]:
    """The folders of the package that ``module`` belongs to."""
    spec = find_spec(module.partition(".")[0])
    return list(map(Path, spec.submodule_search_locations or ())) if spec else []


def _pages(results: Path) -> list[tuple[Path, bytes]]:
    return list(pages(results))


def build(results: Path, out: Path, on_progress: Progress | None = None, workers: int = 1) -> list[Path]:
    """Write all leaderboards below ``out`` and remove generated files that no record gives any more.

    Raises ``UserError``, before anything is written, where a record does not hold (``verify``).
    """
    contents = {out / name: data for name, data in files(results, on_progress, workers)}
    # All or nothing: a disk that is full keeps the old boards whole.
    write_all({path: data for path, data in contents.items() if not path.is_file() or path.read_bytes() != data})
    for path in _stale(out, set(contents)):
        path.unlink()
    return list(contents)


def draw_figures(results: Path, out: Path, style: str, on_progress: Progress | None = None) -> list[Path]:
    """Draw all figures of all boards below ``out``: for a ``paper`` one and two columns wide, or for the ``screen``."""
    sizes = PAPER if style == "paper" else {"": SCREEN}
    written = []
    for placed in boards(results, on_progress):
        for name in figure_names(placed.board):
            for columns, size in sizes.items():
                for form, drawn in board_figure(placed.board, name, size):
                    written.append(out / _named(placed.stem, ".".join(part for part in (name, columns, form) if part)))
                    write_atomically(written[-1], drawn)
    return written


@dataclass(frozen=True)
class Finding:
    """A file that differs from what the records give; ``fault`` is False where only a drawing library differs."""

    path: Path
    problem: str
    fault: bool = True

    def __str__(self) -> str:
        fix = f" Run: {BUILD}" if self.fault else ""
        return f"{self.path}: {self.problem}.{fix}"


def check(results: Path, out: Path, on_progress: Progress | None = None, workers: int = 1) -> list[Finding]:
    """Rebuild in memory and compare; no faults means that ``out`` is exactly what ``results`` gives, and that holds."""
    findings = []
    expected = set()
    for name, data in files(results, on_progress, workers):
        path = out / name
        expected.add(path)
        if not path.is_file():
            findings.append(Finding(path, "is missing"))
        elif (stored := path.read_bytes()) != data:
            findings.append(_difference(path, stored, data))
    findings += [Finding(path, "has no source record") for path in _stale(out, expected)]
    return findings


def _difference(path: Path, stored: bytes, rebuilt: bytes) -> Finding:
    there, here = read_stamp(stored), read_stamp(rebuilt)
    if there and here and there != here and there[0] == here[0]:
        return Finding(path, f"was drawn by {there[1]}, here is {here[1]}; its data agree", fault=False)
    at = next(
        (i for i, (a, b) in enumerate(zip(stored, rebuilt, strict=False)) if a != b), min(len(stored), len(rebuilt))
    )
    line = rebuilt[:at].count(b"\n") + 1
    where = f"line {line}" if path.suffix not in (".png", ".pdf") else f"byte {at}"
    return Finding(path, f"differs from what the records give, first at {where}")


def _stale(out: Path, expected: set[Path]) -> list[Path]:
    return sorted(
        path
        for path in [*out.glob("*/*"), *out.glob("*.*")]
        if path.suffix in (".md", ".csv", ".json", ".html", ".png", ".svg", ".pdf")
        and path not in expected
        and path.name != "README.md"
    )


def _named(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


def _difference_of(group: Group, members: list[Group]) -> str:
    """The parts of a group's key and conditions in which the groups of one place differ."""
    parts = []
    keys = [member.key for member in members]
    if len({key.protocol_version for key in keys}) > 1:
        parts.append(f"protocol-{group.key.protocol_version}")
    if len({key.task_version for key in keys}) > 1:
        parts.append(f"task-{group.key.task_version}")
    parts += group.conditions.unlike([each.conditions for each in members if group.differs_in_timing_alone(each)])
    digest = hashlib.sha256("\0".join(vars(group.key).values()).encode()).hexdigest()[:8]
    same = [
        member.key
        for member in members
        if (member.key.protocol_version, member.key.task_version, member.conditions)
        == (group.key.protocol_version, group.key.task_version, group.conditions)
    ]
    if len(same) > 1:
        parts.append(digest)
    return safe_name("-".join(parts))
