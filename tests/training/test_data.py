"""Batches and augmentation: every image once an epoch, and the same ones whatever the device or the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.tasks.task import Split, TaskCard
from anytime_bench.training import data
from anytime_bench.training.config import AugmentConfig
from anytime_bench.training.data import AugmentationDraws, DeviceSplit, Normalised, augmented, seeded


def augment(images: torch.Tensor, config: AugmentConfig, generator: torch.Generator) -> torch.Tensor:
    return augmented(images, config, AugmentationDraws.make(len(images), images.shape[2:], config, generator))


def split_of(count: int) -> DeviceSplit:
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1).expand(count, 1, 4, 4).contiguous()
    one = torch.ones(1, 1, 1, 1)
    return DeviceSplit(images, torch.arange(count), torch.zeros_like(one), one / 255)


@given(count=st.integers(2, 60), batch=st.integers(1, 30), seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=60)
def test_an_epoch_shows_every_image_once_and_never_ends_on_one_alone(count, batch, seed):
    split = split_of(count)
    batches = [labels for _, labels in split.shuffled(batch, AugmentConfig(), seeded(seed))]
    assert torch.cat(batches).sort().values.tolist() == list(range(count))
    assert len(batches) == split.steps_per_epoch(batch)
    if batch > 1:
        assert all(len(labels) > 1 for labels in batches)


def test_images_and_labels_stay_together():
    for images, labels in split_of(40).shuffled(7, AugmentConfig(), seeded(3)):
        assert torch.equal(images[:, 0, 0, 0].round().long(), labels)


def test_a_sample_of_a_sorted_split_holds_every_class_and_is_always_the_same():
    images = torch.zeros(1000, 1, 2, 2, dtype=torch.uint8)
    split = DeviceSplit(images, torch.arange(1000) // 100, *torch.ones(2, 1, 1, 1, 1))
    chosen = split.sample(40)
    assert chosen.labels.bincount().tolist() == [4] * 10
    assert chosen.labels.tolist() != sorted(chosen.labels.tolist())
    assert torch.equal(chosen.labels, split.sample(40).labels)
    assert split.sample(0) is split
    assert split.sample(1000) is split


@given(count=st.integers(1, 80), size=st.integers(1, 80))
@settings(deadline=None, max_examples=60)
def test_a_sample_holds_no_image_twice(count, size):
    chosen = split_of(size).sample(count)
    assert len(set(chosen.labels.tolist())) == len(chosen) == min(count, size)


def test_order_follows_from_the_seed_alone():
    orders = [
        torch.cat([labels for _, labels in split_of(50).shuffled(8, AugmentConfig(), seeded(seed, 1))])
        for seed in (4, 4, 5)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate"])
def test_a_crop_is_a_window_of_the_padded_image(mode):
    images = torch.arange(64.0).view(1, 1, 8, 8) + 5
    config = AugmentConfig(crop_padding=2, crop_mode=mode)
    padded = torch.nn.functional.pad(images, (2,) * 4, mode=mode, **({"value": 5.0} if mode == "constant" else {}))
    windows = [padded[..., i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
    seen = set()
    for seed in range(60):
        crop = augment(images, config, seeded(seed))
        matches = [n for n, window in enumerate(windows) if torch.equal(window, crop)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 15, "windows are drawn from all over"


def test_a_flip_mirrors_about_half_of_the_images():
    images = torch.rand(400, 1, 3, 5)
    flipped = augment(images, AugmentConfig(flip=True), seeded(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 150 < int(mirrored.sum()) < 250


def test_an_occlusion_hides_one_square_of_the_given_size():
    images = torch.ones(50, 3, 32, 32)
    hidden = augment(images, AugmentConfig(occlusion=16), seeded(0)) == 0
    assert (hidden.flatten(1).sum(1) == 3 * 16 * 16).all()
    assert len({tuple(mask[0].any(1).nonzero().flatten().tolist()) for mask in hidden}) > 5


@settings(deadline=None, max_examples=30)
@given(batch=st.integers(1, 12), other=st.integers(1, 12), seed=st.integers(0, 99))
def test_an_image_is_augmented_alike_in_any_batch(batch, other, seed):
    config = AugmentConfig(crop_padding=2, flip=True, occlusion=2)
    split = DeviceSplit(
        torch.randint(0, 256, (25, 3, 8, 8), dtype=torch.uint8), torch.arange(25), *torch.ones(2, 1, 1, 1, 1)
    )
    epochs = [
        torch.cat([images for images, _ in split.shuffled(size, config, seeded(seed))]) for size in (batch, other)
    ]
    assert torch.equal(*epochs)


@pytest.mark.parametrize("batch", [5, 25])
def test_what_is_random_is_copied_before_the_first_batch_whatever_their_number(batch, monkeypatch):
    sent = []
    monkeypatch.setattr(data, "_sent", lambda tensor, device: sent.append(tensor) or tensor)
    epoch = split_of(100).shuffled(batch, AugmentConfig(), seeded(0))
    next(epoch)
    before = len(sent)
    assert sum(1 for _ in epoch) == 100 // batch - 1
    assert len(sent) == before


class Sent:
    """A tensor that tells how it was sent."""

    def pin_memory(self):
        return Pinned()

    def to(self, device, non_blocking=False):
        return device.type, "pageable", non_blocking


class Pinned:
    def to(self, device, non_blocking=False):
        return device.type, "pinned", non_blocking


def test_towards_a_gpu_tensors_travel_pinned_and_without_waiting():
    assert data._sent(Sent(), torch.device("cuda:0")) == ("cuda", "pinned", True)
    assert data._sent(Sent(), torch.device("cpu")) == ("cpu", "pageable", False)


@pytest.mark.parametrize(("size", "stays"), [(250, False), (251, True)])
def test_a_split_larger_than_its_share_of_a_gpus_free_memory_stays_on_the_host(size, stays, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert data.stays_on_host(size, torch.device("cuda:0")) is stays
    assert not data.stays_on_host(size, torch.device("cpu"))


def test_a_split_on_the_host_gives_the_same_batches(monkeypatch):
    """Everything but the images is where batches come out; those come pinned, batch by batch."""
    travelled = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pytest.fail("pins more than what travels"))
    config = AugmentConfig(crop_padding=1, flip=True)

    class OnHost(DeviceSplit):
        @property
        def device(self):
            return torch.device("cpu", 0)  # another name than its images' device has

    def sent(tensor, device):
        if tensor.dtype == torch.uint8:
            travelled.append(len(tensor))
        return tensor

    monkeypatch.setattr(data, "_sent", sent)
    here = split_of(60)
    there = OnHost(here.images, here.labels, here.mean, here.std)
    for (a, b), (c, d) in zip(here.shuffled(8, config, seeded(1)), there.shuffled(8, config, seeded(1)), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert travelled == [8] * 7 + [4]


def test_a_split_that_stays_on_the_host_is_not_copied(monkeypatch):
    monkeypatch.setattr(data, "stays_on_host", lambda size, device: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pytest.fail("a second copy, pinned"))
    images = np.zeros((5, 1, 2, 2), np.uint8)
    card = TaskCard("t", "t", ("a", "b"), (1, 2, 2), {}, (0.0,), (1.0,))
    placed = DeviceSplit.place(Split(images, np.zeros(5, np.int64)), card, "cpu")
    assert placed.images.numpy().ctypes.data == images.ctypes.data


def test_images_normalised_on_demand_are_those_of_the_split():
    split = split_of(30)
    whole, some = split.normalised(), Normalised(split)
    assert len(some) == 30
    for index in (7, -1, slice(3, 9), torch.tensor([4, 2, 2])):
        assert torch.equal(some[index], whole[index])


def test_neighbouring_seeds_share_nothing():
    draws = [tuple(torch.randint(0, 2**31, (4,), generator=seeded(*parts)).tolist()) for parts in
             [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0)]]  # fmt: skip
    assert len(set(draws)) == len(draws)
