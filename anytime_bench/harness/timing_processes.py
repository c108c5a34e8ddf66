"""Timing in several processes, one after the other, as one measurement.

Within a process, rounds cannot see what stays as it is while it lives: where memory lies, how the allocator has cut it,
which code paths libraries have chosen. So a row is timed by ``TimingSettings.processes`` fresh processes, each with an
equal share of the time that is left, each until its own intervals are so narrow that those of all together reach the
target. Where they do not, and time is left, another process follows. To start takes each some seconds, most of them
importing PyTorch; ``TimingProcesses`` starts them side by side, ahead of the measurement, which begins when all wait.

Models travel as pickles; a process first imports the files of their classes and of plugins, which may lie on no path,
and runs the script again that runs here only where their classes stand in it. Where no process can be started or a
model cannot travel, it is timed in this process alone, and the notes say why.

Errors: ``UserError`` where a timing process dies, or raises what it met.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.errors import UserError, describe
from anytime_bench.harness.gpu_state import FAMILY, own_processes
from anytime_bench.harness.timing import Progress, Samples, TimedSamples, TimingSettings, time_exits
from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.timing_summary import unknown
from anytime_bench.harness.torch_settings import restored_settings
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.methods.elsewhere import import_files, script_of, source_files, without_script

#: A process has at least so many rounds, however many processes share them.
LEAST_ROUNDS = 10
#: No more processes than this many times those asked for, and none for less than this share of the time.
MOST, LEAST_SHARE = 2, 0.1
#: What a timing process is called.
NAME = "anytime_bench timing"


@dataclass(frozen=True)
class _Job:
    """What a timing process needs: modules by file, the pickled models, images, and what to measure."""

    sources: dict[str, str]
    payload: bytes
    images: NDArray[Any]
    device: str
    settings: TimingSettings


def is_timing_process() -> bool:
    """Whether this process is one of those that measure for another."""
    return multiprocessing.current_process().name == NAME


class CannotTravel(RuntimeError):
    """Models that no other process can use, or no process to use them."""


def time_in_processes(
    model: AnytimeModel,
    reference: AnytimeModel,
    images: Tensor,
    device: torch.device | str,
    settings: TimingSettings,
    progress: Progress | None = None,
    started: TimingProcesses | None = None,
) -> TimedSamples:
    """As ``time_exits``, in ``settings.processes`` processes of their own, those ``started`` ahead first; with one, in
    this process. The time they take to start is not part of the budget."""
    if settings.processes == 1:
        return time_exits(model, reference, images, device, settings, progress)
    parts: list[TimedSamples] = []
    try:
        with started or TimingProcesses(settings.processes, device) as processes:
            payload = _packed(model, reference)
            if torch.device(device).type == "cuda":
                torch.cuda.empty_cache()  # for those who measure
            sources = source_files(model, reference) | script_of(payload)
            processes.wait()
            begun = perf_counter()
            while len(parts) < settings.processes or _goes_on(parts, settings, perf_counter() - begun):
                own = _settings_of(settings, parts, perf_counter() - begun)
                job = _Job(sources, payload, images.float().cpu().numpy(), str(device), own)
                part_of = None if progress is None else _share(progress, len(parts), settings.processes)
                parts.append(processes.measured(job, part_of))
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
        best_threads=parts[0].meta.best_threads if parts else settings.best_threads,
    )


def _goes_on(parts: Sequence[TimedSamples], settings: TimingSettings, used: float) -> bool:
    """Whether one more process may still bring every batch size to the target."""
    if len(parts) >= MOST * settings.processes or used > (1 - LEAST_SHARE) * settings.budget_seconds:
        return False
    return any(unknown(batch, settings.target) for batch in pooled(parts).summary().batches.values())


def _packed(model: AnytimeModel, reference: AnytimeModel) -> bytes:
    try:
        return pickle.dumps(tuple(copy.deepcopy(each).cpu() for each in (model, reference)))
    except Exception as error:
        raise CannotTravel(f"its model cannot be pickled ({describe(error)})") from error


def _share(progress: Progress, done: int, count: int) -> Progress:
    return lambda share, what: progress(min((done + share) / max(count, done + 1), 1.0), f"{what}, process {done + 1}")


class TimingProcesses:
    """``count`` processes on ``device`` that import the suite side by side and then wait for a job each.

    As a context manager it ends those that wait still. Further ones are started when they are asked for.
    """

    def __init__(self, count: int, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._waiting: list[_Process] = []
        with suppress(CannotTravel):  # said where one is asked for
            for _ in range(count):
                self._waiting.append(_Process(self._device))

    def __enter__(self) -> TimingProcesses:
        return self

    def __exit__(self, *exception: object) -> None:
        while self._waiting:
            self._waiting.pop().end(at_once=True)

    def wait(self) -> None:
        """Return when all have started, so that none of them works beside a measurement."""
        for process in self._waiting:
            process.wait()

    def measured(self, job: _Job, progress: Progress | None) -> TimedSamples:
        """The samples of a process that has measured nothing before."""
        process = self._waiting.pop(0) if self._waiting else _Process(self._device)
        try:
            process.wait()
            samples = process.result(job, progress)
        except BaseException:
            process.end(at_once=True)
            raise
        process.end()
        return samples


class _Process:
    """One timing process and the pipe to it."""

    def __init__(self, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True, name=NAME)
        self._waits = False
        try:
            with _family(device), _deaf_to_ctrl_c(), without_script():
                self._process.start()
        except (OSError, AssertionError, ValueError) as error:  # daemons must not have children
            self._pipe.close()
            raise CannotTravel(f"no process could be started ({describe(error)})") from error
        finally:
            there.close()

    def wait(self) -> None:
        """Return when it waits for a job."""
        if not self._waits:
            self._receive("its process ended before it had begun to measure", CannotTravel)
            self._waits = True

    def result(self, job: _Job, progress: Progress | None) -> TimedSamples:
        """What it measures, while it says how far it is."""
        with suppress(OSError):  # a process that ended at once; the answer says so
            self._pipe.send(job)
        failure: tuple[str, type[Exception]] = ("its process ended before it had begun to measure", CannotTravel)
        while True:
            kind, content = self._receive(*failure)
            if kind == "started":
                failure = ("a timing process died while it measured", UserError)
            elif kind == "progress" and progress is not None:
                progress(*content)
            elif kind == "done":
                return TimedSamples(*content)
            elif kind == "cannot travel":
                raise CannotTravel(content)
            elif kind == "failed":
                raise UserError(f"timing failed in its process: {content}")

    def _receive(self, failure: str, kind: type[Exception]) -> tuple[str, Any]:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise kind(f"{failure} (exit code {self._process.exitcode})") from error

    def end(self, at_once: bool = False) -> None:
        """Return when it is gone."""
        self._pipe.close()
        if not at_once:
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let a process started within not hear Ctrl-C, which its terminal sends it too: whoever started it ends it."""
    resource_tracker.ensure_running()  # with the first process; it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        pipe.send(("waits", None))
        job: _Job = pipe.recv()
        place, images = torch.device(job.device), torch.from_numpy(job.images)
        if place.type == "cuda":
            own_processes(place)  # before anything else of this process touches the device
        try:
            with restored_settings("a plugin"):  # as in the process that asks
                import_files(job.sources)
                model, reference = pickle.loads(job.payload)
        except Exception as error:
            pipe.send(("cannot travel", f"another process cannot use its model ({describe(error)})"))
            return
        pipe.send(("started", None))
        timed = time_exits(
            model.to(place), reference.to(place), images, place, job.settings,
            lambda share, what: pipe.send(("progress", (share, what))),
        )  # fmt: skip
        pipe.send(("done", (timed.samples, timed.meta)))
    except (EOFError, BrokenPipeError):
        return  # whoever asked has gone
    except Exception as error:
        traceback.print_exc()
        pipe.send(("failed", describe(error)))
