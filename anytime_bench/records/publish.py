"""From ``runs/`` to ``results/``: verified records are copied, never moved or changed, and git is told by the user.

What is stored is what was verified: the record, its trace, and the sources of the plugins it came from, under
``<results>/plugins/<SHA-256>/`` where records of one plugin share them. One publisher at a time writes into a store.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anytime_bench.errors import UserError, make_room
from anytime_bench.files import write_all
from anytime_bench.methods.sources import plugin_sources, sources_sha256
from anytime_bench.records import store
from anytime_bench.records.consistency import ANSWERS, answers_sha256, conflicts
from anytime_bench.records.entries import Entry
from anytime_bench.records.record import Record, content_hash
from anytime_bench.records.verify_all import Verified, verified, with_conflicts
from anytime_bench.registry import Origin, Registry, tasks
from anytime_bench.scores.catalogue import SCORES
from anytime_bench.scores.stopping_rules import RULES

PLUGINS = "plugins"


@dataclass(frozen=True)
class Published:
    """Files written, records that were there already, and the faults for which nothing was written."""

    files: tuple[Path, ...] = ()
    present: tuple[Path, ...] = ()
    faults: tuple[str, ...] = ()


def publish(paths: Sequence[Path], results: Path) -> Published:
    """Copy each record and its ``.npz`` below ``results`` if all of them hold, else nothing at all.

    Raises ``UserError`` where a file cannot be written.
    """
    new = list(verified(paths))
    faults = [fault for each in with_conflicts(new) for fault in each.faults]
    if faults:
        return Published(faults=tuple(faults))
    existed = results.is_dir()
    try:
        with _alone(results):
            return _publish(new, results)
    except OSError as error:
        raise UserError(
            f"cannot write '{error.filename or results}': {error.strerror or error}. {make_room(error)} and "
            "publish again; nothing was published."
        ) from error
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                results.rmdir()


def _publish(new: Sequence[Verified], results: Path) -> Published:
    known = [_known(path) for path in _neighbours(new, results)]
    ids = {each.record.record_id for each in known if each.record is not None}
    fresh = [each for each in new if each.record is not None and each.record.record_id not in ids]
    entries = [Entry(each.path, each.record) for each in (*known, *fresh) if each.record is not None]
    answers = {each.record.record_id: each.answers for each in (*known, *fresh) if each.record and each.answers}
    faults = conflicts(entries, answers)
    contents: dict[Path, bytes] = {}
    for each in fresh:
        assert each.record is not None
        try:
            contents |= _files_of(each.path, each.record, results)
        except UserError as error:
            faults.append(str(error))
    if faults:
        return Published(faults=tuple(faults))
    # Traces first, so that a reader of the store who sees a record finds its trace.
    ordered = dict(sorted(contents.items(), key=lambda item: item[0].suffix == ".json"))
    write_all({path: data for path, data in ordered.items() if not path.is_file()})
    present = tuple(each.path for each in new if each.record is not None and each.record.record_id in ids)
    return Published(tuple(contents), present)


def _neighbours(new: Sequence[Verified], results: Path) -> list[Path]:
    """The records of ``results`` that a new one could be in conflict with: those of its method with its seed, the one
    that it corrects, and any of its task whose exits are as accurate, as those of a copy are."""
    records = [each.record for each in new if each.record is not None]
    entries = [Entry(each.path, each.record) for each in new if each.record is not None]
    folders = {store.record_folder(results, record) for record in records}
    tasks = {folder.parents[1] for folder in folders}
    accuracies = {tuple(entry.accuracy.value for entry in record.exits) for record in records if record.exits}
    seeds, corrected = {entry.seed for entry in entries}, {record.supersedes for record in records}

    def near(path: Path) -> bool:
        if path.parents[2] not in tasks:
            return False
        it = store.stated(path)
        mine = path.parent in folders and (it.seed in seeds or it.record_id in corrected)
        return mine or it.accuracies in accuracies

    return [path for path in store.find(results) if near(path)]


def _known(path: Path) -> Verified:
    """A published record as it is; whether it holds is asked of the whole store by ``verify``, not of a publisher."""
    record = store.load(path)
    answers = ""
    if "trace" in record.artifacts:
        names = [f"{split}_{name}" for split in ("val", "test") for name in ANSWERS]
        answers = answers_sha256(store.load_arrays(path, record, names))
    return Verified(path, record, answers=answers)


def _files_of(path: Path, record: Record, results: Path) -> dict[Path, bytes]:
    """What belongs to a record below ``results``. Raises ``UserError`` for a file that is not the verified one."""
    folder, files = store.record_folder(results, record), {}
    if "trace" in record.artifacts:
        data = path.with_suffix(".npz").read_bytes()
        if hashlib.sha256(data).hexdigest() != record.artifacts["trace"].sha256:
            raise UserError(f"record '{path}': its trace changed while it was published")
        files[folder / f"{path.stem}.npz"] = data
    content = json.loads(path.read_bytes())
    if content_hash(content) != record.record_id:
        raise UserError(f"record '{path}' changed while it was published")
    files |= plugin_files(record, results)
    files[folder / path.name] = store.record_bytes(content)
    return files


def plugin_files(record: Record, results: Path) -> dict[Path, bytes]:
    """The sources of the plugins behind a record under their place in ``results``, empty where all is installed.

    The method's file is looked for where the record says it lay, and where a loaded one (``--plugin``) lies; those of
    the task and of added scores and rules among the loaded ones. Raises ``UserError`` where the method's is not there
    with the hash that the record names.
    """
    stated = record.method.origin
    files: dict[Path, bytes] = {}
    method = Origin(record.method.name, file=stated.get("file", ""), sha256=stated.get("sha256", ""))
    for origin in (method, *_loaded_with(record)):
        folder = results / PLUGINS / origin.sha256
        if not origin.sha256 or folder.is_dir():
            continue
        loaded = [each.file for registry in Registry.all.values() for each in registry.added().values()
                  if each.sha256 == origin.sha256]  # fmt: skip
        for candidate in map(Path, [*loaded, origin.file]):
            if candidate.is_file() and sources_sha256(sources := plugin_sources(candidate)) == origin.sha256:
                files |= {folder / name: data for name, data in _by_place(candidate, sources).items()}
                break
        else:
            raise UserError(
                f"record '{record.record_id[:12]}' comes from the plugin '{origin.file}', which is not there or was "
                "edited since; give the file it was made with by --plugin, so that its sources lie beside the "
                "record"
            )
    return files


def _loaded_with(record: Record) -> Iterator[Origin]:
    """The plugin files loaded here that gave the record's task, and the very scores and rules that were added to it."""
    task = tasks.added().get(record.task.name.partition(":")[0])
    if task is not None:
        yield task
    for what, added in record.added.items():
        kind, _, name = what.partition(" ")
        origin = (SCORES if kind == "score" else RULES).added().get(name)
        if origin is not None and origin.sha256 and f"(sha256 {origin.sha256[:12]})" in added.origin:
            yield origin


def _by_place(plugin: Path, sources: Mapping[str, Path]) -> dict[Path, bytes]:
    """The plugin's files with the names under which its imports find each other."""
    files = {}
    for module, path in sources.items():
        parts = module.split(".")
        place = Path(*parts, "__init__.py") if path.name == "__init__.py" else Path(*parts).with_suffix(".py")
        files[Path(plugin.name) if module == "__main__" else place] = path.read_bytes()
    return files


@contextlib.contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Hold the store's folder against other publishers; the kernel lets go of it whatever becomes of this process."""
    results.mkdir(parents=True, exist_ok=True)
    folder = os.open(results, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
