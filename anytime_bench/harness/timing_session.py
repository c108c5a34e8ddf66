"""One timing session: a method, two copies of its reference, their engines per batch size, and all answers given.

Everything that is timed in one round is a *task*: the method's run-through, each of its exits alone, each copy of the
reference, and further ways to run the method. Each runs once untimed before it is timed. Where that is an exit alone,
its whole network runs too, three times in two turns: so, all layers taken together, a network of exits runs as often as
each copy of the reference, and is as warm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.harness.clocks import CacheFlush, Clock, EventClock, HostClock
from anytime_bench.harness.cores import cores_at_hand
from anytime_bench.harness.cost import executions
from anytime_bench.harness.eager import Eager, EngineError, Times
from anytime_bench.harness.engines import make_engine, matched_engines
from anytime_bench.harness.placement import moved
from anytime_bench.harness.rounds import Effort, Group, Rounds, Task, run_rounds
from anytime_bench.harness.torch_settings import tf32_convolutions
from anytime_bench.methods.contract import AnytimeModel


@dataclass(frozen=True)
class _Timed:
    """What a task times: ``what`` names its array, ``engine`` takes the images, ``run`` does the work.

    ``whole`` runs the network to its last exit, untimed, where ``run`` does not.
    """

    what: str
    engine: Eager
    run: Callable[[Clock], Times]
    threads: int | None = None
    slot: int | None = None
    whole: Callable[[Clock], Times] | None = None


class Session:
    """Both models on one device, their clocks, and the answers given while these ran.

    ``beside`` names further ways to run the model at batch 1 (see ``TimingSettings``). ``notes`` tell what was not
    measured as asked, ``unlike`` per batch size why method and reference were not run as other rows are.
    """

    def __init__(
        self,
        model: AnytimeModel,
        reference: AnytimeModel,
        images: Tensor,
        device: torch.device,
        engine: str,
        flush: CacheFlush | None,
        beside: Sequence[str],
        best_threads: int | None,
    ) -> None:
        self.model, self.references = model, [reference, copy.deepcopy(reference)]
        self.images, self.device, self.flush, self.beside = images, device, flush, beside
        self.engine_name, self.best_threads = engine, best_threads
        self.notes: list[str] = []
        self.unlike: dict[int, list[str]] = {}
        self.host = HostClock(device)
        self.events = EventClock(device) if device.type == "cuda" else None
        self._threads = torch.get_num_threads()
        self._next = self._round = 0
        self._whole_first = False
        self._rng = np.random.default_rng(0)
        self._gaps: list[Tensor] = []
        self._given: dict[int, list[tuple[NDArray[np.int64], Tensor]]] = {}

    def measure(
        self, size: int, effort: Effort, seed: int, progress: Callable[[float], None], on_round: Callable[[], None]
    ) -> Rounds:
        """Rounds at batch ``size``."""
        prefixes = range(self.model.num_exits if size == 1 else 0)
        batch = self._batch(size)[1]
        matched = matched_engines(self.engine_name, self.model, self.references, batch, prefixes)
        self.engine_name, self.unlike[size] = matched.name, matched.reasons
        self.notes += matched.notes
        self._given[size] = []
        whole = partial(matched.method.prefix, prefixes[-1]) if prefixes else None
        timed = [_Timed("run_through", matched.method, matched.method.run_through)]
        for k in prefixes:
            besides = whole if k < prefixes[-1] else None
            timed.append(_Timed("prefix", matched.method, partial(matched.method.prefix, k), slot=k, whole=besides))
        further = [*self._executions(matched.name, batch), *self._beside(matched.method, batch)] if size == 1 else []
        clocks: dict[str, Clock] = {"latency": self.host}
        if self.events is not None:
            clocks["device_time"] = self.events
        groups = []
        for name, clock in clocks.items():
            tasks = [Task(partial(self._run, size, name, clock, each), each.slot) for each in [*timed, *further]]
            copies = [partial(self._run_reference, size, name, clock, matched.references, role) for role in (0, 1)]
            groups.append(Group(tasks, copies))
        return run_rounds(groups, size, effort, seed, progress, partial(self._after_round, on_round))

    def _after_round(self, on_round: Callable[[], None]) -> None:
        self._round += 1
        if self.device.type == "cpu" and self.engine_name == "eager":
            self._gaps = moved([self.model, *self.references], self._rng)
        on_round()

    def _executions(self, engine: str, batch: Tensor) -> Iterator[_Timed]:
        """Further executions that the model offers; one that this engine cannot run is not timed."""
        for name, stream in executions(self.model).items():
            try:
                # A compiled model is a copy, and an execution is bound to the model itself.
                made = make_engine("eager" if engine == "compile" else engine, self.model, batch, stream)
            except EngineError as error:
                self.notes.append(f"execution {name} is not timed: {error}")
                continue
            yield _Timed(f"execution_{name}", made, made.run_through)

    def _beside(self, engine: Eager, batch: Tensor) -> Iterator[_Timed]:
        """Further ways to run a model on a CPU: on more threads, and compiled."""
        if self.device.type != "cpu":
            return
        if "threads" in self.beside:
            self.best_threads = self.best_threads or self._fastest_threads(engine)
            if self.best_threads != self._threads:
                yield _Timed(f"execution_threads_{self.best_threads}", engine, engine.run_through, self.best_threads)
        if "compile" in self.beside and engine.name != "compile":
            try:
                model, reference = (make_engine("compile", each, batch) for each in (self.model, self.references[0]))
            except EngineError as error:
                self.notes.append(f"the compiled engine is not timed beside: {error}")
                return
            yield _Timed("execution_compile", model, model.run_through)
            yield _Timed("reference_compile", reference, partial(reference.prefix, reference.model.num_exits - 1))

    def _fastest_threads(self, engine: Eager) -> int:
        """The number of intra-op threads, 1, 2, 4, ... up to the cores, with which a run-through is fastest."""
        cores = cores_at_hand()
        fastest = {}
        for threads in sorted({2**power for power in range(cores.bit_length())} | {cores, self._threads}):
            torch.set_num_threads(threads)
            times = [float(engine.run_through(self.host)[0][-1]) for _ in range(7)]
            fastest[threads] = min(times[2:])
        torch.set_num_threads(self._threads)
        return min(fastest, key=lambda threads: fastest[threads])

    def _run_reference(
        self, size: int, clock_name: str, clock: Clock, engines: Sequence[Eager], role: int
    ) -> dict[str, NDArray[np.float64]]:
        """One copy of the reference; the copies change places from round to round."""
        engine = engines[(role + self._round) % 2]
        full = partial(engine.prefix, engine.model.num_exits - 1)
        timed = _Timed(("reference", "twin")[role], engine, full)
        return self._run(size, clock_name, clock, timed)

    def _run(self, size: int, clock_name: str, clock: Clock, timed: _Timed) -> dict[str, NDArray[np.float64]]:
        index, images = self._batch(size)
        if timed.threads is not None:
            torch.set_num_threads(timed.threads)
        if self.flush is None:
            # Warm must mean warmed by itself: two copies of one model differed by 1 % without. And as often as the
            # others: where a neighbour shares the cache, a network that ran whole half as often was 3 % slower.
            if timed.whole is not None:
                self._whole_first = not self._whole_first
                if self._whole_first:
                    timed.whole(clock)
            timed.run(clock)
        else:
            self.flush()
        timed.engine.load(images)
        seconds, queue = timed.run(clock)
        if timed.what == "run_through" and clock is self.host:
            answers = torch.stack([logits.argmax(1) for logits in timed.engine.answers]).cpu()
            self._given[size].append((index, answers))
        if self.flush is None and timed.whole is not None:
            timed.whole(clock)
        if timed.threads is not None:
            torch.set_num_threads(self._threads)
        name = f"batch{size}_{clock_name}_{timed.what}"
        return {name: seconds, f"batch{size}_queue_{timed.what}": queue} if clock.sees_queue else {name: seconds}

    def _batch(self, size: int) -> tuple[NDArray[np.int64], Tensor]:
        """The next ``size`` images, so that no inference sees what the one before it saw."""
        index = (self._next + np.arange(size)) % len(self.images)
        self._next = int(index[-1]) + 1
        return index, self.images[torch.from_numpy(index).to(self.images.device)]

    def answers(self, size: int) -> dict[str, NDArray[Any]]:
        """``batch<b>_image (M, b)`` and ``batch<b>_predictions (M, E, b)`` of M run-throughs, warm-up included."""
        index, predictions = zip(*self._given[size], strict=True)
        return {
            f"batch{size}_image": np.array(index, dtype=np.int32),
            f"batch{size}_predictions": torch.stack(predictions).numpy().astype(np.int16),
        }

    def agreement(self) -> float:
        """Share of the answers given while timing that an untimed pass in one batch repeats; rounding ties count."""
        used = sorted({int(i) for given in self._given.values() for index, _ in given for i in index.tolist()})
        rows = {image: row for row, image in enumerate(used)}
        parts = [torch.stack(list(self.model.stream(self.images[used[i : i + 256]]))) for i in range(0, len(used), 256)]
        logits = torch.cat(parts, dim=1).float().cpu()  # (E, images used, C)
        # Batched kernels round differently: an answer within this of the best one is the same answer.
        slack = rounding_slack(self.images) * logits.abs().amax(2).clamp(min=1e-6)
        same = total = 0
        for given in self._given.values():
            for index, predictions in given:
                at = [rows[int(i)] for i in index]
                chosen = logits[:, at].gather(2, predictions[..., None])[..., 0]
                same += int((chosen >= logits[:, at].amax(2) - slack[:, at]).sum())
                total += predictions.numel()
        return same / total


def rounding_slack(images: Tensor) -> float:
    """How far, relative to the largest logit, two ways of computing one answer may be apart by rounding alone."""
    if images.dtype == torch.bfloat16:
        return 2e-2
    return 2e-3 if images.is_cuda and tf32_convolutions() else 1e-4
