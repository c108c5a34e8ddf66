"""Tasks: fixed splits, hashes that see every change, and the files of each reader."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_bench import Split, UserError, load_task, make_task, register_task
from anytime_bench.registry import tasks
from anytime_bench.tasks.loading import split_validation

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
JPEG_ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg75.tar.xz"


def test_digits_are_the_known_1797_images_in_a_fixed_split():
    task = load_task("digits")
    assert sum(task.card.sizes.values()) == 1797
    assert task.card.shape == (1, 8, 8)
    # Pinned: a change of the split or of the pixels is a new version of the task.
    assert task.card.sha256.startswith("e62eb1ad4f")
    assert task.card.sha256 == load_task("digits").card.sha256
    for split in task.splits.values():
        assert (np.bincount(split.labels, minlength=10) > 0).all()


def test_splits_share_no_image_of_the_training_set():
    train = Split(np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1), np.arange(200) % 4)
    rest, held_out = split_validation(train, 0.25)
    assert set(rest.images.ravel()) | set(held_out.images.ravel()) == set(range(200))
    assert not set(rest.images.ravel()) & set(held_out.images.ravel())
    # A quarter of the 50 images of each class, 12.5, to the nearest even number.
    assert np.bincount(held_out.labels).tolist() == [12, 12, 12, 12]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("what", ["pixel", "label"])
def test_the_hash_sees_every_change(tiny_task, split, what):
    parts = {key: Split(s.images.copy(), s.labels.copy()) for key, s in tiny_task.splits.items()}
    if what == "pixel":
        parts[split].images[0, 0, 0, 0] ^= 1
    else:
        parts[split].labels[0] = (parts[split].labels[0] + 1) % 3
    changed = make_task("tiny", "Tiny patterns", ("a", "b", "c"), **parts)
    assert changed.card.sha256 != tiny_task.card.sha256


def test_normalised_training_images_have_mean_0_and_deviation_1(tiny_task):
    from anytime_bench.training.data import DeviceSplit

    images = DeviceSplit.place(tiny_task.splits["train"], tiny_task.card, "cpu").normalised()
    assert abs(float(images.mean())) < 1e-4
    assert abs(float(images.std(correction=0)) - 1) < 1e-4


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": np.zeros((0, 1, 16, 16), np.uint8), "labels": np.zeros(0, np.int64)}, "empty"),
        ({"images": np.zeros((64, 1, 16, 15), np.uint8)}, "expected test images of shape"),
        ({"images": np.zeros((64, 1, 16, 16), np.float32)}, "uint8"),
        ({"labels": np.full(64, 3)}, r"expected 64 test labels in 0\.\.2, got 3\.\.3"),
        ({"labels": np.zeros(64)}, r"expected 64 test labels in 0\.\.2, got float64"),
        ({"labels": np.zeros(63, int)}, r"expected 64 test labels in 0\.\.2, got 63 in 0\.\.0"),
    ],
)
def test_a_task_that_cannot_be_is_refused(tiny_task, change, word):
    test = replace(tiny_task.splits["test"], **change)
    with pytest.raises(UserError, match=word):
        make_task("t", "T", ("a", "b", "c"), tiny_task.splits["train"], tiny_task.splits["val"], test)


@pytest.mark.parametrize("classes", [("a",), (), 3, "abc"])
def test_a_task_needs_the_names_of_two_classes(tiny_task, classes):
    with pytest.raises(UserError, match=r"task 't': expected the names of two or more classes, got "):
        make_task("t", "T", classes, **tiny_task.splits)


def test_a_task_of_another_name_than_its_readers_is_refused(tiny_task):
    with tasks.temporary():
        register_task("one", lambda data_root, argument: tiny_task)
        with pytest.raises(UserError, match="task is named 'tiny', expected 'one'"):
            load_task("one")


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_from_debian():
    card = load_task("fashion_mnist").card
    assert dict(card.sizes) == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert card.shape == (1, 28, 28)


@pytest.mark.slow
@pytest.mark.skipif(not JPEG_ARCHIVE.is_file(), reason="the CIFAR-10 (JPEG-75) archive is not at hand")
def test_cifar10_jpeg_from_its_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYTIME_BENCH_CACHE", str(tmp_path))
    first = load_task("cifar10_jpeg", JPEG_ARCHIVE)
    assert dict(first.card.sizes) == {"train": 45_000, "val": 5_000, "test": 10_000}
    again = load_task("cifar10_jpeg", JPEG_ARCHIVE.parent)
    assert again.card == first.card, "the cached pixels are the decoded ones"


def _official_cifar10(root: Path) -> None:
    """Files of CIFAR-10's layout with three images a batch; their checksums are patched by the test."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        entry = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(entry))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def test_cifar10_reads_the_official_layout(tmp_path, monkeypatch):
    _official_cifar10(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    card = load_task("cifar10", tmp_path).card
    assert dict(card.sizes) == {"train": 90, "val": 10, "test": 20}
    assert (card.shape, card.classes[3]) == ((3, 32, 32), "cat")


def test_tiny_imagenet_counts_its_files(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "wnids.txt").write_text("n01\nn02\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t1\t1\n")
    for name in ("n01", "n02"):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"2 classes, 0 training and 1 validation images; expected 200"):
        load_task("tiny_imagenet", tmp_path)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(1)
    for part, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / part / name / f"{i}.png")
    return tmp_path / "set"


def test_image_folder_with_train_and_test(pictures):
    card = load_task(f"image_folder:{pictures}@16").card
    assert card.classes == ("cat", "dog")
    assert card.shape == (3, 16, 16)
    assert (card.sizes["test"], card.sizes["train"] + card.sizes["val"]) == (8, 24)


def test_image_folder_of_classes_alone_is_split_the_same_way_each_time(pictures):
    cards = [load_task(f"image_folder:{pictures / 'train'}").card for _ in range(2)]
    assert cards[0] == cards[1]
    assert cards[0].shape == (3, 64, 64), "uneven images are resized to 64 unless told otherwise"
    assert cards[0].sizes["test"] == 6


def test_image_folder_names_a_damaged_picture(pictures):
    (pictures / "train" / "cat" / "3.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(UserError, match=r"3\.png' is truncated or no image"):
        load_task(f"image_folder:{pictures}@16")
