"""Real early stop: same exits as deciding afterwards, no work past the stop, and compaction that changes no answer."""

import numpy as np
import pytest
import torch
from torch import nn

from anytime_bench.harness.early_stop import confident, stop_early
from anytime_bench.methods.contract import AnytimeModel

IMAGES = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(50, dtype=torch.int64)


class Layers(AnytimeModel):
    """Three layers with a head each; counts the rows that each layer works on."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            self.body = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.heads = nn.ModuleList(nn.Linear(16, 4) for _ in range(3))
        self.rows = [0, 0, 0]

    def stream(self, images):
        x = images.flatten(1)
        for k, (layer, head) in enumerate(zip(self.body, self.heads, strict=True)):
            self.rows[k] += len(x)
            x = layer(x).relu()
            yield 3 * head(x)


class Compacting(Layers):
    compacts = True

    def stream(self, images):
        x = images.flatten(1)
        for k, (layer, head) in enumerate(zip(self.body, self.heads, strict=True)):
            self.rows[k] += len(x)
            x = layer(x).relu()
            keep = yield 3 * head(x)
            if keep is not None:
                x = x[keep]


def decided_afterwards(threshold):
    with torch.inference_mode():
        logits = Layers()(IMAGES)
    content = logits.softmax(2).amax(2) >= threshold
    content[-1] = True
    exits = content.int().argmax(0)
    return exits.numpy(), logits.argmax(2).gather(0, exits[None])[0].numpy()


@pytest.mark.parametrize("model_class", [Layers, Compacting])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_stopping_gives_the_exits_and_answers_of_deciding_afterwards(model_class, batch_size):
    exits, predictions = decided_afterwards(0.5)
    assert len(set(exits)) == 3, "the test needs images leaving at every exit"
    result = stop_early(model_class(), IMAGES, LABELS, confident(0.5), batch_size=batch_size)
    np.testing.assert_array_equal(result.exits, exits)
    np.testing.assert_array_equal(result.predictions, predictions)


@pytest.mark.parametrize(("model_class", "batch_size"), [(Layers, 1), (Compacting, 1), (Compacting, 10)])
def test_no_layer_works_for_an_image_that_has_left(model_class, batch_size):
    exits, _ = decided_afterwards(0.5)
    model = model_class()
    result = stop_early(model, IMAGES, LABELS, confident(0.5), batch_size=batch_size, warm_up=0)
    needed = [int((exits >= k).sum()) for k in range(3)]
    assert model.rows == needed
    assert result.stop == "real"


def test_every_group_runs_once_before_any_is_timed_because_leaving_images_make_new_batch_sizes():
    sizes = []

    class Sizes(Compacting):
        def stream(self, images):
            sizes.append(len(images))
            return super().stream(images)

    stop_early(Sizes(), IMAGES, LABELS, confident(0.5), batch_size=20)
    assert sizes == [20, 20, 10] * 2
    del sizes[:]
    stop_early(Sizes(), IMAGES, LABELS, confident(0.5))
    assert len(sizes) == 10 + len(IMAGES)


def test_without_compaction_a_batch_runs_until_its_last_image_is_done():
    model = Layers()
    result = stop_early(model, IMAGES, LABELS, confident(0.5), batch_size=50, warm_up=0)
    assert result.stop == "simulated"
    assert model.rows == [50, 50, 50]


def test_thresholds_at_the_ends():
    first = stop_early(Layers(), IMAGES, LABELS, confident(0.0))
    last = stop_early(Layers(), IMAGES, LABELS, confident(1.01))
    assert set(first.exits) == {0}
    assert set(last.exits) == {2}


def test_summary_counts_the_policy_apart():
    result = stop_early(Layers(), IMAGES, LABELS, confident(0.5), batch_size=10)
    summary = result.summary("confidence >= 0.5")
    assert 0 < summary.policy_share < 1
    assert summary.mean_exit == result.exits.mean()
    assert summary.latency.mean == pytest.approx(result.seconds.mean())
    assert (result.policy_seconds < result.seconds).all()
    assert result.summary("confidence >= 0.5", 0.75).final_accuracy == 0.75


def test_full_runs_are_timed_in_turn_and_disturb_no_stop():
    exits, _ = decided_afterwards(0.5)
    model = Layers()
    result = stop_early(model, IMAGES, LABELS, confident(0.5), warm_up=0, beside=True)
    np.testing.assert_array_equal(result.exits, exits)
    assert result.full_seconds.shape == result.seconds.shape
    needed = [int((exits >= k).sum()) for k in range(3)]
    assert model.rows == [len(IMAGES) + rows for rows in needed], "every image runs to the end once, beside"
    assert result.summary("x").full.mean == pytest.approx(result.full_seconds.mean())
    alone = stop_early(Layers(), IMAGES, LABELS, confident(0.5), warm_up=0)
    assert len(alone.full_seconds) == 0
    assert alone.summary("x").full is None


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="as many labels as images"):
        stop_early(Layers(), IMAGES, LABELS[:3], confident(0.5))
    with pytest.raises(ValueError, match="one boolean for each"):
        stop_early(Layers(), IMAGES, LABELS, lambda logits, k: logits.softmax(1).amax(), batch_size=5)
