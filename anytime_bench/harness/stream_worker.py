"""The worker thread of ``Interruptible``: it runs streams ahead, says what is finished, and lets go when asked.

Times are seconds of ``time.perf_counter``; images ``(B, D, H, W)``, logits ``(B, C)``. What a model raises is handed to
the caller in ``Request.error``.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.harness.clocks import synchroniser
from anytime_bench.methods.contract import AnytimeModel


@dataclass
class Request:
    """One run of a stream: what finished when, and whether it is still wanted."""

    images: Tensor
    begun: float
    deadline: float = math.inf
    finished: list[tuple[float, Tensor]] = field(default_factory=list)
    wanted: bool = True
    error: BaseException | None = None
    released_at: float | None = None


class Worker:
    """One thread that runs streams, one request at a time, and says whenever an exit is finished."""

    def __init__(self, model: AnytimeModel) -> None:
        self._model = weakref.ref(model)
        self._changed = threading.Condition()
        self._request: Request | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="anytime-interruptible", daemon=True)
        self._thread.start()

    def begin(self, request: Request) -> None:
        """Start ``request``; the one before it must have let go."""
        with self._changed:
            if self._stopped:
                raise UserError("this Interruptible is closed; make a new one.")
            self._request = request
            self._changed.notify_all()

    def wait(self, until: Callable[[], object], deadline: float) -> bool:
        """Sleep until ``until()`` holds or the clock reaches ``deadline``; whether it holds."""
        with self._changed:
            return bool(self._changed.wait_for(until, max(deadline - time.perf_counter(), 0.0)))

    def stop(self) -> None:
        """End the thread as soon as its run has let go; a run that never does is left to the end of the process."""
        with self._changed:
            self._stopped = True
            if self._request is not None:
                self._request.wanted = False
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._request is not None or self._stopped)
                request = self._request
                if request is None:
                    return
            model = self._model()
            try:
                if model is not None:
                    self._run(model, request)
            except BaseException as error:  # handed to the caller, whatever it is
                request.error = error
            del model
            with self._changed:
                request.released_at = time.perf_counter()
                self._request = None
                self._changed.notify_all()

    def _run(self, model: AnytimeModel, request: Request) -> None:
        with torch.no_grad():
            stream, wait = model.stream(request.images), synchroniser(request.images.device)
            try:
                for logits in stream:
                    wait()  # on a GPU the exit is only enqueued
                    with self._changed:
                        request.finished.append((time.perf_counter(), logits))
                        self._changed.notify_all()
                    if not request.wanted:
                        break
            finally:
                close_stream(stream)


def close_stream(stream: Iterator[Tensor]) -> None:
    """End a generator, so that what it holds is let go; other iterators have nothing to end."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()
