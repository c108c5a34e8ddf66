"""The cascade on a ViT's residual stream: executors against the literal recursion, the plain network and each other."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_vit import CARD, SIZE, built, gap, images_for
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anytime_bench.harness.cost import count_costs
from anytime_bench.harness.operator_recording import operator_graph
from anytime_bench.harness.schedule import span
from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.cascade.td import td_loss
from baselines.vit.cascade import CascadedViT, LazyStream
from baselines.vit.methods import CascadedViTMethod, CascadedViTOptions


def literal(model: CascadedViT, frames: Tensor) -> Tensor:
    """The recursion as it stands: every branch at every step, frame k at step k."""
    network, before, answers = model.network, None, []
    for k in range(model.num_exits):
        stream = network.norm_pre(network._pos_embed(network.patch_embed(frames[k])))
        inputs = []
        for number in range(1, model.length + 1):
            inputs.append(stream)
            if k >= model.start(number):
                block, seen = network.blocks[(number - 1) // 2], before[number - 1]
                if number % 2:
                    residual = block.ls1(block.attn(block.norm1(seen)))
                else:
                    residual = block.ls2(block.mlp(block.norm2(seen)))
                stream = stream + residual
        before = inputs
        head = model.readouts[k] if k < len(model.readouts) else network
        answers.append(head.forward_head(head.norm(stream)))
    return torch.stack(answers)


setups = st.fixed_dictionaries(
    {
        "depth": st.integers(1, 3),
        "schedule": st.sampled_from(["parallel", "serial"]),
        "heads": st.sampled_from(["single", "multi"]),
        "pool": st.sampled_from(["token", "avg"]),
        "seed": st.integers(0, 9),
    }
)


@given(setup=setups, batch=st.integers(1, 3))
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_all_executors_agree_with_the_literal_recursion(setup: dict[str, Any], batch: int) -> None:
    model = built(**setup)
    x = images_for(model, batch)
    expected = literal(model, x.expand(model.num_exits, *x.shape))
    assert gap(model(x), expected) <= 1e-12
    assert gap(torch.stack(list(model.stream(x))), expected) <= 1e-12
    assert gap(torch.stack([model.answer(x, k) for k in range(model.num_exits)]), expected) <= 1e-12
    for run in model.executions().values():
        assert gap(torch.stack(list(run(x))), expected) <= 1e-12
    frames = torch.randn(model.num_exits + 1, *x.shape, dtype=x.dtype)
    assert gap(torch.stack(list(model.watch(frames))), literal(model, frames)) <= 1e-12


@given(setup=setups, lam=st.sampled_from([0.0, 0.4, 1.0]))
@settings(deadline=None, max_examples=15)
def test_training_gives_the_literal_gradients(setup: dict[str, Any], lam: float) -> None:
    model = built(**setup).train()
    x, labels, parameters = images_for(model), torch.tensor([2, 0]), list(model.parameters())
    expected = torch.autograd.grad(
        td_loss(literal(model, x.expand(model.num_exits, *x.shape)), labels, lam), parameters
    )
    for answers in (model(x), torch.stack(list(model.stream(x)))):
        ours = torch.autograd.grad(td_loss(answers, labels, lam), parameters)
        scale = max(float(g.abs().max()) for g in expected)
        assert all(float((a - b).abs().max()) <= 1e-10 * scale for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit2", "deit3_small_patch16_224"])
@torch.no_grad()
def test_the_last_exit_is_timms_network(name: str) -> None:
    for schedule in ("parallel", "serial"):
        model = built(model=name, schedule=schedule)
        x = images_for(model)
        plain = model.network(x)  # timm's own forward pass
        for last in (model(x)[-1], list(model.stream(x))[-1], model.answer(x, model.length)):
            assert gap(last, plain) <= 1e-12


@torch.no_grad()
def test_a_serial_exit_is_timms_network_without_the_branches_above_it() -> None:
    model = built(schedule="serial", depth=3)
    x = images_for(model)
    answers = model(x)
    for k in range(model.length, -1, -1):
        assert gap(answers[k], model.network(x)) <= 1e-12
        if k:  # take branch k away: attention for odd k, MLP for even
            block = model.network.blocks[(k - 1) // 2]
            setattr(block, "drop_path1" if k % 2 else "drop_path2", Zero())


class Zero(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@torch.no_grad()
def test_the_schedules_agree_where_both_have_all_that_they_need() -> None:
    parallel, serial = built(depth=3), built(depth=3, schedule="serial")
    x = images_for(parallel)
    ours, theirs = parallel(x), serial(x)
    assert gap(ours[0], theirs[0]) == 0  # the embedding alone
    assert gap(ours[-1], theirs[-1]) <= 1e-12
    assert all(gap(a, b) > 1e-6 for a, b in zip(ours[1:-1], theirs[1:-1], strict=True))


@torch.no_grad()
def test_the_parallel_schedule_is_jacobis_iteration_and_settles_branch_by_branch() -> None:
    model = built(depth=3)
    x, run = images_for(model), LazyStream(model)
    seen = []  # per step, what each branch's residual was computed of: the stream of the step before
    for k in range(model.num_exits):
        run.advance(x if k == 0 else None)
        seen.append([state.source for state in run.states])
    for number in range(1, model.length + 1):
        settled = model.plain(x, number - 1)  # what the plain network's branch sees
        gaps = [gap(sources[number - 1], settled) for sources in seen[1:]]
        assert all(g <= 1e-12 for g in gaps[number - 1 :])
        assert number == 1 or gaps[number - 2] > 1e-6
        assert len({id(sources[number - 1]) for sources in seen[number:]}) == 1  # and is then computed no more


@pytest.mark.parametrize("schedule", ["parallel", "serial"])
def test_macs_per_exit_equal_a_count_by_hand(schedule: str) -> None:
    width, depth, classes, patch, side, channels = 24, 3, 3, 2, 8, 1
    options = CascadedViTOptions(
        model="vit_tiny_patch16_224", patch_size=patch, embed_dim=width, depth=depth, num_heads=3, schedule=schedule
    )
    card = TaskCard("small", "t", ("a", "b", "c"), (channels, side, side), {}, (0.0,), (1.0,))
    costs = count_costs(CascadedViTMethod(options).build(card), card.shape)
    patches = (side // patch) ** 2
    tokens = patches + 1
    start = patches * patch**2 * channels * width
    attention = tokens * 4 * width * width + 2 * tokens**2 * width
    branches = [attention, 2 * tokens * width * 4 * width] * depth  # F_1..F_L
    head, length = width * classes, 2 * depth
    if schedule == "parallel":  # step k computes the branches that have not settled: k..L
        steps = [sum(branches[k - 1 :]) for k in range(1, length + 1)]
        assert sum(steps) == sum(number * cost for number, cost in enumerate(branches, 1))
        assert costs.macs_by_execution["dense"] == tuple(
            (k + 1) * (start + head) + k * sum(branches) for k in range(length + 1)
        )
    else:
        steps = branches
    assert costs.macs == tuple(start + (k + 1) * head + sum(steps[:k]) for k in range(length + 1))
    plain = start + sum(branches) + head
    assert costs.macs_prefix[-1] == plain
    assert costs.macs_prefix[1] == start + steps[0] + head
    assert costs.ticks == tuple(range(1, length + 2))


@pytest.mark.parametrize("schedule", ["parallel", "serial"])
def test_the_longest_chain_to_an_exit_is_its_costliest_branches_and_to_the_last_a_plain_pass(schedule: str) -> None:
    model = built(torch.float32, depth=3, schedule=schedule)
    graph = operator_graph(model, images_for(model, batch=1))
    tokens, width = 5, 12
    start, head = 4 * 16 * 3 * width, width * 3
    attention, mlp = tokens * 4 * width**2 + 2 * tokens**2 * width, 8 * tokens * width**2
    branches = [attention, mlp] * 3
    for k, chain in enumerate(span(graph, graph.macs)):
        # A chain passes branches in their order, one a step; the serial schedule has no others than the first k.
        longest = sum(sorted(branches)[len(branches) - k :] if schedule == "parallel" else branches[:k])
        assert chain == start + longest + head


def test_nothing_runs_before_the_first_answer_is_asked_for() -> None:
    with FlopCounterMode(display=False) as counter:
        built().stream(torch.randn(1, 3, 8, 8, dtype=torch.float64))
    assert counter.get_total_flops() == 0


@pytest.mark.parametrize("schedule", ["parallel", "serial"])
@pytest.mark.parametrize("heads", ["single", "multi"])
@torch.no_grad()
def test_kept_samples_go_on_as_if_alone(schedule: str, heads: str) -> None:
    model = built(schedule=schedule, heads=heads)
    x = images_for(model, batch=5)
    expected, stream, kept = model(x), model.stream(x), torch.arange(5)
    next(stream)
    for k in range(1, model.num_exits):
        if k in (1, 3):
            keep = torch.ones(len(kept), dtype=torch.bool)
            keep[k - 1] = False
            logits, kept = stream.send(keep), kept[keep]
        else:
            logits = next(stream)
        assert gap(logits, expected[k, kept]) <= 1e-12


@torch.no_grad()
def test_dropping_samples_makes_no_settled_branch_run_again() -> None:
    model, keep = built(), torch.tensor([True, True, False, False])
    dropped, alone = model.stream(images_for(model, batch=4)), model.stream(images_for(model, batch=2))
    next(dropped), next(alone)
    for k in range(1, model.num_exits):
        with FlopCounterMode(display=False) as ours:
            dropped.send(keep if k == 1 else None)
        with FlopCounterMode(display=False) as theirs:
            next(alone)
        assert ours.get_total_flops() == theirs.get_total_flops() > 0


@pytest.mark.parametrize("schedule", ["parallel", "serial"])
@torch.no_grad()
def test_an_answer_never_depends_on_later_frames_nor_on_another_run(schedule: str) -> None:
    model = built(schedule=schedule)
    frames = torch.randn(model.num_exits + 1, 2, 3, 8, 8, dtype=torch.float64)
    expected = list(model.watch(frames))
    for k in range(model.num_exits):
        changed = frames.clone()
        changed[k + 1 :] = torch.nan
        seen = list(islice(model.watch(changed), k + 1))
        assert all(torch.equal(a, b) for a, b in zip(expected, seen, strict=False))
    both = zip(model.watch(frames), model.watch(frames.flip(0)), strict=True)
    assert all(torch.equal(pair[0], answer) for pair, answer in zip(both, expected, strict=True))


def test_the_loss_is_td_with_the_schedules_lambda_or_that_of_the_plain_network() -> None:
    labels, progress = torch.tensor([2, 0]), Progress(1, 1, 1, 1)
    for options, lam in (({}, 0.5), ({"schedule": "serial"}, 1.0), ({"lam": 0.0}, 0.0)):
        model = built(**options)
        x = images_for(model)
        loss = CascadedViTMethod(CascadedViTOptions(**options)).training_loss(model, x, labels, progress)
        assert torch.equal(loss, td_loss(model(x), labels, lam))
    model = built(loss="last")
    x = images_for(model)
    last = CascadedViTMethod(CascadedViTOptions(loss="last")).training_loss(model, x, labels, progress)
    assert gap(last, torch.nn.functional.cross_entropy(model.network(x), labels)) <= 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "random"}, "schedule is 'random'; expected parallel or serial"),
        ({"heads": "two"}, "heads is 'two'"),
        ({"loss": "ce"}, "loss is 'ce'"),
        ({"loss": "last", "heads": "multi"}, "loss=last trains no early head"),
        ({"lam": 1.5}, "lam is 1.5"),
        ({"model": "vit_medium_patch16_rope_reg1_gap_256"}, "not a timm model of the class VisionTransformer"),
        ({"model": "vit_small_patch16_18x2_224", "depth": 1}, "ParallelThingsBlock do not add attention and MLP"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    method = CascadedViTMethod(CascadedViTOptions(**{**SIZE, **options}))
    with pytest.raises(ValueError, match=message):
        method.build(CARD)


def test_bad_images_frames_and_exits_are_refused() -> None:
    model = built(torch.float32)
    for call in (model, lambda x: model.answer(x, 1), lambda x: model.stream(x)):
        with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\).*\(B, 3, 8, 8\)"):
            call(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"\(4, 2, 3, 8, 8\).*5 or more"):
        model.watch(torch.zeros(4, 2, 3, 8, 8))
    with pytest.raises(IndexError, match="exit 5 was asked for"):
        model.answer(torch.zeros(1, 3, 8, 8), 5)
