"""Lanes on the threads of a CPU: real parallel hardware wherever there are two cores.

``workers`` threads take whatever part of a cascade is ready, in the order in which the parts were asked for, so that
earlier answers come first. The order among parts is kept by what they need of each other, as on streams of a GPU, and
the answers are the same. ``take`` waits for a result and raises what its part raised.

Meant for ``run_ahead``, which asks for all answers at once: a stream whose user waits for each answer before the next
is asked for leaves the threads idle in between.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from threading import Condition, Thread
from typing import Any

import torch
from torch import Tensor

from baselines.cascade.fast import add_relu
from baselines.cascade.model import CascadedResNet
from baselines.cascade.stepwise import LazySteps


class Part:
    """A piece of work, its place in the order, and its result once it is ``done``."""

    def __init__(self, order: int, work: Callable[..., Tensor], inputs: tuple[Part, ...]) -> None:
        self.order, self.work, self.inputs = order, work, inputs
        self.missing = 0
        self.needed_by: list[Part] = []
        self.done = False
        self.result: Tensor | None = None
        self.error: BaseException | None = None

    def __lt__(self, other: Part) -> bool:
        return self.order < other.order


class ThreadLanes:
    """A pool of ``workers`` threads, to be used as a context manager; whoever made it must not train meanwhile."""

    add_relu = staticmethod(add_relu)

    def __init__(self, workers: int) -> None:
        self._orders = count()
        self._ready: list[Part] = []
        self._changed = Condition()
        self._closed = False
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> ThreadLanes:
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def begin(self) -> None:
        pass

    def give(self, x: Tensor) -> Part:
        part = Part(next(self._orders), lambda: x, ())
        part.result, part.done = x, True
        return part

    def run(self, lane: int, work: Callable[..., Tensor], *inputs: Part) -> Part:
        part = Part(next(self._orders), work, inputs)
        with self._changed:
            for needed in {id(each): each for each in inputs}.values():
                if not needed.done:
                    part.missing += 1
                    needed.needed_by.append(part)
            if not part.missing:
                heapq.heappush(self._ready, part)
                self._changed.notify()
        return part

    def take(self, token: Part) -> Tensor:
        with self._changed:
            self._changed.wait_for(lambda: token.done)
        if token.error is not None:
            raise token.error
        assert token.result is not None
        return token.result

    def _work(self) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while (part := self._next()) is not None:
                self._do(part)

    def _next(self) -> Part | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed)
            return heapq.heappop(self._ready) if self._ready else None

    def _do(self, part: Part) -> None:
        failed = next((each.error for each in part.inputs if each.error is not None), None)
        try:
            if failed is None:
                values: list[Any] = [each.result for each in part.inputs]
                part.result = part.work(*values)
        except BaseException as error:  # whoever takes the result must hear of it, and the pool must go on
            failed = error
        with self._changed:
            part.error, part.done, part.inputs = failed, True, ()
            for follower in part.needed_by:
                follower.missing -= 1
                if not follower.missing:
                    heapq.heappush(self._ready, follower)
            part.needed_by.clear()
            self._changed.notify_all()


def run_ahead(model: CascadedResNet, lanes: ThreadLanes, frames: Iterable[Tensor | None]) -> Tensor:
    """Logits of all exits ``(E, B, C)``, every step asked for at once, so that the steps overlap in the lanes.

    ``frames`` are the images of each step, None where they are those of the step before.
    """
    run = LazySteps(model, lanes)
    heads = [partial(model.head, k=k) for k in range(model.num_exits)]
    tokens = [
        lanes.run(model.depth + 1, head, run.advance(frame)[-1]) for head, frame in zip(heads, frames, strict=True)
    ]
    return torch.stack([lanes.take(token) for token in tokens])
