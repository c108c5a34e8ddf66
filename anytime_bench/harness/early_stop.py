"""Real early stop: the host looks at each answer as it comes and stops asking once the policy accepts one.

A policy is ``policy(logits (B, C), k) -> (B,)`` booleans, True where exit k's answer is good enough. The last exit is
always good enough. Its decision needs the answer on the host, so on a GPU every decision costs a synchronisation: that
and the policy's own work belong to the latency, and are also reported apart.

At batch 1 stopping is always real. At larger batches it is real for a model that accepts keep-masks through ``send``
(``model.compacts``): images that are done leave the batch. For other models the whole batch runs until its last image
is done, and the stop is called simulated.

A model that is asked exit by exit runs its own Python, on a GPU too, so these times do not compare with those of
graphs. Before anything is timed every group runs once: images that leave make new batch sizes, and a GPU's libraries
plan each shape when they first see it.

What stopping saves is measured against full runs of the same groups, each just before or after the one that stops: a
machine is not equally fast from one session to the next.

Units: seconds. Errors: ``ValueError`` for empty or mismatched inputs, and for a policy that does not answer per image.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anytime_bench.harness.clocks import HostClock, on_device
from anytime_bench.harness.cost import evaluating
from anytime_bench.harness.stream_worker import close_stream
from anytime_bench.harness.timing_block import EarlyStopTiming, Stop
from anytime_bench.harness.timing_summary import spread
from anytime_bench.methods.contract import AnytimeModel

Policy = Callable[[Tensor, int], Tensor]


def confident(threshold: float) -> Policy:
    """Stop at the first exit whose largest softmax probability is at least ``threshold``."""

    def decide(logits: Tensor, k: int) -> Tensor:
        return logits.float().softmax(1).amax(1) >= threshold

    return decide


@dataclass(frozen=True)
class EarlyStop:
    """What stopping did to N images, in G groups of ``batch_size``.

    ``exits (N,)`` is where each image stopped, ``predictions (N,)`` its answer there, ``seconds (G,)`` the time of each
    group, the decisions included, ``policy_seconds (G,)`` the decisions alone, ``full_seconds (G,)`` that of a run to
    the last exit beside it, empty where none was asked for.
    """

    exits: NDArray[np.int64]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    seconds: NDArray[np.float64]
    policy_seconds: NDArray[np.float64]
    full_seconds: NDArray[np.float64]
    batch_size: int
    stop: Stop

    def summary(self, policy: str, final_accuracy: float | None = None) -> EarlyStopTiming:
        """The numbers of a record; ``policy`` names the rule, ``final_accuracy`` is the last exit's on these images."""
        return EarlyStopTiming(
            policy=policy,
            stop=self.stop,
            batch_size=self.batch_size,
            images=len(self.exits),
            accuracy=float((self.predictions == self.labels).mean()),
            final_accuracy=final_accuracy,
            mean_exit=float(self.exits.mean()),
            latency=spread(self.seconds[:, None, None], seed=0)[0],
            full=spread(self.full_seconds[:, None, None], seed=0)[0] if len(self.full_seconds) else None,
            policy_share=float(self.policy_seconds.sum() / self.seconds.sum()),
        )


def stop_early(
    model: AnytimeModel,
    images: Tensor,
    labels: Tensor,
    policy: Policy,
    *,
    batch_size: int = 1,
    warm_up: int | None = None,
    beside: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> EarlyStop:
    """Run ``policy`` over ``images (N, D, H, W)``, which lie on the model's device already, and stop for real.

    ``warm_up`` groups are run untimed first (None: all of them, or ten single images). ``beside`` times a full run of
    every group too, before or after in turn. ``progress`` gets the number of images done.
    """
    if len(images) == 0 or len(images) != len(labels) or batch_size < 1:
        raise ValueError(
            f"images {tuple(images.shape)}, labels {tuple(labels.shape)}, batch_size {batch_size}: expected as many "
            "labels as images, at least one, and a batch size of at least 1"
        )
    clock = HostClock(images.device)
    groups = images.split(batch_size)
    if warm_up is None:
        warm_up = 10 if batch_size == 1 else len(groups)
    results, full = [], []
    with on_device(images.device), evaluating(model):
        for group in groups[:warm_up]:
            _stop_group(model, group, policy, clock)
            if beside:
                _run_full(model, group, clock)
        done = 0
        for number, group in enumerate(groups):
            if beside and number % 2:
                full.append(_run_full(model, group, clock))
            results.append(_stop_group(model, group, policy, clock))
            if beside and not number % 2:
                full.append(_run_full(model, group, clock))
            done += len(group)
            progress(done)
    return EarlyStop(
        exits=np.concatenate([result[0] for result in results]),
        predictions=np.concatenate([result[1] for result in results]),
        labels=labels.cpu().numpy().astype(np.int64),
        seconds=np.array([result[2] for result in results]),
        policy_seconds=np.array([result[3] for result in results]),
        full_seconds=np.array(full),
        batch_size=batch_size,
        stop="real" if batch_size == 1 or model.compacts else "simulated",
    )


Group = tuple[NDArray[np.int64], NDArray[np.int64], float, float]


def _stop_group(model: AnytimeModel, images: Tensor, policy: Policy, clock: HostClock) -> Group:
    """Exits, predictions, seconds, seconds of deciding, and images worked on per exit, for one group."""
    if len(images) == 1:
        return _stop_one(model, images, policy, clock)
    size, last = len(images), model.num_exits - 1
    exits, predictions = torch.full((size,), last), torch.zeros(size, dtype=torch.int64)
    open_ = torch.arange(size)  # which images the rows of the current answer are
    undecided = torch.ones(size, dtype=torch.bool)
    clock.start()
    run = cast("Generator[Tensor, Tensor | None, None]", model.stream(images))
    logits = next(run)
    for k in range(model.num_exits):
        clock.mark()  # the answer is there
        accept = torch.ones(len(open_), dtype=torch.bool) if k == last else _decision(policy, logits, k)
        leaving = accept & undecided[open_]
        exits[open_[leaving]] = k
        predictions[open_[leaving]] = logits.argmax(1).cpu()[leaving]
        undecided[open_[leaving]] = False
        clock.mark()  # the decision is taken
        if not bool(undecided.any()):
            break
        if model.compacts and bool(leaving.any()):
            open_ = open_[~leaving]
            logits = run.send((~leaving).to(logits.device))
        else:
            logits = next(run)
        if len(logits) != len(open_):
            raise ValueError(f"after a keep-mask exit {k + 1} has {len(logits)} rows, expected {len(open_)}")
    times = clock.read()
    # What is left of a model's work is never asked for: this is the stop.
    close_stream(run)
    deciding = float((times[1::2] - times[0::2]).sum())
    return exits.numpy(), predictions.numpy(), float(times[-1]), deciding


def _stop_one(model: AnytimeModel, images: Tensor, policy: Policy, clock: HostClock) -> Group:
    """The same for one image, without the bookkeeping that a deployed loop would not have either."""
    last = model.num_exits - 1
    clock.start()
    run = model.stream(images)
    for k, logits in enumerate(run):
        clock.mark()
        done = k == last or bool(_decision(policy, logits, k))
        clock.mark()
        if done:
            break
    times = clock.read()
    close_stream(run)
    deciding = float((times[1::2] - times[0::2]).sum())
    prediction = logits.argmax(1).cpu().numpy().astype(np.int64)
    return np.array([k]), prediction, float(times[-1]), deciding


def _run_full(model: AnytimeModel, images: Tensor, clock: HostClock) -> float:
    """Seconds until the last exit has answered, every earlier answer made on the way and none looked at."""
    clock.start()
    for _ in model.stream(images):
        pass
    clock.mark()
    return float(clock.read()[-1])


def _decision(policy: Policy, logits: Tensor, k: int) -> Tensor:
    accept = policy(logits, k)
    if accept.shape != (len(logits),) or accept.dtype != torch.bool:
        raise ValueError(
            f"the policy gave {accept.dtype} of shape {tuple(accept.shape)}, expected one boolean for each of "
            f"{len(logits)} answers"
        )
    return accept.cpu()
