"""Timing in several processes, one after the other, as one measurement.

Within a process, rounds cannot see what stays as it is while it lives: where memory lies, how the allocator has cut it,
which code paths libraries have chosen. So a row is timed by ``TimingSettings.processes`` fresh processes, each with an
equal share of the time that is left, each until its own intervals are so narrow that those of all together reach the
target. Where they do not, and time is left, another process follows.

Models travel as pickles; a process first imports the files of their classes and of plugins, which may lie on no path.
Where no process can be started or a model cannot travel, it is timed in this process alone, and the notes say why.

Errors: ``UserError`` where a timing process dies, or raises what it met.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.errors import UserError, describe
from anytime_bench.harness.gpu_state import FAMILY, own_processes
from anytime_bench.harness.rounds import widest_ratio
from anytime_bench.harness.timing import Progress, Samples, TimedSamples, TimingSettings, time_exits
from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.torch_settings import restored_settings
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.methods.elsewhere import import_files, source_files

#: A process has at least so many rounds, however many processes share them.
LEAST_ROUNDS = 10
#: No more processes than this many times those asked for.
MOST = 2


@dataclass(frozen=True)
class _Job:
    """What a timing process needs: modules by file, the pickled models, images, and what to measure."""

    sources: dict[str, str]
    payload: bytes
    images: NDArray[Any]
    device: str
    settings: TimingSettings


class CannotTravel(RuntimeError):
    """Models that no other process can use, or no process to use them."""


def time_in_processes(
    model: AnytimeModel,
    reference: AnytimeModel,
    images: Tensor,
    device: torch.device | str,
    settings: TimingSettings,
    progress: Progress | None = None,
) -> TimedSamples:
    """As ``time_exits``, in ``settings.processes`` processes of their own; with one, in this process."""
    if settings.processes == 1:
        return time_exits(model, reference, images, device, settings, progress)
    parts: list[TimedSamples] = []
    begun = perf_counter()
    try:
        payload, sources = _packed(model, reference), source_files(model, reference)
        while len(parts) < settings.processes or _goes_on(parts, settings, perf_counter() - begun):
            own = _settings_of(settings, parts, perf_counter() - begun)
            job = _Job(sources, payload, images.float().cpu().numpy(), str(device), own)
            part_of = None if progress is None else _share(progress, len(parts), settings.processes)
            parts.append(_measured(job, part_of))
    except CannotTravel as error:
        if parts:
            raise UserError(f"timing process {len(parts) + 1} failed: {error}") from error
        single = time_exits(model, reference, images, device, settings, progress)
        note = f"timed in this process alone: {error}"
        return TimedSamples(single.samples, single.meta.model_copy(update={"notes": [*single.meta.notes, note]}))
    whole = pooled(parts)
    return TimedSamples(whole.samples, whole.meta.model_copy(update={"target": settings.target}))


def pooled(parts: Sequence[TimedSamples]) -> TimedSamples:
    """One measurement of several processes: rounds behind each other, and of which process each is."""
    sizes = parts[0].meta.batch_sizes
    samples: Samples = {
        name: np.concatenate([part.samples[name] for part in parts])
        for name in parts[0].samples
        if all(name in part.samples for part in parts)
    }
    for size in sizes:
        rounds = [len(part.samples[f"batch{size}_latency_run_through"]) for part in parts]
        samples[f"batch{size}_process"] = np.repeat(np.arange(len(parts)), rounds).astype(np.int8)
    return TimedSamples(samples, _pooled_meta([part.meta for part in parts]))


def _pooled_meta(metas: Sequence[TimingMeta]) -> TimingMeta:
    first, keys = metas[0], [str(size) for size in metas[0].batch_sizes]

    def by_process(texts: Mapping[int, str]) -> str:
        return "; ".join(f"process {number + 1}: {text}" for number, text in texts.items())

    return first.model_copy(
        update={
            "processes": len(metas),
            "stopped_because": {
                key: by_process({n: m.stopped_because[key] for n, m in enumerate(metas)}) for key in keys
            },
            "answers_agree": min(meta.answers_agree or 0.0 for meta in metas),
            "disturbances": {
                key: [by_process({n: reason}) for n, meta in enumerate(metas) for reason in meta.disturbances[key]]
                for key in keys
            },
            "watch": {key: _pooled_watch([meta.watch[key] for meta in metas]) for key in keys},
            "notes": list(dict.fromkeys(note for meta in metas for note in meta.notes)),
        }
    )


def _pooled_watch(watches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The seconds of all processes, and of everything else the largest reading."""
    pooled: dict[str, Any] = {}
    for key in watches[0]:
        values = [watch[key] for watch in watches if watch.get(key) is not None] or [None]
        if isinstance(values[0], int | float):
            pooled[key] = sum(values) if key == "seconds" else max(values)
        else:
            pooled[key] = values[-1]
    return pooled


def _settings_of(settings: TimingSettings, parts: Sequence[TimedSamples], used: float) -> TimingSettings:
    """What the next process measures: its share of the rounds and of the time that is left."""
    count = settings.processes
    left = max(settings.budget_seconds - used, 0.1 * settings.budget_seconds / count)
    return dataclasses.replace(
        settings,
        rounds=max(min(LEAST_ROUNDS, settings.rounds), math.ceil(settings.rounds / count)),
        budget_seconds=left / max(count - len(parts), 1),
        # A mean over independent processes is known better than each of them, by the root of their number.
        target=settings.target * math.sqrt(count),
        seed=settings.seed + 1000 * len(parts),
        processes=1,
        inferences=parts[0].meta.inferences if parts else settings.inferences,
        best_threads=parts[0].meta.best_threads if parts else settings.best_threads,
    )


def _goes_on(parts: Sequence[TimedSamples], settings: TimingSettings, used: float) -> bool:
    """Whether one more process may still bring the headline to its target."""
    size, share = settings.batch_sizes[0], settings.budget_seconds / settings.processes
    if len(parts) >= MOST * settings.processes or used + share > settings.budget_seconds:
        return False
    return widest_ratio(pooled(parts).samples, size, settings.seed) >= settings.target


def _packed(model: AnytimeModel, reference: AnytimeModel) -> bytes:
    try:
        return pickle.dumps(tuple(copy.deepcopy(each).cpu() for each in (model, reference)))
    except Exception as error:
        raise CannotTravel(f"its model cannot be pickled ({describe(error)})") from error


def _share(progress: Progress, done: int, count: int) -> Progress:
    return lambda share, what: progress(min((done + share) / max(count, done + 1), 1.0), f"{what}, process {done + 1}")


def _measured(job: _Job, progress: Progress | None) -> TimedSamples:
    """The samples of one fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    with _family(torch.device(job.device)):
        try:
            process.start()
        except (OSError, AssertionError, ValueError) as error:  # daemons must not have children
            raise CannotTravel(f"no process could be started ({describe(error)})") from error
    there.close()
    try:
        with suppress(OSError):  # a process that ended at once; ``_result`` says so
            here.send(job)
        return _result(here, process, progress)
    finally:
        here.close()
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()


def _result(pipe: Connection, process: BaseProcess, progress: Progress | None) -> TimedSamples:
    """What a timing process says until it is done."""
    started = False
    while True:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError) as error:
            process.join(5)
            if started:
                raise UserError(f"a timing process died while it measured (exit code {process.exitcode}).") from error
            # Python refuses to start one where a script has no ``if __name__ == "__main__"``.
            raise CannotTravel("its process ended before it had begun to measure") from error
        if kind == "started":
            started = True
        elif kind == "progress" and progress is not None:
            progress(*content)
        elif kind == "done":
            return TimedSamples(*content)
        elif kind == "cannot travel":
            raise CannotTravel(content)
        elif kind == "failed":
            raise UserError(f"timing failed in its process: {content}")


@contextmanager
def _family(device: torch.device) -> Iterator[None]:
    """Let a process started within know this one on the GPU, which lies idle there and is no stranger."""
    if device.type != "cuda":
        yield
        return
    before = os.environ.get(FAMILY)
    os.environ[FAMILY] = ",".join(str(pid) for pid in sorted(own_processes(device)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[FAMILY]
        else:
            os.environ[FAMILY] = before


def _serve(pipe: Connection) -> None:
    """The timing process: one job, one answer."""
    # A plugin that prints must not write into the output of the command that times it.
    sys.stdout = sys.stderr
    try:
        job: _Job = pipe.recv()
        try:
            # As in the process that asks: what a plugin sets as it is imported is put back.
            with restored_settings("a plugin"):
                import_files(job.sources)
                model, reference = pickle.loads(job.payload)
        except Exception as error:
            pipe.send(("cannot travel", f"another process cannot use its model ({describe(error)})"))
            return
        pipe.send(("started", None))
        images = torch.from_numpy(job.images)
        place = torch.device(job.device)
        timed = time_exits(
            model.to(place), reference.to(place), images, place, job.settings,
            lambda share, what: pipe.send(("progress", (share, what))),
        )  # fmt: skip
        pipe.send(("done", (timed.samples, timed.meta)))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # whoever asked has gone
    except Exception as error:
        traceback.print_exc()
        pipe.send(("failed", describe(error)))
