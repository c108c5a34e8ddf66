"""Product of experts, most confident so far, mean of exits: the formulas, laziness, and weights taken from any row."""

import numpy as np
import pytest
import torch
from torch import nn

from anytime_bench.methods.contract import AnytimeModel, Method, MethodCard
from anytime_bench.methods.plugins import load_method
from anytime_bench.registry import methods
from anytime_bench.scores.per_sample import largest_fall
from anytime_bench.tasks.task import TaskCard
from anytime_bench.trace.answers import Trace
from baselines.wrappers import LOG_ZERO, MeanModel, MostConfidentModel, ProductModel

EXITS, IMAGES, CLASSES = 4, 40, 5
TASK = TaskCard("tiny", "Tiny", tuple("abcde"), (1, 4, 4), {"train": 1, "val": 1, "test": 1}, (0.0,), (1.0,))


class Layers(AnytimeModel):
    """One head per layer; counts how many layers have run."""

    num_exits, ticks = EXITS, (1, 2, 3, 4)
    compacts = True

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(EXITS))
        self.heads = nn.ModuleList(nn.Linear(16, CLASSES) for _ in range(EXITS))
        self.ran = 0

    def stream(self, images):
        x = images.flatten(1)
        for layer, head in zip(self.layers, self.heads, strict=True):
            self.ran += 1
            x = layer(x).relu()
            keep = yield head(x) * 5
            if keep is not None:
                x = x[keep]

    def watch(self, frames):
        for k, logits in enumerate(self.stream(frames[0])):
            yield logits + frames[k].mean()


class LayersMethod(Method):
    card = MethodCard("Layers")

    def build(self, task):
        return Layers()

    def skip(self, task):
        return "no" if task.name == "other" else None


methods.add("layers_for_wrappers", LayersMethod)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Layers().eval()


@pytest.fixture
def images():
    return torch.randn(IMAGES, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def product_by_hand(logits):
    """Equation of Product Anytime in NumPy: E x B x C logits to probabilities."""
    answers = []
    product = np.ones(logits.shape[1:])
    for k, row in enumerate(logits):
        product = product * np.maximum(row, 0) ** ((k + 1) / len(logits))
        alone = np.exp(row - row.max(axis=1, keepdims=True))
        alone /= alone.sum(axis=1, keepdims=True)
        total = product.sum(axis=1, keepdims=True)
        answers.append(np.where(total > 0, product / np.where(total > 0, total, 1), alone))
    return np.stack(answers)


def test_the_product_is_the_published_formula(model, images):
    with torch.inference_mode():
        ours = ProductModel(model)(images)
        expected = product_by_hand(model(images).double().numpy())
    # Both the formula's zeros and the fall-back must have been met, or the test says little.
    assert (expected == 0).any()
    np.testing.assert_allclose(ours.exp().numpy(), expected, atol=1e-5)
    assert torch.isfinite(ours).all()
    assert ours.min() == LOG_ZERO


def test_an_exit_without_a_positive_product_answers_alone():
    logits = torch.tensor([[[-1.0, -2.0]], [[3.0, 1.0]]])
    wrapped = ProductModel(Layers())
    state, first = wrapped.combine(None, logits[0], 0)
    torch.testing.assert_close(first, logits[0].log_softmax(dim=1))
    # Once every class is out, no later exit can bring one back.
    _, second = wrapped.combine(state, logits[1], 1)
    torch.testing.assert_close(second, logits[1].log_softmax(dim=1))


def test_most_confident_keeps_the_surest_answer(model, images):
    with torch.inference_mode():
        logits = model(images)
        ours = MostConfidentModel(model)(images)
    confidence = logits.softmax(dim=2).amax(dim=2)
    for k in range(EXITS):
        surest = confidence[: k + 1].argmax(dim=0)
        torch.testing.assert_close(ours[k], logits[surest, torch.arange(IMAGES)])
    kept = ours.softmax(dim=2).amax(dim=2)
    assert (kept[1:] >= kept[:-1]).all()


def test_the_later_exit_wins_a_tie():
    _, answer = MostConfidentModel(Layers()).combine(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), 1)
    assert answer.tolist() == [[0.0, 2.0]]


def test_the_product_makes_true_class_probabilities_fall_less():
    """The paper's claim, on exits that each see the class through their own noise."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 10, 500)
    logits = 4 * np.eye(10)[labels] + 2 * rng.standard_normal((6, 500, 10))
    plain = Trace.from_logits(logits, labels)
    combined = Trace.from_logits(np.log(np.maximum(product_by_hand(logits), np.exp(LOG_ZERO))), labels)
    falls = [(largest_fall(trace.true_log_probability) > 0.2).mean() for trace in (plain, combined)]
    assert falls[1] < falls[0]


def test_the_mean_of_exits_is_that_of_their_probabilities(model, images):
    with torch.inference_mode():
        probabilities = model(images).double().softmax(dim=2).numpy()
        ours = MeanModel(model)(images).exp().numpy()
    for k in range(EXITS):
        np.testing.assert_allclose(ours[k], probabilities[: k + 1].mean(axis=0), atol=1e-6)


def test_the_mean_of_exits_holds_where_probabilities_underflow():
    logits = torch.tensor([[[0.0, -900.0]], [[-900.0, 0.0]], [[0.0, -900.0]]])
    state, wrapped = None, MeanModel(Layers())
    for k in range(3):
        state, answer = wrapped.combine(state, logits[k], k)
    torch.testing.assert_close(answer.exp(), torch.tensor([[2 / 3, 1 / 3]]))


@pytest.mark.parametrize("wrapper", [ProductModel, MostConfidentModel, MeanModel])
class TestEveryWrapper:
    def test_stream_forward_and_answer_agree(self, wrapper, model, images):
        wrapped = wrapper(model)
        with torch.inference_mode():
            whole = wrapped(images)
            torch.testing.assert_close(torch.stack(list(wrapped.stream(images))), whole)
            for k in range(EXITS):
                torch.testing.assert_close(wrapped.answer(images, k), whole[k])

    def test_work_for_the_next_exit_starts_only_when_asked_for(self, wrapper, model, images):
        answers = wrapper(model).stream(images)
        assert model.ran == 0
        next(answers)
        assert model.ran == 1

    def test_samples_can_leave(self, wrapper, model, images):
        wrapped = wrapper(model)
        assert wrapped.compacts
        keep = torch.arange(IMAGES) % 3 == 0
        with torch.inference_mode():
            whole = wrapped(images)
            answers = wrapped.stream(images)
            next(answers)
            torch.testing.assert_close(answers.send(keep), whole[1][keep])
            torch.testing.assert_close(next(answers), whole[2][keep])

    def test_it_watches_what_the_base_watches(self, wrapper, model, images):
        frames = torch.stack([images + k for k in range(EXITS)])
        with torch.inference_mode():
            seen = list(wrapper(model).watch(frames))
            base = list(model.watch(frames))
            state, expected = None, []
            for k, logits in enumerate(base):
                state, answer = wrapper(model).combine(state, logits, k)
                expected.append(answer)
        torch.testing.assert_close(torch.stack(seen), torch.stack(expected))

    def test_nothing_leaks_from_call_to_call(self, wrapper, model, images):
        wrapped = wrapper(model)
        with torch.inference_mode():
            first = wrapped(images)
            wrapped(images * 3)
            torch.testing.assert_close(wrapped(images), first, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["product_of_experts", "most_confident", "mean_of_exits"])
def test_weights_come_from_the_method_behind_the_slash(family, images):
    method = load_method(f"{family}/layers_for_wrappers")
    assert method.weights_from == "layers_for_wrappers"
    torch.manual_seed(3)
    source = Layers()
    model = method.build(TASK)
    method.adopt(model, source.state_dict())
    assert (model.num_exits, tuple(model.ticks)) == (EXITS, (1, 2, 3, 4))
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(model.state_dict()[f"base.{name}"], tensor)
    assert method.skip(TASK) is None
    assert method.skip(TaskCard("other", "", (), (1, 4, 4), {}, (), ())) == "no"


def test_foreign_weights_are_refused():
    method = load_method("product_of_experts/layers_for_wrappers")
    with pytest.raises(RuntimeError, match="state_dict"):
        method.adopt(method.build(TASK), {"foreign": torch.zeros(1)})


def test_the_weights_sources_options_are_the_runs():
    method = load_method("most_confident/layers_for_wrappers")
    method.weights_source = LayersMethod()
    assert method.base is method.weights_source


def test_a_base_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no_such_method"):
        load_method("most_confident/no_such_method").build(TASK)
