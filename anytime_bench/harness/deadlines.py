"""Interrupt a model for real: many requests with deadlines, served in three ways, and what was delivered by then.

The deadlines of a *session* are drawn beforehand, as multiples of the horizon H, the reference model's full answer as
it takes here and now, between requests: a reference that answers again and again finds its weights in the caches and
its memory at hand, and is a fifth to a third faster than one that is asked after others. So a short session is
rehearsed, and H is the median of the reference's answers in that rehearsal. An H of ``SHORT_HORIZON`` and above hardly
knows the difference and is measured in a row. Deadlines are drawn as

``uniform``
    on [0, H]: the mean of the delivered accuracy is the delivered AUC.
``log_uniform``
    uniform on the scale of the ALC, log(1 + b/t0) with t0 = H/20: early deadlines weigh more.
``jitter``
    a replayed list around H/2: given, or drawn as a random walk, because what else runs on a machine changes slowly.

Images are drawn at random. Every draw is served in every mode of ``Interruptible`` (ask, run_ahead, known), in blocks
of one mode whose order is random; each block begins with an untimed answer, so that no mode pays for the thread pools
of another, and *known* measures its exits once more. Between blocks the reference and the uninterrupted model are
timed, so that H and the exits are those of the same minutes. When time runs out the session ends after a whole block:
what was served is a random part of the draws.

Python's thread switch interval (5 ms) plays no part in *ask* and *known*, which run in the caller's thread alone. In
*run_ahead* the caller sleeps until its deadline while a worker computes; it gets the interpreter back as soon as the
worker enters an operator, each of which gives the interpreter up, and the session's switch interval is set to
``SWITCH_SECONDS`` for the stretches of pure Python between two operators. The setting before is restored.

Shapes: images ``(N, D, H, W)``, normalised, on the model's device. Units: seconds.
Errors: ``UserError`` for settings that cannot be served and for a model that does not let go; a model's errors pass.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.harness.clocks import answer_seconds, exit_seconds
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.deadline_summary import JITTER, LOG_UNIFORM, SHORT_HORIZON, UNIFORM, DeadlineMeta
from anytime_bench.harness.disturbance import DisturbanceWatch
from anytime_bench.harness.interruptible import MODES, Interruptible
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.scores.curve import ALC_ORIGIN
from anytime_bench.training.data import Normalised

Floats = NDArray[np.float64]
Progress = Callable[[float, str], None]

#: Longest stretch of pure Python for which a thread keeps the interpreter while a session runs.
SWITCH_SECONDS = 1e-4
#: Draws served in one mode before the next takes over.
BLOCK = 20
#: Answers of the reference in a row from which H is first taken, and seconds that they last at least.
HORIZON_RUNS, HORIZON_SECONDS = 20, 0.5
#: Draws of a rehearsal, and how much of a session's time it may take on top.
REHEARSED, REHEARSAL_SHARE = 200, 0.1
#: Runs by which every mode learns how long the exits take.
ROUNDS = 20
#: Jitter: mean deadline as a share of H, its scatter, and how much of it the next deadline inherits.
JITTER_CENTRE, JITTER_SCATTER, JITTER_MEMORY = 0.5, 0.25, 0.9


@dataclass(frozen=True)
class DeadlineSettings:
    """``uniform`` draws of the first kind and ``others`` of each further kind, per mode.

    ``jitter`` are deadlines in multiples of H to be replayed in this order, again from the first where they run out.
    ``seconds`` bounds the session, ``limit`` any single run of the model. Deadlines and images follow from ``seed``;
    None is that of the model's training where it is known, so that no two seeds of a row are tried on the same draw.
    """

    uniform: int = 600
    others: int = 200
    jitter: tuple[float, ...] = ()
    seconds: float = 240.0
    limit: float = 60.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.uniform < 1 or self.others < 0:
            raise UserError(f"{self.uniform} and {self.others} deadlines: expected at least 1, and none below 0.")
        if not self.seconds > 0:
            raise UserError(f"a session of {self.seconds:g} s: expected more than 0.")
        if any(not np.isfinite(each) or each < 0 for each in self.jitter):
            raise UserError("a replayed deadline is negative or no number; expected multiples of the horizon.")


@dataclass(frozen=True)
class DeadlineSession:
    """Raw ``samples`` (see ``deadline_summary``) and ``meta``, what was asked and what was noticed."""

    samples: dict[str, NDArray[Any]]
    meta: DeadlineMeta


def draw_deadlines(settings: DeadlineSettings) -> tuple[NDArray[np.uint8], Floats]:
    """Kinds ``(M,)`` and deadlines ``(M,)`` in multiples of H, in random order; jitter keeps its own order."""
    rng = np.random.default_rng([settings.seed or 0, 0xDEAD])
    uniform = rng.uniform(0, 1, settings.uniform)
    scale = np.log1p(1 / ALC_ORIGIN)
    early = ALC_ORIGIN * np.expm1(rng.uniform(0, 1, settings.others) * scale)
    replayed, count = np.asarray(settings.jitter, dtype=np.float64), settings.others
    walk = np.resize(replayed, count) if len(replayed) else _random_walk(rng, count)
    kinds = np.repeat(np.array([UNIFORM, LOG_UNIFORM, JITTER], np.uint8), [len(uniform), len(early), len(walk)])
    order = rng.permutation(len(kinds))
    kinds = kinds[order]
    values = np.empty(len(kinds))
    for kind, drawn in ((UNIFORM, uniform), (LOG_UNIFORM, early), (JITTER, walk)):
        values[kinds == kind] = drawn
    return kinds, values


def serve_deadlines(
    model: AnytimeModel,
    reference: AnytimeModel,
    images: Tensor | Normalised,
    settings: DeadlineSettings | None = None,
    progress: Progress | None = None,
) -> DeadlineSession:
    """Serve every draw in every mode; see the module's docstring. ``progress(share, what)`` once a block."""
    settings = settings or DeadlineSettings()
    kinds, relative = draw_deadlines(settings)
    chosen = np.random.default_rng([settings.seed or 0, 0x1A6E]).integers(0, len(images), len(kinds))
    with evaluating(model), evaluating(reference), _switching(SWITCH_SECONDS), contextlib.ExitStack() as stack:
        example = images[:1]
        horizon = measure_horizon(reference, example)
        servers = [
            stack.enter_context(Interruptible(model, example, mode, rounds=ROUNDS, limit=settings.limit))
            for mode in MODES
        ]
        if horizon < SHORT_HORIZON:
            draw = np.random.default_rng([settings.seed or 0, 0x8EA8])
            shares, shown = draw.uniform(0, 1, REHEARSED), draw.integers(0, len(images), REHEARSED)
            rehearsal = _Session(model, reference, servers, images, shown, shares * horizon)
            rehearsal.serve(REHEARSAL_SHARE * settings.seconds, draw, limit=settings.limit)
            horizon = float(np.median(rehearsal.reference_seconds))
        watch = DisturbanceWatch(images.device)
        session = _Session(model, reference, servers, images, chosen, relative * horizon)
        order = np.random.default_rng([settings.seed or 0, 0xB10C])
        served = session.serve(settings.seconds, order, limit=settings.limit, progress=progress)
        reasons = watch.finish()
    notes = []
    if served < len(kinds):
        notes.append(f"ended after {served} of {len(kinds)} deadlines, when {settings.seconds:g} s were over")
    samples: dict[str, NDArray[Any]] = {
        "horizon": np.array(horizon),
        "kind": kinds[:served],
        "image": chosen[:served].astype(np.min_scalar_type(len(images))),
        "deadline": (relative * horizon)[:served].astype(np.float32),
        **{name: table[:, :served] for name, table in session.results.items()},
        "reference": np.array(session.reference_seconds, dtype=np.float32),
        "run_through": np.array(session.exit_seconds, dtype=np.float32),
    }
    meta = DeadlineMeta(
        device=str(images.device),
        threads=torch.get_num_threads(),
        seed=settings.seed or 0,
        jitter="replayed" if settings.jitter else "random walk",
        reasons=reasons,
        notes=notes,
    )
    return DeadlineSession(samples, meta)


class _Session:
    """One model served in all modes; ``results`` are per mode and draw, the others per pause between blocks."""

    def __init__(
        self,
        model: AnytimeModel,
        reference: AnytimeModel,
        servers: Sequence[Interruptible],
        images: Tensor | Normalised,
        chosen: NDArray[np.int64],
        deadlines: Floats,
    ) -> None:
        self.model, self.reference, self.servers = model, reference, servers
        self.images, self.chosen, self.deadlines = images, chosen, deadlines
        shape = (len(servers), len(deadlines))
        self.results: dict[str, NDArray[Any]] = {
            "exit": np.full(shape, -1, dtype=np.int8 if model.num_exits < 128 else np.int16),
            "prediction": np.zeros(shape, dtype=np.uint16),
            "late": np.zeros(shape, dtype=np.float16),
            "release": np.zeros(shape, dtype=np.float16),
        }
        self.reference_seconds: list[float] = []
        self.exit_seconds: list[list[float]] = []

    def serve(
        self, seconds: float, order: np.random.Generator, *, limit: float, progress: Progress | None = None
    ) -> int:
        """Serve block after block in modes ordered by ``order``; returns how many draws were served in every mode."""
        until = perf_counter() + seconds
        for start in range(0, len(self.deadlines), BLOCK):
            self._time_uninterrupted(start)
            stop = min(start + BLOCK, len(self.deadlines))
            for row in order.permutation(len(self.servers)):
                server = self.servers[row]
                server.remeasure()
                server.answer(self.images[:1], limit)
                for draw in range(start, stop):
                    self._serve_one(int(row), server, draw)
            if progress is not None:
                progress(stop / len(self.deadlines), "deadlines")
            if perf_counter() > until:
                return stop
        return len(self.deadlines)

    def _serve_one(self, row: int, server: Interruptible, draw: int) -> None:
        image = int(self.chosen[draw])
        answer = server.answer(self.images[image : image + 1], float(self.deadlines[draw]))
        release = server.release_time()
        results = self.results
        results["late"][row, draw] = answer.late_by
        results["release"][row, draw] = release
        if answer.exit is not None and answer.logits is not None:
            results["exit"][row, draw] = answer.exit
            results["prediction"][row, draw] = int(answer.logits[0].argmax())

    def _time_uninterrupted(self, draw: int) -> None:
        """One full answer of the reference and one run through all exits of the model, each after an untimed one."""
        image = self.images[int(self.chosen[draw])][None]
        self.reference_seconds.append([answer_seconds(self.reference, image) for _ in range(2)][-1])
        self.exit_seconds.append([exit_seconds(self.model, image) for _ in range(2)][-1])


def measure_horizon(reference: AnytimeModel, image: Tensor) -> float:
    """H in seconds, with nothing between: the median of full answers over long enough not to be one busy moment's."""
    for _ in range(3):
        answer_seconds(reference, image)
    times: list[float] = []
    until = perf_counter() + HORIZON_SECONDS
    while len(times) < HORIZON_RUNS or perf_counter() < until:
        times.append(answer_seconds(reference, image))
    return float(np.median(times))


def _random_walk(rng: np.random.Generator, count: int) -> Floats:
    """A first-order autoregressive walk around ``JITTER_CENTRE``, cut off at 0 and at H."""
    steps = rng.normal(size=count) * JITTER_SCATTER * np.sqrt(1 - JITTER_MEMORY**2)
    values, value = np.empty(count), float(rng.normal() * JITTER_SCATTER)
    for number, step in enumerate(steps):
        value = JITTER_MEMORY * value + step
        values[number] = value
    return np.clip(JITTER_CENTRE + values, 0.0, 1.0)


@contextlib.contextmanager
def _switching(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
