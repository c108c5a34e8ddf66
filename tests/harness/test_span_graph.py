"""Operator graphs of models whose dependencies are known: by storage, with barriers, and nothing left behind."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from anytime_bench import AnytimeModel, load_method, load_task
from anytime_bench.harness.cost import count_costs
from anytime_bench.harness.operator_graph import OperatorGraph, SpanError
from anytime_bench.harness.operator_recording import operator_graph
from anytime_bench.harness.schedule import span, work

Body = Callable[[Tensor], Iterator[Tensor]]


class Model(AnytimeModel):
    """A stream given as a function, so that each test shows the operators it is about."""

    def __init__(self, body: Body, num_exits: int = 1) -> None:
        super().__init__()
        self.body, self.num_exits, self.ticks = body, num_exits, range(1, num_exits + 1)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        yield from self.body(images)


def recorded(body: Body, num_exits: int = 1) -> OperatorGraph:
    return operator_graph(Model(body, num_exits), torch.ones(1, 4, 2, 2))


def edges(graph: OperatorGraph) -> list[tuple[str, tuple[int, ...]]]:
    return [(operator.name, operator.after) for operator in graph.operators]


# ---------------------------------------------------------------- graphs with known answers


def test_chain_of_two_answers() -> None:
    def body(x: Tensor) -> Iterator[Tensor]:
        x = x.exp()
        yield x
        yield x.neg().sqrt()

    made = recorded(body, 2)
    assert edges(made) == [("exp", ()), ("neg", (0,)), ("sqrt", (1,))]
    assert made.answers == ((0,), (2,))


def test_two_branches_of_known_size_and_a_diamond() -> None:
    """MACs of the longer branch alone are the span: 4 x 4 x 4 products and one of 4 x 4 x 4 after the branches meet."""

    def body(x: Tensor) -> Iterator[Tensor]:
        square = x.flatten(2).reshape(4, 4)
        left = square @ square
        right = (square @ square) @ square
        yield left @ right

    made = recorded(body)
    assert edges(made) == [("mm", ()), ("mm", ()), ("mm", (1,)), ("mm", (0, 2))]
    assert work(made, made.macs).tolist() == [4 * 64]
    assert span(made, made.macs).tolist() == [3 * 64]


def test_views_are_free_and_writes_on_them_reach_the_whole_tensor() -> None:
    def body(x: Tensor) -> Iterator[Tensor]:
        y = x.exp()
        left, right = y.chunk(2, dim=1)
        left.add_(1)  # waits for exp
        right.mul_(2)  # one storage: waits for add_
        yield y.transpose(1, 2).neg()  # reads both halves: waits for mul_, the last to write

    assert edges(recorded(body)) == [("exp", ()), ("add_", (0,)), ("mul_", (1,)), ("neg", (2,))]


def test_a_write_waits_for_those_who_still_read() -> None:
    def body(x: Tensor) -> Iterator[Tensor]:
        y = x.exp()
        first, second = y.neg(), y.sqrt()
        y.add_(1)  # may not overwrite what neg and sqrt read
        yield first + second + y

    assert edges(recorded(body))[1:4] == [("neg", (0,)), ("sqrt", (0,)), ("add_", (0, 1, 2))]


def test_a_shared_buffer_written_twice() -> None:
    def body(x: Tensor) -> Iterator[Tensor]:
        buffer = torch.empty(1, 4, 2, 2)
        torch.exp(x, out=buffer)
        early = buffer.neg()
        torch.sqrt(x, out=buffer)  # waits for the write before it and for neg
        yield early + buffer

    assert edges(recorded(body)) == [
        ("empty", ()), ("exp", (0,)), ("neg", (1,)), ("sqrt", (1, 2)), ("add", (2, 3)),
    ]  # fmt: skip


def test_memory_that_is_used_again_is_no_dependency() -> None:
    """The allocator hands a freed address to the next tensor of its size; that makes no chain."""

    def body(x: Tensor) -> Iterator[Tensor]:
        results = []
        for _ in range(20):
            results.append(x.exp().neg().sum())  # exp and neg are freed here
        yield torch.stack(results)

    made = recorded(body)
    assert [operator.after for operator in made.operators if operator.name == "exp"] == [()] * 20


def test_writes_to_a_buffer_of_the_model_are_followed() -> None:
    model = Model(lambda x: iter(()))
    model.register_buffer("total", torch.zeros(1, 4, 2, 2))

    def body(x: Tensor) -> Iterator[Tensor]:
        model.get_buffer("total").zero_().add_(x)
        yield model.get_buffer("total").neg()

    model.body = body
    made = operator_graph(model, torch.ones(1, 4, 2, 2))
    assert edges(made) == [("zero_", ()), ("add_", (0,)), ("neg", (1,))]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item() > 0,
        lambda x: bool(x.sum() > 0),
        lambda x: x.sum().tolist() > 0,
        lambda x: float(x.sum().numpy()) > 0,
        lambda x: len(x.sum().view(1).nonzero()) > 0,
        lambda x: len(x.sum().view(1)[torch.ones(1, dtype=torch.bool)]) > 0,
    ],
    ids=["item", "bool", "tolist", "numpy", "nonzero", "mask"],
)
def test_what_steers_python_is_a_barrier(read: Callable[[Tensor], bool]) -> None:
    """Everything issued after Python has looked waits for what it saw; what was issued before does not."""

    def body(x: Tensor) -> Iterator[Tensor]:
        before = x.exp()
        assert read(x)
        yield before + x.sqrt()

    made = recorded(body)
    names = [operator.name for operator in made.operators]
    sqrt, seen = made.operators[names.index("sqrt")], made.operators[names.index("sum")]
    assert made.operators[names.index("exp")].after == seen.after == ()

    def reached(index: int) -> set[int]:
        return {index}.union(*map(reached, made.operators[index].after))

    assert names.index("sum") in set().union(*map(reached, sqrt.after))
    assert names.index("exp") not in set().union(*map(reached, sqrt.after))


def test_indexing_by_whole_numbers_is_no_barrier() -> None:
    def body(x: Tensor) -> Iterator[Tensor]:
        picked = x[torch.tensor([0, 0])]
        yield picked.sum() + x.exp().sum()

    made = recorded(body)
    assert not any(operator.barrier for operator in made.operators)


def test_an_answer_chosen_by_python_waits_for_the_choice() -> None:
    def body(x: Tensor) -> Iterator[Tensor]:
        left, right = x.exp(), x.sqrt()
        yield left if x.sum().item() > 0 else right

    made = recorded(body)
    names = [operator.name for operator in made.operators]
    assert set(made.answers[0]) == {names.index("exp"), len(names) - 1}


def test_one_huge_and_many_small_blocks() -> None:
    class Uneven(AnytimeModel):
        num_exits, ticks = 1, (1,)

        def __init__(self) -> None:
            super().__init__()
            self.huge = nn.Linear(4, 64 * 4, bias=False)
            self.small = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(12))

        def stream(self, images: Tensor) -> Iterator[Tensor]:
            pooled = images.mean((2, 3))
            total = self.huge(pooled).view(-1, 64, 4).sum(1)
            for layer in self.small:
                total = total + layer(pooled)
            yield total

    made = operator_graph(Uneven(), torch.ones(1, 4, 2, 2))
    assert work(made, made.macs).tolist() == [4 * 256 + 12 * 16]
    assert span(made, made.macs).tolist() == [4 * 256]
    assert [operator.module for operator in made.operators if operator.macs][:2] == ["huge", "small.0"]


# ---------------------------------------------------------------- real models


@pytest.mark.parametrize("name", ["serial_ce", "cascaded_td", "sdn", "msdnet"])
def test_work_in_macs_is_the_macs_axis(name: str, digits_card) -> None:
    """Two ways to one number: MACs summed over operators that answers need, and MACs counted at each yield."""
    model = load_method(name, **SMALL[name]).build(digits_card)
    made = operator_graph(model, torch.randn(1, *digits_card.shape))
    assert work(made, made.macs).tolist() == list(count_costs(model, digits_card.shape).macs)
    again = operator_graph(model, torch.randn(2, *digits_card.shape))
    assert span(again, again.macs).tolist() == (2 * span(made, made.macs)).tolist()


def test_the_longest_chain_of_a_cascade_is_one_plain_pass(digits_card) -> None:
    """The paper's promise, counted: with a lane for each block, full depth is there after the MACs of one pass."""
    cascade = load_method("cascaded_td", **SMALL["cascaded_td"]).build(digits_card)
    plain = load_method("serial_ce", **SMALL["serial_ce"]).build(digits_card)
    image = torch.randn(1, *digits_card.shape)
    made, single = operator_graph(cascade, image), operator_graph(plain, image)
    assert work(made, made.macs)[-1] > 3 * work(single, single.macs)[-1]
    assert span(made, made.macs)[-1] == span(single, single.macs)[-1]


SMALL: dict[str, dict[str, object]] = {
    "serial_ce": {"width": 8, "stem_pool": False},
    "cascaded_td": {"width": 8, "stem_pool": False},
    "sdn": {"width": 8, "stem_pool": False},
    "msdnet": {"blocks": 3, "base": 1, "step": 1, "channels": 8, "growth": 4, "scale_factors": [1, 2],
               "bottleneck_factors": [1, 2], "classifier_channels": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def digits_card():
    return load_task("digits").card


# ---------------------------------------------------------------- nothing left behind


class Watched(AnytimeModel):
    """Keeps weak references to what it computes and notes, at each exit, how many of these tensors are alive."""

    num_exits, ticks = 3, (1, 2, 3)
    alive: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        made = []
        x = images
        for layer in self.layers:
            for step in (layer, torch.relu, torch.exp):
                x = step(x)
                made.append(weakref.ref(x.untyped_storage()))
            self.alive.append(sum(ref() is not None for ref in made))
            yield x.mean((2, 3))


def test_no_tensor_is_kept_alive() -> None:
    model, images = Watched().eval(), torch.randn(1, 4, 4, 4)
    with torch.inference_mode():
        list(model.stream(images))
    alone = list(model.alive)
    model.alive.clear()
    operator_graph(model, images)
    assert model.alive == alone


def test_the_model_is_left_as_it_was() -> None:
    model, images = Watched().train(), torch.randn(1, 4, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.random.get_rng_state()
    operator_graph(model, images)
    assert model.training
    assert all(layer.training for layer in model.layers)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not nn.modules.module._global_forward_hooks
    assert not nn.modules.module._global_forward_pre_hooks


# ---------------------------------------------------------------- bad input


def raising(x: Tensor) -> Iterator[Tensor]:
    yield x.sum((2, 3))
    raise RuntimeError("no more")


@pytest.mark.parametrize(
    ("body", "exits", "says"),
    [
        (raising, 2, r"stream raised after 1 answers: .*test_span_graph.py:\d+: RuntimeError: no more"),
        (lambda x: iter([x]), 2, "stream gave 1 answers, but num_exits is 2"),
        (lambda x: iter([x, x]), 1, "stream gave 2 answers, but num_exits is 1"),
        (lambda x: iter([3.0]), 1, r"stream gave exit 0 as float, expected logits \(B, C\)"),
        (lambda x: iter([x.to_sparse()]), 1, "torch.sparse_coo tensor, which has no storage to follow"),
    ],
)
def test_streams_that_break_the_contract(body: Body, exits: int, says: str) -> None:
    with pytest.raises(SpanError, match=says):
        recorded(body, exits)
