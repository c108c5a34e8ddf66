"""Interrupt a model for real: ask for the best answer by a deadline, in five lines and with any model of the contract.

    serve = Interruptible(model, images, mode="run_ahead")      # images like those to come: sizes and device
    answer = serve.answer(images, deadline=0.004)               # seconds from now
    answer.exit, answer.logits, answer.late_by                  # None, None where nothing was finished in time

Three ways of serving a deadline, all with batch 1 or more:

``ask``
    exit by exit in the caller's thread. The next exit is started unless even its fastest measured time would end
    beyond the deadline.
``run_ahead``
    everything is enqueued at once, by a worker thread on a CPU and on a side stream with an event per exit on a GPU; at
    the deadline the newest finished answer is taken. What still runs is let go at its next exit.
``known``
    the deadline is known in advance: the deepest exit whose 99th percentile of the latest times fits, by
    ``model.answer``.

Times are seconds of ``time.perf_counter``. Nothing here depends on Python's thread switch interval (5 ms): the caller
sleeps in a lock with a timeout, and the worker gives up the interpreter in every operator, so the caller wakes within
one operator's dispatch. An answer that arrives after the deadline does not count; ``late_by`` says how long the caller
had to wait beyond it.
"""

from __future__ import annotations

import math
import time
import weakref
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.harness.clocks import synchroniser
from anytime_bench.harness.deadline_summary import MODES, Mode
from anytime_bench.harness.stream_worker import Request, Worker, close_stream
from anytime_bench.methods.contract import AnytimeModel

#: Deadlines beyond this many seconds are as good as none; a clock counts no further than a number of seconds.
LONGEST = 1e6
#: Latest times per exit from which ``known`` takes its 99th percentiles.
WINDOW = 100


@dataclass(frozen=True)
class Answer:
    """The newest answer that was finished at the deadline.

    ``logits (B, C)`` and ``exit`` are None where none was; ``finished_at`` is the seconds from the request to that
    answer, ``late_by`` the seconds the caller waited beyond the deadline (0 where it did not).
    """

    logits: Tensor | None
    exit: int | None
    finished_at: float | None
    late_by: float


class Interruptible:
    """Serve answers of ``model`` by deadlines. Close it, or use it in a ``with`` block, to end its thread.

    The model is put in eval mode. ``images_like (B, D, H, W)`` are used to warm up and to measure the exits ``rounds``
    times. ``limit`` bounds, in seconds, how long a run in the worker (of ``run_ahead``, and those measured) may take
    before it is given up with a ``UserError``; ``ask`` and ``known`` run in the caller's thread to their end.
    """

    def __init__(
        self, model: AnytimeModel, images_like: Tensor, mode: Mode = "ask", *, rounds: int = 20, limit: float = 60.0
    ) -> None:
        if mode not in MODES:
            raise UserError(f"mode '{mode}': expected one of {', '.join(MODES)}.")
        self.model, self.mode, self.limit = model.eval(), mode, limit
        self._on_gpu = images_like.device.type == "cuda"
        self._synchronise = synchroniser(images_like.device)
        self._side = torch.cuda.Stream(images_like.device) if self._on_gpu else None
        self._worker = Worker(model)
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self._last: Request | None = None
        self._released: float | None = None
        self._images_like = images_like
        self._prefix_seconds: list[deque[float]] = [deque(maxlen=WINDOW) for _ in range(model.num_exits)]
        self._measure(images_like, rounds)

    def answer(self, images: Tensor, deadline: float) -> Answer:
        """The best answer for ``images (B, D, H, W)`` within ``deadline`` seconds from now.

        A deadline of 0 or less gives no answer, an infinite one the last. Raises ``UserError`` where ``deadline`` is
        not a number, and whatever the model raises.
        """
        if not isinstance(deadline, int | float) or deadline != deadline:
            raise UserError(f"deadline={deadline!r}: expected seconds as a number, such as 0.004.")
        deadline = min(deadline, LONGEST)
        self._settle()
        self._released = None
        begun = time.perf_counter()
        if deadline <= 0:
            return Answer(None, None, None, 0.0)
        serve = {"ask": self._ask, "run_ahead": self._run_ahead, "known": self._known}[self.mode]
        return serve(images, begun, begun + deadline)

    def release_time(self) -> float:
        """Seconds from the last deadline until the model was free again; waits until it is."""
        self._settle()
        return max(self._released or 0.0, 0.0)

    def remeasure(self) -> None:
        """Time every exit alone once more: ``known`` trusts the latest times, and a machine's speed changes."""
        if self.mode == "known":
            self._settle()
            self._time_prefixes(self._images_like)

    def close(self) -> None:
        """End the worker thread. Answers cannot be asked for afterwards."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ the three modes

    def _ask(self, images: Tensor, begun: float, deadline: float) -> Answer:
        newest: tuple[int, Tensor, float] | None = None
        with torch.no_grad():
            stream = self.model.stream(images)
            try:
                for k in range(self.model.num_exits):
                    if time.perf_counter() + self._fastest[k] > deadline:
                        break
                    logits = next(stream)
                    self._synchronise()
                    now = time.perf_counter()
                    if now > deadline:
                        break
                    newest = k, logits, now
            finally:
                close_stream(stream)
        now = time.perf_counter()
        self._released = max(now - deadline, 0.0)
        if newest is None:
            return Answer(None, None, None, self._released)
        return Answer(newest[1], newest[0], newest[2] - begun, self._released)

    def _known(self, images: Tensor, begun: float, deadline: float) -> Answer:
        fitting = [k for k, seconds in enumerate(self._prefix_seconds) if begun + _slowest(seconds) <= deadline]
        if not fitting:
            self._released = 0.0
            return Answer(None, None, None, 0.0)
        k = fitting[-1]
        with torch.no_grad():
            logits = self.model.answer(images, k)
            self._synchronise()
        now = time.perf_counter()
        self._prefix_seconds[k].append(now - begun)
        self._released = max(now - deadline, 0.0)
        if now > deadline:
            return Answer(None, None, None, now - deadline)
        return Answer(logits, k, now - begun, 0.0)

    def _run_ahead(self, images: Tensor, begun: float, deadline: float) -> Answer:
        if self._on_gpu:
            return self._run_ahead_on_gpu(images, begun, deadline)
        request = Request(images, begun, deadline)
        self._last = request
        self._worker.begin(request)
        over = self._worker.wait(
            lambda: len(request.finished) == self.model.num_exits or request.error, min(deadline, begun + self.limit)
        )
        request.wanted = False
        now = time.perf_counter()
        if not over and now < deadline:
            raise self._given_up()
        if request.error is not None:
            self._last = None
            raise request.error
        in_time = [(at, logits) for at, logits in request.finished if at <= deadline]
        if not in_time:
            return Answer(None, None, None, max(now - deadline, 0.0))
        at, logits = in_time[-1]
        return Answer(logits, len(in_time) - 1, at - begun, max(now - deadline, 0.0))

    def _run_ahead_on_gpu(self, images: Tensor, begun: float, deadline: float) -> Answer:
        """All exits enqueued on a side stream, an event behind each. Kernels cannot be recalled, so they run on.

        When an exit was first seen finished counts: a look after each that is enqueued, then one after the other.
        """
        side = self._side
        assert side is not None
        side.wait_stream(torch.cuda.current_stream(images.device))
        exits: list[tuple[Tensor, torch.cuda.Event]] = []
        seen: list[float] = []

        def look() -> None:
            while len(seen) < len(exits) and exits[len(seen)][1].query():
                seen.append(time.perf_counter())

        with torch.cuda.stream(side), torch.no_grad():
            for logits in self.model.stream(images):
                event = torch.cuda.Event()
                event.record(side)
                exits.append((logits, event))
                look()
                if time.perf_counter() > deadline:
                    break
        while len(seen) < len(exits) and time.perf_counter() < deadline:
            look()
            time.sleep(0)
        now = time.perf_counter()
        side.synchronize()
        self._released = max(time.perf_counter() - deadline, 0.0)
        in_time = [at for at in seen if at <= deadline]
        if not in_time:
            return Answer(None, None, None, max(now - deadline, 0.0))
        k = len(in_time) - 1
        return Answer(exits[k][0], k, in_time[k] - begun, max(now - deadline, 0.0))

    # ------------------------------------------------------------------------------------------ measuring, waiting

    def _measure(self, images: Tensor, rounds: int) -> None:
        """Warm up in the worker, so that a model that hangs is found out, and time exits as they will be asked for."""
        exits = self.model.num_exits
        segments = [[math.inf] * exits]
        for number in range(rounds + 2):
            request = Request(images, time.perf_counter())
            self._last = request
            self._worker.begin(request)
            self._settle()
            if request.error is not None:
                raise request.error
            if len(request.finished) != exits:
                raise UserError(f"the model gave {len(request.finished)} answers, but num_exits is {exits}.")
            times = [at - request.begun for at, _ in request.finished]
            if number >= 2:
                segments.append([b - a for a, b in zip([0.0, *times[:-1]], times, strict=True)])
        self._fastest = [min(row[k] for row in segments) for k in range(exits)]
        if self._on_gpu and self.mode == "run_ahead":
            for _ in range(2):  # the side stream has memory and workspaces of its own
                now = time.perf_counter()
                self._run_ahead_on_gpu(images, now, now + self.limit)
        if self.mode == "known":
            for number in range(rounds + 2):
                if number == 2:  # the first two only warm up
                    for before in self._prefix_seconds:
                        before.clear()
                self._time_prefixes(images)

    def _time_prefixes(self, images: Tensor) -> None:
        with torch.no_grad():
            for k, times in enumerate(self._prefix_seconds):
                begun = time.perf_counter()
                self.model.answer(images, k)
                self._synchronise()
                times.append(time.perf_counter() - begun)

    def _settle(self) -> None:
        """Wait until the run before has let the model go; note how long that took from its deadline."""
        request, self._last = self._last, None
        if request is None:
            return
        given_up = time.perf_counter() + self.limit
        if not self._worker.wait(lambda: request.released_at is not None, given_up):
            raise self._given_up()
        assert request.released_at is not None
        self._released = request.released_at - request.deadline

    def _given_up(self) -> UserError:
        """What to raise where the worker's run takes beyond the limit; its thread cannot be ended."""
        self._last = None
        self._finalizer.detach()
        return UserError(
            f"the model did not reach its next exit within {self.limit:g} s of being let go, and cannot be "
            "interrupted there. Give Interruptible a larger limit, or look for an endless loop in stream."
        )


def _slowest(seconds: deque[float]) -> float:
    """The 99th percentile, which of fewer than 100 is the longest; infinite where nothing was measured."""
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1] if seconds else math.inf
