"""Checks of what a model answers: form, repeatability, and agreement of all the ways to ask.

Each check takes a ``Subject``, makes one assertion and says in its message how to fix the method. Sources: the
contract in ``anytime_bench.methods.contract``; shapes as there, answers ``(E, B, C)``, images ``(B, D, H, W)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anytime_bench.conformance.fixture import (
    NotApplicable,
    Subject,
    forward_answers,
    require,
    require_equal,
    seeded,
    stream_answers,
    watch_answers,
)


def check_shapes(subject: Subject) -> None:
    """``stream`` and ``watch`` yield ``(B, C)`` per exit, ``forward`` gives ``(E, B, C)``; also for B = 1."""
    model, classes = subject.model(), subject.task.num_classes
    for batch in (1, 2):
        images = subject.images("shapes", batch)
        frames = images.expand(math.ceil(model.ticks[-1]) if len(model.ticks) else 1, *images.shape)
        expected = f"{model.num_exits} x {(batch, classes)}"
        for name, answers in (
            ("stream", stream_answers(model, images)),
            ("forward", list(forward_answers(model, images))),
            ("watch", watch_answers(model, frames)),
        ):
            tensors = all(isinstance(logits, Tensor) and logits.is_floating_point() for logits in answers)
            shapes = [tuple(logits.shape) for logits in answers] if tensors else []
            require(
                shapes == [(batch, classes)] * model.num_exits,
                f"{name} gave {_shapes(shapes) if tensors else 'something other than floating-point tensors'} for a "
                f"batch of {batch}, expected {expected}: one (batch, classes) tensor of logits per exit",
            )


def _shapes(shapes: list[tuple[int, ...]]) -> str:
    if len(set(shapes)) == 1:
        return f"{len(shapes)} x {shapes[0]}"
    return ", ".join(map(str, shapes)) or "no answers"


def check_finite(subject: Subject) -> None:
    """No answer holds NaN or infinity."""
    answers = stream_answers(subject.model(), subject.images("finite"))
    bad = [index for index, logits in enumerate(answers) if not bool(logits.isfinite().all())]
    require(not bad, f"exits {bad} hold NaN or infinity: look for a division by zero, log(0) or an overflow")


def check_deterministic(subject: Subject) -> None:
    """In eval mode two runs with different random seeds give the same answers."""
    images = subject.images("deterministic")
    require_equal(
        stream_answers(subject.model(), images, seed=1),
        stream_answers(subject.model(), images, seed=2),
        lambda k: f"exit {k} depends on the random seed in eval mode: tie dropout and noise to self.training",
    )


def check_interleaved_streams(subject: Subject) -> None:
    """Two streams asked in turn answer as each does alone: they share no state."""
    model, first, second = subject.model(), subject.images("interleaved a"), subject.images("interleaved b")
    alone = [stream_answers(model, images) for images in (first, second)]
    together: list[list[Tensor]] = [[], []]
    with torch.no_grad(), seeded(0):
        for answers in zip(model.stream(first.clone()), model.stream(second.clone()), strict=True):
            for row, logits in zip(together, answers, strict=True):
                row.append(logits.clone())
    for number in (0, 1):
        require_equal(
            together[number],
            alone[number],
            lambda k: (
                f"exit {k} differs when another stream of the same model runs in between: keep what a stream "
                "remembers in local variables of stream, not on the model"
            ),
        )


def check_prefix(subject: Subject) -> None:
    """``stream`` stopped at exit k has given exit k of ``forward``."""
    model, images = subject.model(), subject.images("prefix", 2)
    expected = forward_answers(model, images)
    # All exits once, and again for streams that really stop.
    for stop in sorted({0, model.num_exits // 2, model.num_exits - 1}):
        require_equal(
            stream_answers(model, images, stop=stop),
            expected[: stop + 1],
            lambda k: f"exit {k} of forward differs from stream stopped there: fix forward, or leave it out",
        )


def check_answer(subject: Subject) -> None:
    """``answer(images, k)`` is the k-th answer of ``stream``."""
    model, images = subject.model(), subject.images("answer")
    expected = stream_answers(model, images)
    with torch.no_grad():
        answers = [model.answer(images.clone(), k) for k in range(model.num_exits)]
    require_equal(answers, expected, lambda k: f"answer(images, {k}) differs from stream: fix answer, or leave it out")


def check_batch_order(subject: Subject) -> None:
    """Turning the batch round turns the answers round and changes nothing else."""
    model, images = subject.model(), subject.images("batch order", 3)
    turned = stream_answers(model, images.flip(0))
    require_equal(
        [logits.flip(0) for logits in turned],
        stream_answers(model, images),
        lambda k: f"exit {k} depends on the order of the batch: let no operation use a sample's position",
    )


def check_independent_samples(subject: Subject) -> None:
    """An image's answer stays when the rest of its batch is exchanged."""
    model, images = subject.model(), subject.images("independent samples", 3)
    others = subject.images("other samples", 3)
    mixed = torch.cat([images[:1], others[1:]])
    require_equal(
        [logits[:1] for logits in stream_answers(model, mixed)],
        [logits[:1] for logits in stream_answers(model, images)],
        lambda k: f"exit {k} depends on the other images of the batch: reduce over features only, never over dim 0",
    )


def check_independent_calls(subject: Subject) -> None:
    """An answer is the same whatever was asked before, also when that stream was stopped half-way."""
    model = subject.model()
    images, others = subject.images("calls"), subject.images("other calls")
    before = stream_answers(model, images)
    stream_answers(model, others, stop=0)
    forward_answers(model, others)
    after = stream_answers(model, images)
    on_used = stream_answers(model, others)
    on_fresh = stream_answers(subject.model(), others)
    require_equal(
        [*after, *on_used],
        [*before, *on_fresh],
        lambda k: f"exit {k % model.num_exits} depends on earlier calls: keep what a stream needs in local variables",
    )


def check_input_untouched(subject: Subject) -> None:
    """The images are the caller's: no call writes into them."""
    model, images = subject.model(), subject.images("input")
    passed = images.clone()
    with torch.no_grad():
        list(model.stream(passed))
        model(passed)
    require(
        torch.equal(passed, images),
        "the input images were changed: let no in-place operation (relu_, +=) work on them",
    )


def check_timing_mode(subject: Subject) -> None:
    """Timed answers (batch 1, ``stream``, inference mode) are those that are scored (batched ``forward``)."""
    model, images = subject.model(), subject.images("timing mode", 2)
    scored = forward_answers(model, images)
    with torch.inference_mode():
        timed = [torch.cat(pair) for pair in zip(*(list(model.stream(one[None])) for one in images), strict=True)]
    require_equal(
        timed,
        scored,
        lambda k: (
            f"exit {k} answers differently when it is timed (batch 1, inference mode) than when it is scored: "
            "take the same path whatever the batch size and the mode"
        ),
    )


def check_watch_causal(subject: Subject) -> None:
    """Answer k of ``watch`` stays when frames that arrive at or after ``ticks[k]`` are exchanged."""
    model = subject.model()
    count = math.ceil(model.ticks[-1]) + 1
    frames, others = subject.frames("frames", count), subject.frames("other frames", count)
    expected = watch_answers(model, frames)
    for k in sorted({0, model.num_exits // 3, 2 * model.num_exits // 3, model.num_exits - 1}):
        seen = math.ceil(model.ticks[k])
        answers = watch_answers(model, torch.cat([frames[:seen], others[seen:]]), stop=k)
        require_equal(
            answers,
            expected[: k + 1],
            lambda exit_index, seen=seen: (
                f"exit {exit_index} of watch depends on frames after frame {seen - 1}, which "  # type: ignore[misc]
                "have not arrived at its tick: use frames[j] only from tick j on"
            ),
        )


def check_compacts(subject: Subject) -> None:
    """With ``compacts``, samples kept through ``send`` get the answers they would have got in the full batch."""
    model, images = subject.model(), subject.images("compacts", 4)
    if not model.compacts or model.num_exits == 1:
        raise NotApplicable("the model does not accept keep-masks" if not model.compacts else "it has one exit")
    keep = torch.tensor([True, False, True, True])
    expected = stream_answers(model, images)
    with torch.no_grad():
        stream = model.stream(images.clone())
        answers = [next(stream), stream.send(keep), *stream]  # type: ignore[attr-defined]
    require_equal(
        answers,
        [expected[0], *(logits[keep] for logits in expected[1:])],
        lambda k: f"exit {k} is wrong after send(keep): drop the same rows from everything that is carried on",
    )
