"""How long every exit takes, against the task's reference model measured in the same interleaved rounds.

``time_exits`` measures, at batch 1 and at further batch sizes, the *run-through* time of each exit (every answer on the
way given: the interruption curve) and, at batch 1, its *prefix* time (``answer(images, k)``: a deadline known in
advance), beside two copies of the reference giving their full answer. At batch 1 each network is used as often as the
others, and weights move between rounds: so a copy of the reference measures within 1 % of it. See
``engines`` for how a model is run, ``clocks`` for what is read, ``rounds`` for the order, ``placement`` for the moves,
``timing_summary`` for the numbers, ``disturbance`` for what makes them not comparable, and ``timing_processes`` for
measuring in several processes.

Timing never changes answers: every inference takes the next image of the split, the answers given while the clock ran
are kept (``batch<b>_image`` and ``batch<b>_predictions``), and compared with an untimed pass.

Shapes: images ``(N, D, H, W)``, normalised, fp32, on any device. Units: seconds.
Errors: ``ValueError`` for a request that cannot be measured; a model's own errors pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.harness.clocks import CacheFlush, on_device
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.engines import chosen_engine
from anytime_bench.harness.rounds import Effort
from anytime_bench.harness.timing_block import Timing, TimingMeta, TorchSettings
from anytime_bench.harness.timing_session import Session
from anytime_bench.harness.timing_summary import queue_share, summarise
from anytime_bench.harness.torch_settings import in_force, restored_settings, tf32_convolutions, tf32_products
from anytime_bench.methods.contract import AnytimeModel

Progress = Callable[[float, str], None]
Samples = dict[str, NDArray[Any]]

PRECISIONS, CACHES, BESIDE = ("fp32", "bf16"), ("warm", "flushed"), ("threads", "compile")
#: The first batch size, on which boards rank, has this share of the time; the others have the rest, and what it leaves.
HEADLINE_SHARE = 0.7


@dataclass(frozen=True)
class TimingSettings:
    """What to measure and how long; raises ValueError for what is impossible.

    At least ``rounds`` rounds are run, then more until the interval of every ratio is narrower than ``target`` of it or
    ``budget_seconds`` are over; a first batch size that takes ten times its share of them, or a further one three
    times, ends with fewer rounds and is not comparable. All that is spread over ``processes`` processes.

    ``threads`` is fixed while measuring (None: as it is); ``precision`` is "fp32" or "bf16"; ``cache="flushed"``
    overwrites the last-level cache before every inference. ``beside`` names further ways to run the model at batch 1 on
    a CPU: "threads" on as many as it is fastest with, "compile" compiled. ``macs (E,)``, if given, tell what an image
    costs. ``best_threads`` are those an earlier process was fastest on.
    """

    engine: str = "auto"
    batch_sizes: tuple[int, ...] = (1,)
    rounds: int = 30
    budget_seconds: float = 10.0
    target: float = 0.02
    processes: int = 1
    seed: int = 0
    threads: int | None = None
    precision: str = "fp32"
    cache: str = "warm"
    beside: tuple[str, ...] = ()
    macs: tuple[int, ...] = ()
    best_threads: int | None = None

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes is {tuple(self.batch_sizes)}, expected one or more sizes of at least 1")
        if self.rounds < 1 or self.budget_seconds <= 0:
            raise ValueError(f"rounds is {self.rounds} and budget_seconds {self.budget_seconds}, expected both above 0")
        if self.processes < 1:
            raise ValueError(f"processes is {self.processes}, expected at least 1")
        for what, value, choices in (
            ("precision", self.precision, PRECISIONS),
            ("cache", self.cache, CACHES),
            *(("beside", each, BESIDE) for each in self.beside),
        ):
            if value not in choices:
                raise ValueError(f"{what} is {value!r}, expected one of {', '.join(choices)}")


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
    device: torch.device | str,
    settings: TimingSettings | None = None,
    progress: Progress | None = None,
) -> TimedSamples:
    """Time every exit of ``model`` against the full answer of ``reference``, both on ``device`` already, right here.

    ``progress(share, what)`` is called once a round. Neither model is changed.
    """
    device, settings = torch.device(device), settings or TimingSettings()
    engine = chosen_engine(settings.engine, device)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected (N, D, H, W) with at least one image")
    with on_device(device), evaluating(model), evaluating(reference), _threads(settings.threads):
        models = [in_precision(each, settings.precision) for each in (model, reference)]
        images = images.to(device, torch.bfloat16 if settings.precision == "bf16" else torch.float32)
        flush = CacheFlush(device) if settings.cache == "flushed" else None
        session = Session(models[0], models[1], images, device, engine, flush, settings.beside, settings.best_threads)
        before = in_force()
        with restored_settings("a model that was timed"):
            samples, blocks = _blocks(session, settings, progress)
            after = in_force()
            agreement = session.agreement()
    reasons = []
    if agreement < 1:
        reasons.append(f"only {agreement:.2%} of the answers given while timing agree with an untimed pass")
    if after != before:
        changed = [f"{name} to {value}" for name, value in after if value != getattr(before, name)]
        reasons.append(f"a model changed settings of torch while it was timed: {', '.join(changed)}")
    for block in blocks.values():
        block.disturbances += reasons
    return TimedSamples(samples, _meta(session, settings, blocks, agreement, before))


@dataclass
class _Block:
    """How the measurement of one batch size went."""

    stopped_because: str
    disturbances: list[str]
    watch: dict[str, Any]


def _blocks(session: Session, settings: TimingSettings, progress: Progress | None) -> tuple[Samples, dict[str, _Block]]:
    samples: Samples = {}
    blocks: dict[str, _Block] = {}
    count, left = len(settings.batch_sizes), settings.budget_seconds
    for place, size in enumerate(settings.batch_sizes):
        share = HEADLINE_SHARE if place == 0 and count > 1 else 1 / (count - place)
        effort = Effort(settings.rounds, share * left, settings.target, 3.0 if place else 10.0)
        watch = DisturbanceWatch(session.device)
        report = _reporter(progress, place, count, size)
        begun = perf_counter()
        result = session.measure(size, effort, settings.seed + place, report, watch.sample)
        left -= min(perf_counter() - begun, effort.seconds)
        disturbances = watch.finish(queue_share(result.samples, size)) + session.unlike[size]
        blocks[str(size)] = _Block(result.stopped_because, disturbances, watch.report)
        samples |= result.samples | session.answers(size)
    return samples, blocks


def _meta(
    session: Session,
    settings: TimingSettings,
    blocks: dict[str, _Block],
    agreement: float,
    torch_settings: TorchSettings,
) -> TimingMeta:
    on_gpu, graph = session.device.type == "cuda", session.engine_name == "graph"
    return TimingMeta(
        device=str(session.device),
        engine=session.engine_name,
        engine_requested=settings.engine,
        precision=settings.precision,
        tf32=on_gpu and tf32_convolutions(),
        tf32_products=on_gpu and tf32_products(),
        cache=settings.cache,
        settings=torch_settings,
        threads=torch.get_num_threads() if settings.threads is None else settings.threads,
        seed=settings.seed,
        num_exits=session.model.num_exits,
        macs=list(settings.macs),
        batch_sizes=list(settings.batch_sizes),
        target=settings.target,
        inferences=dict.fromkeys(blocks, 1),
        best_threads=session.best_threads,
        clocks={
            "latency": "perf_counter" + (", device synchronised" if on_gpu else ""),
            "device_time": "CUDA events" + (" in one graph" if graph else " on the stream"),
        },
        stop={
            "latency": {"run_through": "real", "prefix": "real"},
            "device_time": {"run_through": "simulated", "prefix": "real"},
        },
        queue_wait_known=session.host.sees_queue,
        stopped_because={size: block.stopped_because for size, block in blocks.items()},
        answers_agree=agreement,
        disturbances={size: block.disturbances for size, block in blocks.items()},
        watch={size: block.watch for size, block in blocks.items()},
        notes=session.notes,
    )


def in_precision(model: AnytimeModel, precision: str) -> AnytimeModel:
    """The model itself, or a bfloat16 copy in which modules with running statistics stay float32, as in training."""
    if precision == "fp32":
        return model
    model = copy.deepcopy(model)
    for module in model.modules():
        if not any(buffer.is_floating_point() for buffer in module.buffers(recurse=False)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def _reporter(progress: Progress | None, place: int, count: int, size: int) -> Callable[[float], None]:
    if progress is None:
        return lambda share: None
    return lambda share: progress((place + share) / count, f"timing, batch {size}")
