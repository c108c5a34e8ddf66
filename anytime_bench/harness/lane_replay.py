"""Run a recorded stream on real lanes: a thread per lane, in the order of a schedule. The witness of T_P on a CPU.

The calls of one pass are noted as a program, each argument as a constant or as the result of an earlier call. Every
lane then runs its operators, after the views they need, and waits for what other lanes must have finished. Between
operators a lane holds Python's interpreter lock for some microseconds; within them torch releases it. A program has
none of the model's own Python, so where operators are small it is faster than the model on one lane too: compare it
with itself.

Units: seconds. Shapes: images ``(B, D, H, W)``, answers ``(B, C)``. Errors: ``SpanError``.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anytime_bench.harness.operator_graph import SpanError
from anytime_bench.harness.operator_recording import ANNOUNCEMENT, Recording, answers_of
from anytime_bench.harness.schedule import Schedule
from anytime_bench.methods.contract import AnytimeModel


@dataclass(frozen=True)
class Result:
    """Part ``part`` of what call ``call`` returned; the whole where that is one tensor."""

    call: int
    part: int | None


@dataclass(frozen=True)
class Step:
    """A call with its arguments, ``Result`` standing for tensors that other calls make."""

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    needs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """The calls of one pass and where its answers lie (None: a constant, which no lane has to make)."""

    recording: Recording
    steps: tuple[Step, ...]
    answers: tuple[Result | Tensor, ...]


def program_of(model: AnytimeModel, images: Tensor, recording: Recording) -> Program:
    """Note the calls of ``model.stream(images)``, which must be those of ``recording``; inside ``cost.evaluating``."""
    notes = _Notes()
    answers = []
    with notes:
        for logits in answers_of(model, images):
            answers.append(notes.symbol(logits))
    if [step.function for step in notes.steps] != [call.function for call in recording.calls]:
        raise SpanError("stream made other calls than in its recording: it must run the same operators for every image")
    return Program(recording, tuple(notes.steps), tuple(answers))


class RealLanes:
    """``count`` lanes: the calling thread and others that stay from run to run, since a thread's first run pays for its
    memory. A context manager."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._others = ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="lane")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._others.shutdown()

    def run(self, program: Program, schedule: Schedule) -> tuple[float, list[Tensor]]:
        """Seconds of one run of ``program`` in the order of ``schedule``, and the answers it gave."""
        if schedule.lanes_used > self.count:
            raise SpanError(f"the schedule uses {schedule.lanes_used} lanes, expected at most {self.count}")
        run = _Run(program, schedule)
        others = [self._others.submit(run.lane, lane) for lane in range(1, schedule.lanes_used)]
        run.lane(0)
        wait(others)
        if run.failure is not None:
            raise SpanError(f"a lane stopped: {type(run.failure).__name__}: {run.failure}") from run.failure
        return max(run.ended) - min(run.begun), run.answers()


class _Notes(TorchDispatchMode):
    """Notes every call with its arguments, without keeping a tensor that the stream itself does not keep."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._made: dict[int, tuple[weakref.ref[Tensor], Result]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ANNOUNCEMENT:
            return func(*args, **(kwargs or {}))
        needs: set[int] = set()
        positional = _mapped(tuple(args), self.symbol, needs)
        named = _mapped(dict(kwargs or {}), self.symbol, needs)
        result = func(*args, **(kwargs or {}))
        position = len(self.steps)
        self.steps.append(Step(func, positional, named, tuple(sorted(needs))))
        parts = enumerate(result) if isinstance(result, tuple | list) else [(None, result)]
        for part, tensor in parts:
            # What returns its own argument makes nothing.
            if isinstance(tensor, Tensor) and not isinstance(self.symbol(tensor), Result):
                self._made[id(tensor)] = (weakref.ref(tensor), Result(position, part))
        return result

    def symbol(self, tensor: Tensor) -> Result | Tensor:
        """Which call made ``tensor``; itself where none did."""
        reference, result = self._made.get(id(tensor), (None, None))
        return result if reference is not None and result is not None and reference() is tensor else tensor


class _Run:
    """One run: results by call, which awaited operators are done, when each lane began and ended."""

    def __init__(self, program: Program, schedule: Schedule) -> None:
        self.program = program
        self.results: list[Any] = [None] * len(program.steps)
        self.begun, self.ended = [0.0] * schedule.lanes_used, [0.0] * schedule.lanes_used
        self.failure: BaseException | None = None
        self._kept = {answer.call for answer in program.answers if isinstance(answer, Result)}
        self._start = threading.Barrier(schedule.lanes_used)
        self._plans = [_plan(program, schedule, lane) for lane in range(schedule.lanes_used)]
        # A lane that waits must leave the interpreter to the others, so it sleeps on an event and never polls.
        self._done: dict[int, threading.Event] = {}
        self._uses = [0] * len(program.steps)
        for plan in self._plans:
            for _, awaited, calls in plan:
                self._done.update((other, threading.Event()) for other in awaited)
                for call in calls:
                    for needed in program.steps[call].needs:
                        self._uses[needed] += 1

    def lane(self, lane: int) -> None:
        """Run one lane's operators in order."""
        try:
            with torch.no_grad():
                self._start.wait()
                self.begun[lane] = time.perf_counter()
                for operator, awaited, calls in self._plans[lane]:
                    for other in awaited:
                        self._done[other].wait()
                    if self.failure is not None:
                        return
                    for call in calls:
                        self._call(call)
                    if operator in self._done:
                        self._done[operator].set()
                self.ended[lane] = time.perf_counter()
        except BaseException as error:  # Ctrl-C as well: a lane that sleeps would sleep for ever
            self.failure = self.failure or error
            self._start.abort()
            for done in self._done.values():
                done.set()
            if not isinstance(error, Exception):
                raise

    def answers(self) -> list[Tensor]:
        return [self._value(answer) if isinstance(answer, Result) else answer for answer in self.program.answers]

    def _call(self, call: int) -> None:
        step = self.program.steps[call]
        args, kwargs = (_mapped(values, self._value_of_symbol) for values in (step.args, step.kwargs))
        self.results[call] = step.function(*args, **kwargs)
        for needed in step.needs:
            # A lost count keeps a tensor too long and never frees one too early.
            self._uses[needed] -= 1
            if not self._uses[needed] and needed not in self._kept:
                self.results[needed] = None

    def _value_of_symbol(self, value: Any) -> Any:
        return self._value(value) if isinstance(value, Result) else value

    def _value(self, result: Result) -> Any:
        made = self.results[result.call]
        return made if result.part is None else made[result.part]


def _plan(program: Program, schedule: Schedule, lane: int) -> list[tuple[int, list[int], list[int]]]:
    """A lane's operators in order: ``(operator, operators of other lanes to wait for, calls: views, then itself)``."""
    graph, calls = program.recording.graph, program.recording.calls
    position = {call.operator: place for place, call in enumerate(calls) if call.operator is not None}
    own = [index for index in graph.needed if schedule.lanes[index][0] == lane]
    made: set[int] = set()
    plan = []
    for index in sorted(own, key=lambda index: (schedule.start[index], index)):
        steps: list[int] = []
        _add_views(program, position[index], made, steps)
        awaited = [before for before in graph.operators[index].after if schedule.lanes[before][0] != lane]
        plan.append((index, awaited, [*steps, position[index]]))
    return plan


def _add_views(program: Program, call: int, made: set[int], steps: list[int]) -> None:
    """Append the views that ``call`` needs and that this lane has not made yet, each after those it needs itself."""
    for needed in program.steps[call].needs:
        if program.recording.calls[needed].operator is None and needed not in made:
            made.add(needed)
            _add_views(program, needed, made, steps)
            steps.append(needed)


def _mapped(values: Any, change: Callable[[Any], Any], needs: set[int] | None = None) -> Any:
    """Nested arguments with every tensor or ``Result`` changed; calls that results come from are added to ``needs``."""
    if isinstance(values, Tensor | Result):
        changed = change(values)
        if needs is not None and isinstance(changed, Result):
            needs.add(changed.call)
        return changed
    if isinstance(values, tuple | list):
        return type(values)(_mapped(value, change, needs) for value in values)
    if isinstance(values, dict):
        return {name: _mapped(value, change, needs) for name, value in values.items()}
    return values
