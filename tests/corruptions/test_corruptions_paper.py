"""The paper's six kinds: each equals a plain NumPy statement of its formula on the same draws."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from anytime_bench.corruptions import corrupt
from anytime_bench.corruptions import paper as kinds
from anytime_bench.corruptions.draws import Draws

SIZES = [(1, 8), (3, 32), (1, 28), (3, 64)]


def batch(depth: int, side: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, depth, side, side, generator=torch.Generator().manual_seed(side))


def draws(kind: str, count: int = 5, frame: int = 2) -> Draws:
    return Draws(7, kind, torch.arange(10, 10 + count), torch.full((count,), frame))


def noisy(images: torch.Tensor, kind: str, frame: int = 2) -> np.ndarray:
    indices = range(10, 10 + len(images))
    return corrupt(images, kind, seed=7, indices=indices, frame=frame).numpy()


def window(kind: str, side: int, count: int) -> np.ndarray:
    same = draws(kind, count)
    length = max(1, round(16 * side / 32))
    top, left = same.integers(side - length + 1).tolist(), same.integers(side - length + 1).tolist()
    mask = np.zeros((count, side, side), dtype=bool)
    for image in range(count):
        mask[image, top[image] : top[image] + length, left[image] : left[image] + length] = True
    assert mask.mean() == pytest.approx((length / side) ** 2)
    return mask


@pytest.mark.parametrize(("depth", "side"), SIZES)
def test_occlusion_sets_one_window_to_the_mean(depth: int, side: int) -> None:
    images = batch(depth, side)
    mask = window("occlusion", side, len(images))
    expected = np.where(mask[:, None], 0, images.numpy())
    np.testing.assert_array_equal(noisy(images, "occlusion"), expected)


@pytest.mark.parametrize(("depth", "side"), [(1, 8), (3, 32), (1, 28)])
def test_focus_is_sharp_in_the_window_and_a_3x3_gaussian_elsewhere(depth: int, side: int) -> None:
    images = batch(depth, side)
    mask = window("focus", side, len(images))
    padded = np.pad(images.numpy().astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    blurred = sum(kernel[i, j] * padded[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3))
    expected = np.where(mask[:, None], images.numpy(), blurred)
    np.testing.assert_allclose(noisy(images, "focus"), expected, atol=1e-6)


def test_focus_on_wide_images_blurs_in_proportion() -> None:
    impulse = torch.zeros(1, 1, 224, 224)
    impulse[:, :, 112, 112] = 1
    taps = np.array(kinds._binomial(impulse))
    offsets = np.arange(len(taps)) - len(taps) // 2
    # 3x3 at 32 pixels has variance 1/2; 7 times the length has 49 times the variance, less what the cut tails held.
    assert taps.sum() == pytest.approx(1)
    assert (taps * offsets**2).sum() == pytest.approx(49 / 2, rel=0.04)


@pytest.mark.parametrize(("depth", "side"), [*SIZES, (1, 30)])
def test_resolution_is_block_means(depth: int, side: int) -> None:
    images = batch(depth, side, 24)
    choice = draws("resolution", 24).integers(3).tolist()
    assert set(choice) == {0, 1, 2}
    got = noisy(images, "resolution")
    for image, number in enumerate(choice):
        factor = (1, 2, 4)[number]
        source = np.pad(images[image].numpy(), ((0, 0), (0, -side % factor), (0, -side % factor)), mode="edge")
        means = source.reshape(depth, len(source[0]) // factor, factor, -1, factor).mean((2, 4))
        expected = np.kron(means, np.ones((factor, factor)))[:, :side, :side]
        np.testing.assert_allclose(got[image], expected, atol=1e-6)


@pytest.mark.parametrize(("depth", "side"), SIZES)
def test_perlin_hides_the_forty_percent_lowest_noise(depth: int, side: int) -> None:
    images = batch(depth, side)
    cos, sin = (part.double().numpy() for part in draws("perlin").direction((6, 6)))
    np.testing.assert_allclose(cos**2 + sin**2, 1, atol=1e-6)
    got = noisy(images, "perlin")
    for image in range(len(images)):
        noise = np.empty((side, side))
        for i in range(side):
            for j in range(side):
                v, u = (i + 0.5) * 5 / side, (j + 0.5) * 5 / side
                row, column = math.floor(v), math.floor(u)
                fade = [6 * t**5 - 15 * t**4 + 10 * t**3 for t in (v - row, u - column)]
                dots = [
                    [
                        sin[image, row + a, column + b] * (v - row - a)
                        + cos[image, row + a, column + b] * (u - column - b)
                        for b in (0, 1)
                    ]
                    for a in (0, 1)
                ]
                rows = [d[0] * (1 - fade[1]) + d[1] * fade[1] for d in dots]
                noise[i, j] = rows[0] * (1 - fade[0]) + rows[1] * fade[0]
        hidden = int(0.4 * side * side)
        lowest = np.zeros(side * side, dtype=bool)
        lowest[np.argsort(noise.ravel())[:hidden]] = True
        np.testing.assert_array_equal(got[image] == 0, np.broadcast_to(lowest.reshape(side, side), got[image].shape))


@pytest.mark.parametrize(("depth", "side"), SIZES)
def test_translation_is_a_walk_with_repeated_edges(depth: int, side: int) -> None:
    images, frame = batch(depth, side), 6
    got = noisy(images, "translation", frame)
    for image in range(len(images)):
        alone = torch.tensor([10 + image])
        position = Draws(7, "translation", alone, torch.zeros(1, dtype=torch.int64)).integers(17, (2,))[0].numpy() - 8
        for step in range(1, frame + 1):
            moves = Draws(7, "translation", alone, torch.tensor([step])).integers(2, (2,))[0].numpy() * 2 - 1
            position = np.clip(position + moves, -8, 8)
        shift = np.round(position * side / 32).astype(int)
        rows = np.clip(np.arange(side) - shift[0], 0, side - 1)
        columns = np.clip(np.arange(side) - shift[1], 0, side - 1)
        np.testing.assert_array_equal(got[image], images[image].numpy()[:, rows][:, :, columns])


def test_the_walk_moves_by_one_and_stays_as_far_off_as_it_began() -> None:
    count = 4000
    index = torch.arange(count)
    places = [kinds.walk_position(Draws(1, "translation", index, torch.full((count,), f))) for f in range(10)]
    for before, after in itertools.pairwise(places):
        assert (after - before).abs().max() == 1
    for place in (places[0], places[9]):
        assert place.abs().max() == 8
        # Uniform on -8..8: variance 24, standard error of the estimate below 0.4.
        assert place.double().var().item() == pytest.approx(24, abs=1.2)


@pytest.mark.parametrize(("depth", "side"), SIZES)
def test_rotation_is_bilinear_about_the_centre(depth: int, side: int) -> None:
    images = batch(depth, side)
    cos, sin = (part.double().numpy() for part in draws("rotation").direction((), -60, 60))
    got = noisy(images, "rotation")
    centre = (side - 1) / 2
    for image in range(len(images)):
        i, j = np.mgrid[:side, :side].astype(np.float64)
        y = np.clip(cos[image] * (i - centre) - sin[image] * (j - centre) + centre, 0, side - 1)
        x = np.clip(sin[image] * (i - centre) + cos[image] * (j - centre) + centre, 0, side - 1)
        top, left = np.minimum(np.floor(y), side - 2).astype(int), np.minimum(np.floor(x), side - 2).astype(int)
        down, right = y - top, x - left
        source = images[image].double().numpy()
        expected = (
            source[:, top, left] * (1 - down) * (1 - right)
            + source[:, top, left + 1] * (1 - down) * right
            + source[:, top + 1, left] * down * (1 - right)
            + source[:, top + 1, left + 1] * down * right
        )
        np.testing.assert_allclose(got[image], expected, atol=2e-4)


def test_rotation_angles_fill_sixty_degrees_either_way() -> None:
    cos, sin = Draws(1, "rotation", torch.arange(5000), torch.zeros(5000, dtype=torch.int64)).direction((), -60, 60)
    degrees = torch.atan2(sin, cos).rad2deg()
    assert degrees.min() > -60.01
    assert degrees.max() < 60.01
    assert degrees.std().item() == pytest.approx(120 / math.sqrt(12), rel=0.03)
