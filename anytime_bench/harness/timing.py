"""How long every exit takes, against the task's reference model measured in the same interleaved rounds.

``time_exits`` measures, at batch 1 and at further batch sizes, the *run-through* time of each exit (every answer on the
way given: the interruption curve) and, at batch 1, its *prefix* time (``answer(images, k)``: a deadline known in
advance), beside the reference's full answer. See ``engines`` for how a model is run, ``clocks`` for what is read,
``rounds`` for the order, ``summary`` for the numbers and ``disturbance`` for what makes them not comparable.

Timing never changes answers: every inference takes the next image of the split, the answers given while the clock ran
are kept (``batch<b>_image`` and ``batch<b>_predictions``), and compared with an untimed pass.

Shapes: images ``(N, D, H, W)``, normalised, fp32, on any device. Units: seconds, bytes.
Errors: ``ValueError`` for a request that cannot be measured; a model's own errors pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.harness.clocks import CacheFlush, Clock, EventClock, HostClock, on_device
from anytime_bench.harness.cost import evaluating, executions
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.eager import Eager, EngineError
from anytime_bench.harness.engines import chosen_engine, make_engine, matched_engines
from anytime_bench.harness.rounds import Rounds, Task, run_rounds
from anytime_bench.harness.timing_block import Timing, TimingMeta
from anytime_bench.harness.timing_summary import queue_share, summarise
from anytime_bench.methods.contract import AnytimeModel

Progress = Callable[[float, str], None]
Samples = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TimedSamples:
    """Raw ``samples`` (float32 seconds, see ``timing_summary``) and ``meta``, what was asked and what was noticed."""

    samples: Samples
    meta: TimingMeta

    def summary(self) -> Timing:
        """The timing block of a record, derived from samples and meta alone."""
        return summarise(self.samples, self.meta)


def time_exits(
    model: AnytimeModel,
    reference: AnytimeModel,
    images: Tensor,
    *,
    device: torch.device | str,
    engine: str = "auto",
    batch_sizes: Sequence[int] = (1,),
    rounds: int = 30,
    budget_seconds: float = 10.0,
    seed: int = 0,
    threads: int | None = None,
    precision: str = "fp32",
    cache: str = "warm",
    progress: Progress | None = None,
) -> TimedSamples:
    """Time every exit of ``model`` against the full answer of ``reference``, both on ``device`` already.

    At least ``rounds`` rounds are run; ``budget_seconds`` bounds what noise may add: half for the first batch size,
    the rest shared by the others. A first batch size that takes ten times its share, or a further one that takes
    three times, ends with fewer rounds and is not comparable. ``threads`` is fixed while measuring (None: as it is).
    ``cache="flushed"`` overwrites the last-level cache before every inference. ``progress(share, what)`` is called
    once a round. Neither model is changed.
    """
    device = torch.device(device)
    name = chosen_engine(engine, device)
    _check(images, batch_sizes, rounds, budget_seconds, precision, cache)
    with on_device(device), evaluating(model), evaluating(reference), _threads(threads):
        model_, reference_ = _in_precision(model, precision), _in_precision(reference, precision)
        images = images.to(device, torch.bfloat16 if precision == "bf16" else torch.float32)
        session = _Session(model_, reference_, images, device, name, CacheFlush(device) if cache == "flushed" else None)
        samples: Samples = {}
        stopped: dict[str, str] = {}
        disturbances: dict[str, list[str]] = {}
        watched: dict[str, Any] = {}
        for i, size in enumerate(batch_sizes):
            share = 1.0 if len(batch_sizes) == 1 else 0.5 if i == 0 else 0.5 / (len(batch_sizes) - 1)
            report = _reporter(progress, i, len(batch_sizes), size)
            patience = 10.0 if i == 0 else 3.0
            watch = DisturbanceWatch(device)
            result = session.measure(size, rounds, share * budget_seconds, patience, seed + i, report, watch.sample)
            disturbances[str(size)] = watch.finish(queue_share(result.samples, size)) + session.unlike.get(size, [])
            watched[str(size)] = watch.report
            stopped[str(size)] = result.stopped_because
            samples |= result.samples | session.answers(size)
        agreement = session.agreement()
    if agreement < 1:
        for reasons in disturbances.values():
            reasons.append(f"only {agreement:.2%} of the answers given while timing agree with an untimed pass")
    meta = TimingMeta(
        device=str(device),
        engine=session.engine_name,
        engine_requested=engine,
        precision=precision,
        tf32=device.type == "cuda" and tf32_convolutions(),
        cache=cache,
        threads=torch.get_num_threads() if threads is None else threads,
        seed=seed,
        num_exits=model.num_exits,
        batch_sizes=[int(size) for size in batch_sizes],
        clocks={
            "latency": "perf_counter" + (", device synchronised" if device.type == "cuda" else ""),
            "device_time": "CUDA events" + (" in one graph" if session.engine_name == "graph" else " on the stream"),
        },
        stop={
            "latency": {"run_through": "real", "prefix": "real"},
            "device_time": {"run_through": "simulated", "prefix": "real"},
        },
        queue_wait_known=session.host.sees_queue,
        stopped_because=stopped,
        answers_agree=agreement,
        disturbances=disturbances,
        watch=watched,
        notes=session.notes,
    )
    return TimedSamples(samples, meta)


class _Session:
    """Both models, their engines per batch size, the clocks, and the answers given while they ran."""

    def __init__(
        self,
        model: AnytimeModel,
        reference: AnytimeModel,
        images: Tensor,
        device: torch.device,
        engine: str,
        flush: CacheFlush | None,
    ) -> None:
        self.model, self.reference, self.images, self.flush = model, reference, images, flush
        self.engine_name, self.notes = engine, []  # type: str, list[str]
        #: Per batch size, why method and reference were not run as rows of this engine are.
        self.unlike: dict[int, list[str]] = {}
        self.host = HostClock(device)
        self.events = EventClock(device) if device.type == "cuda" else None
        self._next = 0
        self._given: dict[int, list[tuple[NDArray[np.int64], Tensor]]] = {}
        self._recording = False

    def measure(
        self,
        size: int,
        rounds: int,
        budget: float,
        patience: float,
        seed: int,
        progress: Callable[[float], None],
        on_round: Callable[[], None],
    ) -> Rounds:
        batch, prefixes = self._batch(size)[1], range(self.model.num_exits if size == 1 else 0)
        matched = matched_engines(self.engine_name, self.model, [self.reference], batch, prefixes)
        engine, (reference,) = matched.method, matched.references
        self.notes += matched.notes
        self.unlike[size] = matched.reasons
        self.engine_name = engine.name
        others = self._executions(engine.name, batch) if size == 1 else {}
        self._given[size] = []
        tasks = []
        clocks: dict[str, Clock] = {"latency": self.host}
        if self.events is not None:
            clocks["device_time"] = self.events
        last = self.reference.num_exits - 1
        for clock_name, clock in clocks.items():
            run = partial(self._task, engine, size, clock, clock_name)
            tasks.append(Task(partial(run, "run_through", engine.run_through, keep=clock is self.host)))
            whole = partial(self._task, reference, size, clock, clock_name)
            tasks.append(Task(partial(whole, "reference", partial(reference.prefix, last))))
            if size != 1:
                continue
            for k in range(self.model.num_exits):
                tasks.append(Task(partial(run, "prefix", partial(engine.prefix, k)), slot=k))
            for name, other in others.items():
                further = partial(self._task, other, size, clock, clock_name)
                tasks.append(Task(partial(further, f"execution_{name}", other.run_through)))
        return run_rounds(tasks, size, rounds, budget, patience, seed, progress, on_round)

    def _executions(self, engine: str, batch: Tensor) -> dict[str, Eager]:
        """Engines of the further executions that the model offers; one that this engine cannot run is not timed."""
        engines = {}
        for name, stream in executions(self.model).items():
            try:
                # A compiled model is a copy, and an execution is bound to the model itself.
                engines[name] = make_engine("eager" if engine == "compile" else engine, self.model, batch, stream)
            except EngineError as error:
                self.notes.append(f"execution {name} is not timed: {error}")
        return engines

    def _batch(self, size: int) -> tuple[NDArray[np.int64], Tensor]:
        """The next ``size`` images, so that no inference sees what the one before it saw."""
        index = (self._next + np.arange(size)) % len(self.images)
        self._next = int(index[-1]) + 1
        return index, self.images[torch.from_numpy(index).to(self.images.device)]

    def _task(
        self,
        engine: Eager,
        size: int,
        clock: Clock,
        clock_name: str,
        what: str,
        run: Callable[[Clock], tuple[NDArray[np.float64], NDArray[np.float64]]],
        keep: bool = False,
    ) -> dict[str, NDArray[np.float64]]:
        index, images = self._batch(size)
        if self.flush is None:
            # Warm must mean warmed by itself. Method tasks outnumber the reference, whose weights would otherwise be
            # the colder ones: two copies of one model then differed by 1 %.
            run(clock)
        else:
            self.flush()
        engine.load(images)
        seconds, queue = run(clock)
        if keep:
            self._given[size].append((index, torch.stack([logits.argmax(1) for logits in engine.answers]).cpu()))
        name = f"batch{size}_{clock_name}_{what}"
        return {name: seconds, f"batch{size}_queue_{what}": queue} if clock.sees_queue else {name: seconds}

    def answers(self, size: int) -> Samples:
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


def _in_precision(model: AnytimeModel, precision: str) -> AnytimeModel:
    """The model itself, or a bfloat16 copy in which modules with running statistics stay float32, as in training."""
    if precision == "fp32":
        return model
    model = copy.deepcopy(model)
    for module in model.modules():
        if not any(buffer.is_floating_point() for buffer in module.buffers(recurse=False)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def tf32_convolutions() -> bool:
    """Whether a GPU's float32 convolutions are computed in TF32, torch's default."""
    return bool(torch.backends.cudnn.allow_tf32)


def rounding_slack(images: Tensor) -> float:
    """How far, relative to the largest logit, two ways of computing one answer may be apart by rounding alone."""
    if images.dtype == torch.bfloat16:
        return 2e-2
    return 2e-3 if images.is_cuda and tf32_convolutions() else 1e-4


def _check(
    images: Tensor, batch_sizes: Sequence[int], rounds: int, budget_seconds: float, precision: str, cache: str
) -> None:
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected (N, D, H, W) with at least one image")
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes is {tuple(batch_sizes)}, expected one or more sizes of at least 1")
    if rounds < 1 or budget_seconds <= 0:
        raise ValueError(f"rounds is {rounds} and budget_seconds {budget_seconds}, expected both above 0")
    for what, value, choices in (("precision", precision, ("fp32", "bf16")), ("cache", cache, ("warm", "flushed"))):
        if value not in choices:
            raise ValueError(f"{what} is {value!r}, expected one of {', '.join(choices)}")


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def _reporter(progress: Progress | None, i: int, count: int, size: int) -> Callable[[float], None]:
    if progress is None:
        return lambda share: None
    return lambda share: progress((i + share) / count, f"timing, batch {size}")
