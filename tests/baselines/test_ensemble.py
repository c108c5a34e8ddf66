"""Ensembles of independent nets: answers, costs, and a training in which no net feels another."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from anytime_bench.harness.cost import count_costs
from anytime_bench.methods.contract import Progress
from anytime_bench.tasks.task import TaskCard
from baselines.ensemble import Ensemble, EnsembleOptions, IndependentNets
from baselines.static import Static, StaticOptions
from baselines.wrappers import MeanModel

DIGITS = TaskCard("digits", "t", tuple("abcdefghij"), (1, 8, 8), {}, (0.0,), (1.0,))
SIZES = ["b1w50", "b2w50", "b4w100"]


def ensemble(mode: str) -> tuple[Ensemble, IndependentNets | MeanModel]:
    torch.manual_seed(0)
    method = Ensemble(EnsembleOptions(mode, SIZES, width=8, stem_pool=False))
    model = method.build(DIGITS).double()
    assert isinstance(model, IndependentNets | MeanModel)
    model.train()(images())  # statistics that differ from net to net
    return method, model.eval()


def images() -> torch.Tensor:
    return torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_each_answer_is_its_own_nets():
    _, model = ensemble("last")
    expected = torch.stack([net(images()) for net in model.nets])
    assert torch.equal(model(images()), expected)
    assert torch.equal(torch.stack([model.answer(images(), k) for k in range(3)]), expected)


@torch.no_grad()
def test_the_mean_is_that_of_the_nets_probabilities():
    _, last = ensemble("last")
    _, mean = ensemble("mean")
    mean.base.load_state_dict(last.state_dict())
    probabilities = last(images()).softmax(2)
    for k, answer in enumerate(mean.stream(images())):
        assert torch.allclose(answer.exp(), probabilities[: k + 1].mean(0), atol=1e-12)
        assert torch.allclose(answer, mean.answer(images(), k), atol=1e-12)


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_training_together_is_training_alone(mode):
    method, model = ensemble(mode)
    targets = torch.arange(6)
    method.training_loss(model.train(), images(), targets, Progress(1, 1, 1, 1)).backward()
    _, alone = ensemble("last")
    for net, trained in zip(alone.train().nets, model.base.nets if mode == "mean" else model.nets, strict=True):
        F.cross_entropy(net(images()), targets).backward()
        for one, other in zip(net.parameters(), trained.parameters(), strict=True):
            assert torch.allclose(one.grad, other.grad, atol=1e-12)


@pytest.mark.parametrize("mode", ["last", "mean"])
def test_costs_are_the_sum_over_the_nets_so_far(mode):
    _, model = ensemble(mode)
    counted = count_costs(model, DIGITS.shape)
    alone = [count_costs(Static(StaticOptions(size, 8, False)).build(DIGITS), DIGITS.shape) for size in SIZES]
    assert counted.macs == tuple(sum(one.macs[0] for one in alone[: k + 1]) for k in range(3))
    assert counted.macs_prefix == (counted.macs if mode == "mean" else tuple(one.macs[0] for one in alone))
    assert counted.ticks == (2, 5, 10)
    # The first net by hand: a stem and one block of 4 channels on 8x8.
    assert counted.macs[0] == 9 * 1 * 4 * 64 + 2 * 9 * 4 * 4 * 64 + 4 * 10


@torch.no_grad()
def test_a_kept_sample_goes_on_alone():
    _, model = ensemble("mean")
    keep = torch.tensor([True, False, False, True, True, False])
    full, stream = model(images()), model.stream(images())
    next(stream)
    assert torch.allclose(stream.send(keep), full[1][keep], atol=1e-12)
    assert torch.allclose(next(stream), full[2][keep], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EnsembleOptions(mode="vote"), "mode is 'vote'; expected last or mean"),
        (EnsembleOptions(sizes=[]), "sizes is empty"),
        (EnsembleOptions(sizes=["b3w50", "huge"]), "size is 'huge'"),
        (EnsembleOptions(width=0), "width"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(options).build(DIGITS)


def test_an_exit_that_does_not_exist_is_an_index_error():
    with pytest.raises(IndexError, match="exit 3 was asked for"):
        ensemble("last")[1].answer(images(), 3)
