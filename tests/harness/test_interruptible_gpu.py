"""Deadlines on a GPU, whose clock and events are of paper: what counts is when an exit was first seen finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from anytime_bench import AnytimeModel
from anytime_bench.harness import interruptible, stream_worker
from anytime_bench.harness.interruptible import Interruptible

IMAGES = torch.zeros(1, 1, 4, 4)


class Paper:
    """A host that spends ``enqueue`` seconds on each exit, and a device that finishes exits at the times ``done``."""

    def __init__(self, enqueue: float, done: tuple[float, ...]) -> None:
        self.now, self.enqueue, self.done = 0.0, enqueue, done
        self.streams = self.events = 0

    def perf_counter(self) -> float:
        self.now += 1e-5
        return self.now

    def stream(self, device: torch.device) -> SimpleNamespace:
        self.streams += 1
        return SimpleNamespace(wait_stream=lambda other: None, synchronize=lambda: None)

    def event(self) -> SimpleNamespace:
        at, self.events = self.done[self.events], self.events + 1
        return SimpleNamespace(record=lambda stream: None, query=lambda: self.now >= at)


class Net(AnytimeModel):
    num_exits, ticks = 3, (1, 2, 3)
    paper: Paper | None = None

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for k in range(3):
            if self.paper is not None:
                self.paper.now += self.paper.enqueue
            yield torch.full((1, 3), float(k))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch):
    def served(enqueue: float, done: tuple[float, ...], deadline: float):
        model, paper = Net(), Paper(enqueue, done)
        with Interruptible(model, IMAGES, mode="run_ahead", rounds=1) as server:
            fakes = {
                "Stream": paper.stream, "Event": paper.event, "stream": lambda side: nullcontext(),
                "current_stream": lambda device: None,
            }  # fmt: skip
            for name, fake in fakes.items():
                monkeypatch.setattr(torch.cuda, name, fake)
            monkeypatch.setattr(
                interruptible, "time", SimpleNamespace(perf_counter=paper.perf_counter, sleep=lambda s: None)
            )
            server._side, server._on_gpu, model.paper = paper.stream(IMAGES.device), True, paper
            answer = server._run_ahead(IMAGES, 0.0, deadline)
            monkeypatch.undo()
        assert paper.streams == 1, "no stream per request"
        return answer

    return served


@pytest.mark.parametrize(
    ("enqueue", "done", "deadline", "exit_"),
    [
        (1e-4, (1e-3, 2e-3, 3e-3), 2.5e-3, 1),
        (1e-4, (1e-3, 2e-3, 3e-3), 5e-3, 2),
        (1e-4, (1e-3, 2e-3, 3e-3), 0.5e-3, None),
        # Enqueuing goes on beyond the deadline by more than a millisecond; the first exit was finished before.
        (2e-3, (2.5e-3, 4.5e-3, 9e-3), 4.2e-3, 0),
        # By less than that, an exit that is finished after the deadline still does not count.
        (1.5e-3, (1.6e-3, 3.3e-3, 9e-3), 3.2e-3, 0),
    ],
)
def test_an_answer_counts_where_it_was_seen_finished_by_the_deadline(serve, enqueue, done, deadline, exit_) -> None:
    answer = serve(enqueue, done, deadline)
    assert answer.exit == exit_
    if exit_ is not None:
        assert int(answer.logits[0, 0]) == exit_
        looks = sorted({*done, enqueue * (exit_ + 2)})
        assert done[exit_] <= answer.finished_at <= min(deadline, done[exit_] + max(enqueue, looks[0]) + 1e-4)


def test_what_is_only_enqueued_is_waited_for_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def synchroniser(device: torch.device):
        return lambda: order.append(f"wait for {device}")

    class Noted(Net):
        def stream(self, images: Tensor) -> Iterator[Tensor]:
            for k, logits in enumerate(super().stream(images)):
                order.append(f"exit {k}")
                yield logits

    monkeypatch.setattr(stream_worker, "synchroniser", synchroniser)
    with Interruptible(Noted(), IMAGES, rounds=1):
        expected = [text for k in range(3) for text in (f"exit {k}", "wait for cpu")]
        assert order[: len(expected)] == expected
