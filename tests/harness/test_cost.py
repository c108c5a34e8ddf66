"""Costs read off a run: exact MACs of hand-countable models, and every fault a method can have is named."""

import pytest
import torch
from torch import nn

from anytime_bench.harness.cost import CostError, count_costs
from anytime_bench.methods.contract import AnytimeModel

SHAPE = (1, 2, 3)  # six inputs


class Ladder(AnytimeModel):
    """Linear layers 6 -> 8 -> 8 with a head of four classes after each: 48 + 32 and 64 + 32 MACs."""

    num_exits, ticks = 2, (1, 2)

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8)])
        self.heads = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4)])
        self.dropout = nn.Dropout(0.5)

    def features(self, images):
        x = images.flatten(1)
        for layer in self.body:
            x = layer(x)
            yield x

    def stream(self, images):
        for head, x in zip(self.heads, self.features(images), strict=True):
            yield head(self.dropout(x))


class Direct(Ladder):
    """Skips the earlier head when one exit alone is asked for."""

    def answer(self, images, k):
        for i, x in enumerate(self.features(images)):
            if i == k:
                return self.heads[k](x)
        raise IndexError(k)

    def executions(self):
        return {"dense": self.dense}

    def dense(self, images):
        for k in range(2):
            yield self.answer(images, k)


def test_macs_are_those_counted_by_hand():
    costs = count_costs(Ladder(), SHAPE)
    assert costs.macs == costs.macs_prefix == (80, 176)
    assert costs.parameters == (48 + 8) + (64 + 8) + 2 * (32 + 4)
    assert costs.ticks == (1.0, 2.0)
    assert costs.macs_by_execution == {}


def test_prefix_and_further_executions_are_counted_apart():
    costs = count_costs(Direct(), SHAPE)
    assert costs.macs == (80, 176)
    assert costs.macs_prefix == (80, 144)
    assert costs.macs_by_execution == {"dense": (80, 80 + 144)}


def test_counting_leaves_the_model_and_the_random_state_alone():
    model = Ladder().train()
    model.dropout.eval()
    before = torch.random.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
    count_costs(model, SHAPE)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert model.training
    assert not model.dropout.training
    assert all(torch.equal(value, before[1][key]) for key, value in model.state_dict().items())


def faulty(stream=None, **attributes):
    model = Direct()
    if stream is not None:
        model.stream = lambda images: stream(model, images)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def ahead_of_time(model, images):
    yield from list(Ladder.stream(model, images))


def too_few(model, images):
    yield model.answer(images, 1)


def too_many(model, images):
    yield from Ladder.stream(model, images)
    yield model.answer(images, 1)


def wrong_shape(model, images):
    yield model.answer(images, 0)[0]
    yield model.answer(images, 1)


def more_classes_later(model, images):
    yield model.answer(images, 0)[:, :3]
    yield model.answer(images, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (faulty(ahead_of_time), "MACs do not increase: exit 0 costs 176 and exit 1 costs 176"),
        (faulty(too_few), "stream yielded 1 answers, but num_exits is 2"),
        (faulty(too_many), "more than num_exits = 2"),
        (faulty(wrong_shape), r"exit 0 logits of shape \(4,\), expected \(B, C\)"),
        (faulty(more_classes_later), r"exit 1 logits of shape \(1, 4\), expected \(B, C\) = \(1, 3\)"),
        (faulty(ticks=(2, 2)), "ticks do not increase: exit 0 costs 2.0"),
        (faulty(ticks=(0, 2)), "no answer is free"),
        (faulty(ticks=(1, 2, 3)), "ticks has 3 entries"),
        (faulty(answer=lambda images, k: model_answers_all(images)), "more than the 80 that stream needs"),
    ],
)
def test_every_fault_is_named(model, message):
    with pytest.raises(CostError, match=message):
        count_costs(model, SHAPE)


def model_answers_all(images):
    torch.ones(100, 100) @ torch.ones(100, 100)
    return torch.zeros(len(images), 4)
