"""Answers under noise: every policy that a model can follow, on frozen frames, with its cost.

``evaluate_noise`` needs images and labels once; it draws each frame from (seed, image, frame), so every method sees the
same ones, and keeps one bit per answer and image. Shapes: images ``(N, D, H, W)`` normalised, labels ``(N,)``,
frames ``(F, B, D, H, W)``, logits ``(E, B, C)``. All scores are recomputed from ``NoiseResult.arrays()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.corruptions import conditions, corrupt
from anytime_bench.corruptions.apply import to_normalised
from anytime_bench.corruptions.cifar10c import SEVERITIES, OfficialFiles
from anytime_bench.errors import UserError
from anytime_bench.harness import policies as policy_plans
from anytime_bench.harness.policies import CLEAN, POLICIES, Answer, PassCosts, Schedule
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.tasks.task import TaskCard
from anytime_bench.trace.noise import NoiseRun, pack
from anytime_bench.training.data import Normalised

#: Severity at which common kinds are drawn afresh per frame; all five would be five times the work.
TRANSIENT_SEVERITIES = (3,)
#: Prefix of the kinds that come from official files.
OFFICIAL = "official/"


@dataclass(frozen=True)
class NoiseResult:
    """Correctness of every answer; scores are derived, never stored."""

    runs: Sequence[NoiseRun]
    num_classes: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the ``.npz`` keeps; see ``anytime_bench.trace.noise``."""
        return pack(self.runs, self.num_classes)


@dataclass(frozen=True)
class _Run:
    """A run that is planned: its schedule and the answers it will give."""

    kind: str
    severity: int | None
    schedule: Schedule
    policy: str
    answers: list[Answer]


def is_stateful(model: AnytimeModel) -> bool:
    """Whether the model looks at frames after the first one."""
    return type(model).watch is not AnytimeModel.watch


@dataclass(frozen=True)
class NoiseSettings:
    """Which noise, and how frames arrive.

    ``kinds`` come in persistent noise, in transient noise of each frame period of ``periods`` (ticks, or inf), and in a
    burst over a third of the frames, from tick 2 on; common kinds in all severities, per frame in
    ``TRANSIENT_SEVERITIES`` alone. ``num_frames`` (None: the model's depth in ticks) should be the largest depth on the
    board.
    """

    kinds: Sequence[str] = ()
    periods: Sequence[float] = (1, 2, 4)
    num_frames: int | None = None
    seed: int = 0
    batch_size: int = 256


@torch.no_grad()
def evaluate_noise(
    model: AnytimeModel,
    images: Tensor | Normalised,
    labels: Tensor,
    task: TaskCard,
    settings: NoiseSettings,
    costs: PassCosts | None = None,
    official: OfficialFiles | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NoiseResult:
    """Evaluate ``model`` clean and under every kind, in every mode, with every policy it can follow.

    ``costs`` defaults to the model's ticks and counted MACs. ``official`` adds the kinds of the CIFAR-10-C files, named
    ``official/<kind>``, under persistent noise; the images must then be CIFAR-10's test split from the first on.
    ``progress`` receives (images done, images in all), counted over kinds.
    """
    model.eval()
    groups = _planned(model, images[:1], settings, costs, official)
    if official is not None:
        _check_order(official, labels)
    total, done, runs = len(groups) * len(labels), 0, []
    for group in groups:
        parts: list[list[NDArray[np.bool_]]] = [[] for _ in group]
        for start in range(0, len(labels), settings.batch_size):
            batch = slice(start, start + settings.batch_size)
            source = _Frames(model, images[batch], group[0], settings.seed, start, task, official)
            for part, correct in zip(parts, _correctness(source, group, labels[batch]), strict=True):
                part.append(correct)
            done += len(labels[batch])
            if progress is not None:
                progress(done, total)
        runs += [_finished(run, np.concatenate(part, axis=1)) for run, part in zip(group, parts, strict=True)]
    return NoiseResult(runs, task.num_classes)


def _planned(
    model: AnytimeModel,
    image: Tensor,
    settings: NoiseSettings,
    costs: PassCosts | None,
    official: OfficialFiles | None,
) -> list[list[_Run]]:
    """All runs, those on the same frames together: clean, then each kind and severity, then official files."""
    frames = settings.num_frames or ceil(max(model.ticks))
    chosen = [name for name in POLICIES if is_stateful(model) or name not in policy_plans.STATEFUL]
    costs = costs or PassCosts(model.ticks, count_macs(model.stream(image), model.num_exits))
    schedules = _schedules(frames, settings.periods)
    step_macs = _step_macs(model, image, [policy_plans.clean(frames), *schedules]) if is_stateful(model) else {}

    def planned(kind: str, severity: int | None, schedule: Schedule) -> list[_Run]:
        made = [policy_plans.answers(p, schedule, costs, step_macs.get(schedule.mode, ())) for p in chosen]
        return [_Run(kind, severity, schedule, p, a) for p, a in zip(chosen, made, strict=True)]

    groups = [planned("clean", None, policy_plans.clean(frames))]
    for kind, severity in conditions(settings.kinds):
        per_frame = severity is None or severity in TRANSIENT_SEVERITIES
        usable = [schedule for schedule in schedules if per_frame or schedule.mode == "persistent"]
        groups.append([run for schedule in usable for run in planned(kind, severity, schedule)])
    for kind in official.kinds if official is not None else ():
        held = policy_plans.persistent(frames)
        groups += [planned(OFFICIAL + kind, severity, held) for severity in range(1, SEVERITIES + 1)]
    return groups


class _Frames:
    """The frames of one batch under one kind and the model's outputs on them, each computed once."""

    def __init__(
        self,
        model: AnytimeModel,
        images: Tensor,
        run: _Run,
        seed: int,
        start: int,
        task: TaskCard,
        official: OfficialFiles | None,
    ) -> None:
        self.official = official
        self.model, self.images, self.task = model, images, task
        self.kind, self.severity, self.seed = run.kind, run.severity, seed
        self.indices = torch.arange(start, start + len(images), device=images.device)
        self._drawn: dict[int, Tensor] = {CLEAN: images}
        self._exits: dict[int, Tensor] = {}
        self._last: dict[int, Tensor] = {}
        self._steps: dict[tuple[int, ...], Tensor] = {}

    def frame(self, draw: int) -> Tensor:
        if draw not in self._drawn and self.official is not None and self.kind.startswith(OFFICIAL):
            first, count = int(self.indices[0]), len(self.images)
            pixels = self.official.images(self.kind[len(OFFICIAL) :], self.severity or 0, first, first + count)
            unit = torch.from_numpy(pixels).to(self.images.device).float() * (1 / 255)
            self._drawn[draw] = to_normalised(unit, self.task.mean, self.task.std)
        elif draw not in self._drawn:
            self._drawn[draw] = corrupt(
                self.images, self.kind, severity=self.severity, seed=self.seed, indices=self.indices, frame=draw,
                mean=self.task.mean, std=self.task.std,
            )  # fmt: skip
        return self._drawn[draw]

    def exit(self, draw: int, k: int) -> Tensor:
        """Probabilities ``(B, C)`` in float64 of exit k on one draw; a later draw is asked for its last exit only."""
        last = k == self.model.num_exits - 1
        if draw in self._exits:
            return self._exits[draw][k]
        if last and draw in self._last:
            return self._last[draw]
        if last and draw > 0 and type(self.model).answer is not AnytimeModel.answer:
            self._last[draw] = self.model.answer(self.frame(draw), k).double().softmax(-1)
            return self._last[draw]
        self._exits[draw] = self.model(self.frame(draw)).double().softmax(-1)
        return self._exits[draw][k]

    def step(self, seen: tuple[int, ...], k: int) -> Tensor:
        """Probabilities ``(B, C)`` of step k of the stateful model that has seen these draws, one per tick."""
        if seen not in self._steps:
            frames = torch.stack([self.frame(draw) for draw in seen])
            self._steps[seen] = torch.stack(list(self.model.watch(frames))).double().softmax(-1)
        return self._steps[seen][k]


def _correctness(source: _Frames, runs: Sequence[_Run], labels: Tensor) -> list[NDArray[np.bool_]]:
    """Correctness ``(answers, B)`` of every run. Ties go to the lowest class, as in a trace."""
    correct = []
    for run in runs:
        seen = run.schedule.seen
        rows = []
        for answer in run.answers:
            if answer.source == "watch":
                members = [source.step(seen, k) for k in answer.members]
            else:
                members = [source.exit(draw, answer.exit) for draw in answer.members]
            total = members[0] if len(members) == 1 else torch.stack(members).sum(0)
            # argmax may return any of several equal classes on a device; the first one is the first True.
            first = (total == total.amax(dim=1, keepdim=True)).to(torch.uint8).argmax(dim=1)
            rows.append(first == labels)
        correct.append(torch.stack(rows).cpu().numpy())
    return correct


def _finished(run: _Run, correct: NDArray[np.bool_]) -> NoiseRun:
    costs = {axis: np.array([answer.costs[axis] for answer in run.answers]) for axis in run.answers[0].costs}
    return NoiseRun(run.kind, run.severity or 0, run.schedule.mode, run.policy, correct, costs)


def _check_order(official: OfficialFiles, labels: Tensor) -> None:
    if not np.array_equal(labels.cpu().numpy(), official.labels[: len(labels)]):
        raise UserError(
            f"{official.folder}: its labels are not those of the images given. Expected CIFAR-10's test split in its "
            "own order, from the first image on."
        )


def _schedules(frames: int, periods: Sequence[float]) -> list[Schedule]:
    schedules = [policy_plans.persistent(frames), *(policy_plans.transient(frames, period) for period in periods)]
    if frames >= 5:
        schedules.append(policy_plans.burst(frames, 2, 2 + frames // 3))
    return list({schedule.mode: schedule for schedule in schedules}.values())


def count_macs(outputs: Iterable[Tensor], limit: int) -> list[float]:
    """Cumulative MACs at each of the first ``limit`` outputs of a generator that runs a model on one image."""
    counted: list[float] = []
    with FlopCounterMode(display=False) as counter:
        for _ in outputs:
            counted.append(counter.get_total_flops() / 2)
            if len(counted) == limit:
                break
    return counted


def _step_macs(model: AnytimeModel, image: Tensor, schedules: Sequence[Schedule]) -> dict[str, list[float]]:
    """Cumulative MACs of the stateful model's steps by mode: a held frame may be cheaper than a new one per tick."""
    macs = {}
    for schedule in schedules:
        # Draws need only differ from one another here; pixels do not change a count.
        drawn = {draw: image if draw == CLEAN else image + 0.1 * (draw + 1) for draw in set(schedule.seen)}
        frames = torch.stack([drawn[draw] for draw in schedule.seen])
        macs[schedule.mode] = count_macs(model.watch(frames), model.num_exits)
    return macs
