"""Can parallel time be believed on this CPU? Five questions, one line each per model, with PASS or FAIL.

    python tests/benchmarks/span.py [latency] [lanes] [cost] [memory] [repeat]

latency  T_1 (the sum of operators) against run-throughs in the same rounds, median of three repetitions: within 10 % at
         width 64 on 32x32 images, within 20 % at width 16, where issuing operators is most of it
lanes    two real lanes (threads by the schedule) against T_2: gain over one lane within 15 %, median of three
         repetitions, width 64
cost     recording a row takes at most 5 s on digits and 20 s at width 64 on 32x32 images
memory   most bytes of tensors held while recording: at most twice a forward pass's
repeat   two repetitions: span in MACs equal bit for bit, and no two rows in another order by AUC@1 on span where their
         intervals of span keep them apart

Run on an otherwise idle machine with two cores or more; each block says what disturbed it. About six minutes.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import psutil
import torch
from figure import Figure
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anytime_bench import AnytimeModel, load_method, load_task
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.operator_recording import record
from anytime_bench.harness.span import SpanMeasurement, measure_span
from anytime_bench.runs.plan import resolve
from anytime_bench.scores.curve import auc, settle
from anytime_bench.training.recipes import recipe_for

ROWS = ("serial_ce", "cascaded_td", "sdn")
DIGITS_ROWS = (*ROWS, "cascaded_td_multihead", "msdnet", "ztw", "boostnet")
#: Width, side of the images, and whether the stem pools: the paper's network, and the boards'.
PAPER, BOARD = (64, 32, True), (16, 32, True)
REPETITIONS = 3


def build(name: str, width: int, side: int, pool: bool, **more: Any) -> tuple[AnytimeModel, Tensor]:
    card = dataclasses.replace(load_task("digits").card, shape=(3, side, side))
    method = load_method(name, width=width, stem_pool=pool, **more)
    return method.build(card), torch.randn(64, 3, side, side)


def measured(name: str, size: tuple[int, int, bool], **more: Any) -> SpanMeasurement:
    reference, images = build("serial_ce", *size)
    return measure_span(build(name, *size, **more)[0], reference, images, budget_seconds=6)


def wall_latency(model: AnytimeModel, images: Tensor) -> float:
    """Median seconds of 40 run-throughs at batch 1 on one thread, by the wall clock, each after a warm one."""
    torch.set_num_threads(1)
    seconds = []
    with evaluating(model):
        for index in range(40):
            for _ in range(2):
                begin = time.perf_counter()
                for _ in model.stream(images[index : index + 1]):
                    pass
                elapsed = time.perf_counter() - begin
            seconds.append(elapsed)
    return statistics.median(seconds)


def latency() -> Iterator[Figure]:
    """Against run-throughs in the very rounds of the recording; those on the wall before and after it, which a machine
    that changes its speed takes elsewhere, stand beside."""
    for size, limit in ((PAPER, 0.10), (BOARD, 0.20)):
        for name in ROWS:
            walls, errors, said = [], [], []
            for _ in range(REPETITIONS):
                walls.append(wall_latency(*build(name, *size)))
                block = measured(name, size).summary()
                walls.append(wall_latency(*build(name, *size)))
                off = block.work[-1].value * block.reference_seconds.value / (sum(walls[-2:]) / 2) - 1
                own = block.model_error
                errors.append(own.value)
                said.append(f"{own.value:+.1%} [{own.low:+.1%}, {own.high:+.1%}], {off:+.1%} from the wall's")
            details = f"{'; '.join(said)} {1e3 * statistics.median(walls):.2f} ms; dispatch {block.dispatch_share:.0%}"
            error = statistics.median(errors)
            yield Figure(
                "latency", f"T_1 of {name}, width {size[0]}", f"median within {limit:.0%}", details, error,
                abs(error) <= limit,
            )  # fmt: skip


def lanes() -> Iterator[Figure]:
    for name, more in (*((name, {}) for name in ROWS), ("cascaded_td", {"balanced": True})):
        what, errors, said = f"T_2 of {name} {more or ''}".strip(), [], []
        for _ in range(REPETITIONS):
            block = measured(name, PAPER, **more).summary()
            if block.real_lanes is None:
                raise SystemExit("lanes: two real lanes need two cores, and this process may run on one")
            real = block.real_lanes
            errors.append(real.modelled / real.gain.value - 1)
            said.append(
                f"{real.gain.value:.2f} [{real.gain.low:.2f}, {real.gain.high:.2f}] times as fast as one lane, "
                f"T_1 / T_2 {real.modelled:.2f}, {errors[-1]:+.1%} ({noticed(block)})"
            )
        error = statistics.median(errors)
        yield Figure("lanes", what, "median within 15 %", "; ".join(said), error, abs(error) <= 0.15)


def cost() -> Iterator[Figure]:
    task, recipe = load_task("digits"), recipe_for("digits", None, "cpu")
    images = torch.randn(64, *task.card.shape)
    reference = resolve("serial_ce", recipe).method.build(task.card)
    record(reference, images[:1])  # loads torch's compiler once, as training or counting has where rows are recorded
    for name in DIGITS_ROWS:
        model = resolve(name, recipe).method.build(task.card)
        yield recorded(f"{name} on digits", 5, model, reference, images)
    for name in ROWS:
        (model, images), (reference, _) = build(name, *PAPER), build("serial_ce", *PAPER)
        yield recorded(f"{name}, width 64", 20, model, reference, images)


def recorded(what: str, limit: float, model: AnytimeModel, reference: AnytimeModel, images: Tensor) -> Figure:
    """How long it takes to measure the span of ``model``."""
    begun = time.perf_counter()
    block = measure_span(model, reference, images).summary()
    seconds = time.perf_counter() - begun
    said = f"{seconds:.1f} s, {block.operators} operators, {block.rounds} rounds; {noticed(block)}"
    return Figure("cost", f"recording {what}", f"<= {limit:g} s", said, seconds, seconds <= limit)


def memory() -> Iterator[Figure]:
    for name in (*ROWS, "msdnet"):
        model, images = build(name, *PAPER) if name != "msdnet" else build_msdnet()

        def forward(model: AnytimeModel = model, images: Tensor = images) -> None:
            with evaluating(model):
                for _ in model.stream(images[:1]):
                    pass

        alone = peak_bytes(forward)
        peak = peak_bytes(lambda model=model, images=images: record(model, images[:1]))
        said = f"{peak / 2**20:.2f} MiB while recording, {alone / 2**20:.2f} MiB in a pass: {peak / alone:.2f} times"
        yield Figure("memory", f"recording {name}", "<= 2 times a pass", said, peak / alone, peak <= 2 * alone)


def build_msdnet() -> tuple[AnytimeModel, Tensor]:
    card = dataclasses.replace(load_task("digits").card, shape=(3, 32, 32))
    return load_method("msdnet").build(card), torch.randn(8, 3, 32, 32)


def peak_bytes(run: Callable[[], Any]) -> int:
    with _Storages() as storages:
        run()
    return storages.peak


class _Storages(TorchDispatchMode):
    """The bytes of live storages that calls under this mode made."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = {key for key, _ in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for key, storage in _storages(result):
            if key not in old | self._known:
                self._known.add(key)
                self.held += storage.nbytes()
                self.peak = max(self.peak, self.held)
                weakref.finalize(storage, self._release, key, storage.nbytes())
        return result

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _storages(values: Any) -> Iterator[tuple[int, torch.UntypedStorage]]:
    for value in tree_leaves(values):
        if isinstance(value, Tensor):
            yield value.untyped_storage()._cdata, value.untyped_storage()


def repeat() -> Iterator[Figure]:
    """AUC@1 by a made-up accuracy that rises evenly from exit to exit, so that only costs decide the order."""
    blocks = {name: [measured(name, BOARD).summary() for _ in range(2)] for name in ROWS}
    for name, (first, second) in blocks.items():
        apart = first.span[-1].value / second.span[-1].value - 1
        ends = " and ".join(f"[{block.span[-1].low:.3f}, {block.span[-1].high:.3f}]" for block in (first, second))
        said = f"MACs {first.span_macs[-1]}; span {apart:+.1%} apart, {ends}; {noticed(first)}; {noticed(second)}"
        yield Figure(
            "repeat", f"span_macs of {name}", "equal bit for bit", said, apart, first.span_macs == second.span_macs
        )
    for one, other in combinations(ROWS, 2):
        orders = []
        for place in range(2):
            a, b = (area(blocks[name][place]) for name in (one, other))
            orders.append(0 if a[0] <= b[1] and b[0] <= a[1] else 1 if a[0] > b[1] else -1)
        holds = 0 in orders or orders[0] == orders[1]
        signs = " and ".join(f"{order:+d}" for order in orders)
        yield Figure(
            "repeat", f"{one} against {other}", "one order twice", f"{signs} (0: intervals meet)", orders[0], holds
        )


def area(block: Any) -> tuple[float, float]:
    """AUC@1 on span at the upper and at the lower ends of its intervals."""
    accuracy = np.linspace(0.4, 0.9, len(block.span))
    ends = ([each.high for each in block.span], [each.low for each in block.span])
    worst, best = (auc(settle(costs), accuracy, 1.0, 0.1) for costs in ends)
    return worst, best


def noticed(block: Any) -> str:
    return "; ".join(block.meta.reasons) or "undisturbed"


QUESTIONS = {"latency": latency, "lanes": lanes, "cost": cost, "memory": memory, "repeat": repeat}

if __name__ == "__main__":
    print(f"torch {torch.__version__}, {psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}")
    for question in sys.argv[1:] or QUESTIONS:
        for figure in QUESTIONS[question]():
            print(figure, flush=True)
