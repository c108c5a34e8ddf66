"""The cascade's executors against the literal recursion, the plain ResNet and each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cascades import gap, image, randomised
from torchvision.models import resnet18, resnet50

from baselines.cascade.literal import LiteralCascade
from baselines.cascade.norm import TemporalNorm
from baselines.cascade.td import td_loss

architectures = st.fixed_dictionaries(
    {
        "blocks": st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple),
        "width": st.integers(1, 6),
        "schedule": st.sampled_from(["parallel", "serial"]),
        "delay": st.sampled_from(["osd", "ews"]),
        "alpha": st.sampled_from([0.0, 0.5, 0.9]),
        "heads": st.sampled_from(["single", "multi"]),
        "stem_delay": st.booleans(),
        "stem_pool": st.booleans(),
        "block": st.sampled_from(["basic", "bottleneck"]),
        "in_channels": st.sampled_from([1, 3]),
        "num_exits": st.sampled_from([None, 1, 2, 9]),
        "seed": st.integers(0, 9),
    }
)
sizes = st.tuples(st.integers(8, 13), st.integers(8, 13), st.integers(1, 3))


@given(options=architectures, size=sizes)
@settings(deadline=None, max_examples=60)
@torch.no_grad()
def test_all_executors_agree_with_the_literal_recursion(options: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = randomised(**options)
    x = image(model, *size)
    expected = LiteralCascade(model).eval()(x)
    assert gap(model(x), expected) <= 1e-12
    assert gap(torch.stack(list(model.stream(x))), expected) <= 1e-12
    k = (model.num_exits - 1) // 2
    assert gap(model.answer(x, k), expected[k]) <= 1e-12
    assert gap(model.answer(x, model.num_exits - 1), expected[-1]) <= 1e-12
    frames = torch.randn(model.num_exits, *x.shape, dtype=x.dtype)
    if model.schedule == "parallel" or model.delay == "ews" or model.stem_delay:  # rows are those of the last step
        assert gap(torch.stack(list(model.watch(frames))), LiteralCascade(model).eval()(frames)) <= 1e-12


@given(options=architectures, size=sizes)
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_single_precision_executors_agree(options: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = randomised(torch.float32, **options)
    x = image(model, *size)
    assert gap(model(x), torch.stack(list(model.stream(x)))) <= 1e-5


@given(options=architectures, size=sizes, lam=st.sampled_from([0.0, 0.4, 1.0]))
@settings(deadline=None, max_examples=40)
def test_training_gives_the_literal_gradients_and_statistics(
    options: dict[str, Any], size: tuple[int, int, int], lam: float
) -> None:
    if options["num_exits"] == 1:  # no residual, nothing to learn but the stem
        options = options | {"num_exits": None}
    model = randomised(**options).train()
    x, labels = image(model, 8 + size[0], 8 + size[1], 3), torch.randint(0, 5, (3,))
    literal = LiteralCascade(model).train()
    expected_logits = literal(x)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(td_loss(expected_logits, labels, lam), parameters, allow_unused=True)
    logits = model(x)
    ours = torch.autograd.grad(td_loss(logits, labels, lam), parameters, allow_unused=True)
    assert gap(logits, expected_logits) <= 1e-10
    scale = max(g.abs().max() for g in expected if g is not None)
    for a, b in zip(ours, expected, strict=True):
        a, b = (torch.zeros(()) if g is None else g for g in (a, b))
        assert (a - b).abs().max() <= 1e-10 * scale
    if model.schedule == "serial" and model.delay == "osd":
        return  # rows that no answer reads are not computed; the row that is read has a test of its own
    if model.delay == "ews" and model.num_exits > len(model.blocks) + 1:
        return  # the last row learns from all the steps that share it; the literal recursion keeps them apart
    for norm, means in literal.means.items():
        for row in range(min(norm.rows, model.num_exits)):
            assert gap(norm.running_mean[row], means[row]) <= 1e-10
            assert gap(norm.running_var[row], literal.variances[norm][row]) <= 1e-10


def test_the_serial_schedule_learns_the_statistics_of_the_step_it_uses() -> None:
    model = randomised(schedule="serial", blocks=(2, 1)).train()
    literal, x = LiteralCascade(model).train(), image(model)
    literal(x), model(x)
    for number, block in enumerate(model.blocks, 1):
        for norm in (block.norm1, block.norm2):
            assert gap(norm.running_mean[0], literal.means[norm][number - 1]) <= 1e-12
            assert gap(norm.running_var[0], literal.variances[norm][number - 1]) <= 1e-12


@pytest.mark.parametrize("frames_seed", [3, 4])
def test_training_through_stream_and_forward_is_the_same(frames_seed: int) -> None:
    torch.manual_seed(frames_seed)
    model, labels = randomised(width=8, blocks=(1, 1, 1)).train(), torch.tensor([1, 2])
    x = image(model)
    by_layer = torch.autograd.grad(td_loss(model(x), labels, 0.3), list(model.parameters()))
    by_step = torch.autograd.grad(td_loss(torch.stack(list(model.stream(x))), labels, 0.3), list(model.parameters()))
    assert all(gap(a, b) <= 1e-10 for a, b in zip(by_layer, by_step, strict=True))


@pytest.mark.parametrize(("block", "reference"), [("basic", resnet18), ("bottleneck", resnet50)])
@torch.no_grad()
def test_the_last_exit_is_torchvisions_resnet_with_the_same_weights(block: str, reference: Any) -> None:
    blocks = (2, 2, 2, 2) if block == "basic" else (3, 4, 6, 3)
    model = randomised(blocks=blocks, width=64, num_classes=10, block=block, schedule="serial")
    parallel = randomised(blocks=blocks, width=64, num_classes=10, block=block)
    theirs = reference(num_classes=10).double().eval()
    theirs.conv1 = model.stem.conv
    copy_norm(model.stem.norm, theirs.bn1)
    theirs.fc = model.heads[0]
    residuals = [b for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4) for b in stage]
    for ours, their in zip(model.blocks, residuals, strict=True):
        for n in (1, 2) if block == "basic" else (1, 2, 3):
            setattr(their, f"conv{n}", getattr(ours, f"conv{n}"))
            copy_norm(getattr(ours, f"norm{n}"), getattr(their, f"bn{n}"))
        if their.downsample is not None:
            their.downsample = ours.shortcut
    for ours, serial in zip(parallel.modules(), model.modules(), strict=True):
        if isinstance(ours, TemporalNorm) and isinstance(serial, TemporalNorm):
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(ours, name).copy_(getattr(serial, name).expand_as(getattr(ours, name)))
        elif isinstance(ours, torch.nn.Conv2d | torch.nn.Linear):
            ours.load_state_dict(serial.state_dict())
    x = image(model, 16, batch=1)
    assert gap(model(x)[-1], theirs(x)) <= 1e-10
    assert gap(parallel(x)[-1], theirs(x)) <= 1e-10
    assert gap(model.answer(x, sum(blocks)), theirs(x)) <= 1e-10
    cuts = model(x)
    for their in reversed(residuals):  # exit k is the network without the residual branches above block k
        getattr(their, "bn2" if block == "basic" else "bn3").register_forward_hook(lambda *a: torch.zeros_like(a[2]))
        if (k := residuals.index(their)) % 3 == 0:
            assert gap(cuts[k], theirs(x)) <= 1e-10


def copy_norm(ours: TemporalNorm, theirs: torch.nn.BatchNorm2d) -> None:
    for name in ("weight", "bias"):
        getattr(theirs, name).data.copy_(getattr(ours, name))
    theirs.running_mean.copy_(ours.running_mean[-1])
    theirs.running_var.copy_(ours.running_var[-1])


@torch.no_grad()
def test_more_exits_than_depth_repeat_the_full_answer() -> None:
    model = randomised(blocks=(1, 1), num_exits=7)
    logits = model(image(model))
    assert logits.shape[0] == 7
    assert all(torch.equal(row, logits[2]) for row in logits[3:])
    assert not torch.equal(logits[1], logits[2])


@torch.no_grad()
def test_changing_a_training_step_later_is_seen_by_the_next_evaluation() -> None:
    model = randomised(torch.float32, blocks=(1, 1, 1), width=8)
    x = image(model, 8)
    before = model(x)
    for p in model.parameters():
        p.data.mul_(1.1)
    assert gap(model(x), torch.stack(list(model.stream(x)))) <= 1e-5
    assert not torch.equal(model(x), before)
