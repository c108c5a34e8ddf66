"""The CIFAR-10-C kinds: formulas in NumPy, and the operators of the ``imagecorruptions`` package at equal constants."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from anytime_bench.corruptions import KINDS, digital, jpeg, pixel_noise, weather
from anytime_bench.corruptions import blur as blurs
from anytime_bench.corruptions.draws import Draws

SIDE = 32


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Four 32x32 colour crops of a photograph, on the 8-bit grid."""
    images = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn's sample photographs")
    photo = images.load_sample_image("china.jpg")[::2, ::2]
    corners = [(10, 20), (100, 40), (140, 200), (60, 150)]
    crops = np.stack([photo[y : y + SIDE, x : x + SIDE] for y, x in corners])
    return torch.from_numpy(crops.copy()).permute(0, 3, 1, 2).float() / 255


def draws(kind: str, count: int = 4) -> Draws:
    return Draws(3, kind, torch.arange(count), torch.zeros(count, dtype=torch.int64))


def last(image: torch.Tensor) -> np.ndarray:
    """(D, H, W) -> (H, W, D) in float64."""
    return image.permute(1, 2, 0).double().numpy()


# ------------------------------------------------------------------------------------------- formulas in NumPy


def test_gaussian_noise_formula(pixels: torch.Tensor) -> None:
    n = draws("g").normal(pixels.shape[1:]).double().numpy()
    expected = np.clip(pixels.double().numpy() + 0.08 * n, 0, 1)
    np.testing.assert_allclose(pixel_noise.gaussian_noise(pixels, draws("g"), 0.08), expected, atol=1e-6)


def test_shot_noise_is_the_poisson_quantile_of_a_uniform(pixels: torch.Tensor) -> None:
    u = draws("s").uniform(pixels.shape[1:]).double().numpy()
    counts = stats.poisson.ppf(u, np.round(pixels.double().numpy() * 255) / 255 * 100)
    got = pixel_noise.shot_noise(pixels, draws("s"), 100).numpy()
    expected = np.clip(np.where(counts < 0, 0, counts) / 100, 0, 1)
    # A draw that falls within rounding of a step of the distribution may take either side.
    assert np.mean(np.abs(got - expected) > 1e-6) < 1e-4


def test_impulse_noise_formula(pixels: torch.Tensor) -> None:
    u = draws("i").uniform(pixels.shape[1:]).numpy()
    expected = np.where(u < 0.035, 1.0, np.where(u < 0.07, 0.0, pixels.numpy()))
    np.testing.assert_array_equal(pixel_noise.impulse_noise(pixels, draws("i"), 0.07), expected.astype(np.float32))


@pytest.mark.parametrize(("radius", "sigma"), KINDS["defocus_blur"].levels)
def test_defocus_is_a_mirrored_convolution_with_the_disk(pixels: torch.Tensor, radius: float, sigma: float) -> None:
    kernel = blurs.disk(radius, sigma)
    assert kernel.sum() == pytest.approx(1)
    got = blurs.defocus_blur(pixels, draws("d"), radius, sigma)
    for image in range(2):
        for channel in range(3):
            expected = ndimage.convolve(pixels[image, channel].double().numpy(), kernel, mode="mirror")
            np.testing.assert_allclose(got[image, channel], np.clip(expected, 0, 1), atol=2e-6)


def test_glass_blur_is_the_sequential_exchange_of_the_published_script(pixels: torch.Tensor) -> None:
    sigma, reach, rounds = 0.4, 1, 2
    got = blurs.glass_blur(pixels, draws("glass"), sigma, reach, rounds)
    stream = draws("glass")
    offsets = [stream.integers(2 * reach, (2, SIDE, SIDE)).numpy() - reach for _ in range(rounds)]

    def smooth(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4)

    for image in range(len(pixels)):
        x = np.floor(smooth(last(pixels[image])) * 255 + 2.0**-10)
        for offset in offsets:
            for h in range(SIDE - reach, reach, -1):
                for w in range(SIDE - reach, reach, -1):
                    dy, dx = offset[image, :, h, w]
                    # On rows of a colour image the exchange of views leaves both pixels with the second one's value.
                    x[h, w] = x[h + dy, w + dx]
        np.testing.assert_allclose(last(got[image]), np.clip(smooth(x / 255), 0, 1), atol=2e-6)


def test_zoom_blur_formula(pixels: torch.Tensor) -> None:
    factors = (1.0, 1.1, 1.25)
    got = blurs.zoom_blur(pixels, draws("z"), factors)
    place = np.arange(SIDE) - (SIDE - 1) / 2
    for channel in range(3):
        source = pixels[0, channel].double().numpy()
        total = source.copy()
        for factor in factors:
            y, x = np.meshgrid(*(place / factor + (SIDE - 1) / 2,) * 2, indexing="ij")
            total += ndimage.map_coordinates(source, [y, x], order=1)
        np.testing.assert_allclose(got[0, channel], total / 4, atol=2e-6)


def test_contrast_and_brightness_formulas(pixels: torch.Tensor) -> None:
    x = pixels.double().numpy()
    mean = x.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(
        digital.contrast(pixels, draws("c"), 0.4), np.clip((x - mean) * 0.4 + mean, 0, 1), atol=1e-6
    )
    grey = pixels[:, :1]
    np.testing.assert_allclose(digital.brightness(grey, draws("b"), 0.2), np.minimum(grey.numpy() + 0.2, 1), atol=1e-6)


@pytest.mark.parametrize("constants", KINDS["elastic_transform"].levels)
def test_elastic_transform_follows_the_published_script(pixels: torch.Tensor, constants: tuple[float, ...]) -> None:
    displacement, smoothness, corner = (c * SIDE for c in constants)
    got = digital.elastic_transform(pixels, draws("e"), *constants)
    stream = draws("e")
    moves = stream.uniform((3, 2), -corner, corner).double().numpy()
    noise = stream.uniform((2, SIDE, SIDE), -1.0, 1.0).double().numpy()
    centre, s = np.array([16.0, 16.0]), SIDE // 3
    before = np.array([centre + s, [centre[0] + s, centre[1] - s], centre - s])
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    for image in range(len(pixels)):
        # The affine map that takes the three points to their new places, solved as linear equations in (x, y, 1).
        matrix = np.linalg.solve(np.c_[before, np.ones(3)], before + moves[image]).T
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
        x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
        y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
        for channel in range(3):
            plane = ndimage.map_coordinates(pixels[image, channel].double().numpy(), [y, x], order=1, mode="mirror")
            if displacement:
                dy, dx = (
                    ndimage.gaussian_filter(n, smoothness, mode="reflect", truncate=3) * displacement
                    for n in noise[image]
                )
                plane = ndimage.map_coordinates(plane, [rows + dy, columns + dx], order=1, mode="reflect")
            np.testing.assert_allclose(got[image, channel], np.clip(plane, 0, 1), atol=3e-4)


@pytest.mark.parametrize("side", [8, 28, 32, 50])
@pytest.mark.parametrize("share", [0.95, 0.75, 0.3])
def test_pixelate_is_pillows_box_filter_twice(side: int, share: float) -> None:
    image_module = pytest.importorskip("PIL.Image")
    grey = torch.randint(0, 256, (1, 1, side, side), generator=torch.Generator().manual_seed(side)).float() / 255
    picture = image_module.fromarray((grey[0, 0] * 255).round().numpy().astype(np.uint8))
    small = max(1, int(side * share))
    expected = picture.resize((small, small), image_module.BOX).resize((side, side), image_module.BOX)
    got = digital.pixelate(grey, draws("p", 1), share)[0, 0].numpy() * 255
    # Pillow rounds to 8 bits after each of its passes.
    np.testing.assert_allclose(got, np.asarray(expected), atol=1.01)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_pillows_and_loses_more_at_lower_quality(mode: str, pixels: torch.Tensor) -> None:
    channels = 3 if mode == "RGB" else 1
    images = pixels[:2, :channels, :30, :21]
    lost = []
    for quality in (95, 58, 10):
        got = jpeg.jpeg_compression(images, draws("j", 2), quality)
        assert torch.equal((got * 255).round() * (1 / 255), got), "on the 8-bit grid"
        buffer = io.BytesIO()
        bytes_ = (last(images[1]) * 255).round().astype(np.uint8).squeeze()
        pytest.importorskip("PIL.Image").fromarray(bytes_).save(buffer, "JPEG", quality=quality)
        expected = np.asarray(pytest.importorskip("PIL.Image").open(buffer)).reshape(*images.shape[2:], channels)
        np.testing.assert_array_equal((last(got[1]) * 255).round(), expected)
        lost.append(float((got - images).abs().mean()))
    assert lost == sorted(lost)


@pytest.mark.parametrize("side", [8, 32, 20])
def test_fog_is_the_diamond_square_fractal(side: int) -> None:
    """Point by point: centres of squares, then of edges, on a torus; the draws in the order of the steps."""
    size = 1 << (side - 1).bit_length()
    got = weather.plasma_fractal(draws("fog", 1), side, 2.0)[0].double().numpy()
    stream = draws("fog", 1)
    heights, step, wibble = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half, cells = step // 2, size // step
        noise = [stream.uniform((cells, cells), -wibble, wibble)[0].double().numpy() * wibble for _ in range(3)]
        for i in range(cells):
            for j in range(cells):
                y, x = i * step, j * step
                around = [heights[(y + a) % size, (x + b) % size] for a in (0, step) for b in (0, step)]
                heights[y + half, x + half] = np.mean(around) + noise[0][i, j]
        for number, (off_y, off_x) in enumerate([(0, half), (half, 0)], start=1):
            for i in range(cells):
                for j in range(cells):
                    y, x = i * step + off_y, j * step + off_x
                    around = [
                        heights[(y + a) % size, (x + b) % size]
                        for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))
                    ]
                    heights[y, x] = np.mean(around) + noise[number][i, j]
        step, wibble = half, wibble / 2.0
    heights -= heights.min()
    np.testing.assert_allclose(got, heights / heights.max(), atol=1e-5)
    assert size >= side


# ------------------------------------------------------------------------- the package, at constants it does have


class Replay:
    """Stands in for ``numpy.random`` functions and hands out prepared draws."""

    def __init__(self, values: list[np.ndarray | float]) -> None:
        self.values = list(values)

    def __call__(self, *args: object, **options: object) -> np.ndarray | float:
        return self.values.pop(0)


def as_picture(image: torch.Tensor) -> np.ndarray:
    return (last(image) * 255).round().astype(np.uint8)


@pytest.fixture
def package() -> object:
    pytest.importorskip("imagecorruptions", reason="needs imagecorruptions-imaug")
    from imagecorruptions import corruptions

    return corruptions


def compare(got: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(last(got) * 255, np.asarray(expected, dtype=np.float64), atol=tolerance)


def test_package_gaussian_noise(package: object, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    n = draws("g").normal(pixels.shape[1:])
    got = pixel_noise.gaussian_noise(pixels, draws("g"), 0.12)
    for image in range(4):
        monkeypatch.setattr(np.random, "normal", Replay([last(n[image]) * 0.12]))
        compare(got[image], package.gaussian_noise(as_picture(pixels[image]), 2), 1e-3)  # type: ignore[attr-defined]


def test_package_shot_noise_has_the_same_moments(package: object, pixels: torch.Tensor) -> None:
    """The package draws counts by rejection, so only distributions can agree: mean and variance over many images."""
    flat = torch.full((600, 3, 8, 8), 0.4 * 255).round() / 255
    ours = pixel_noise.shot_noise(flat, draws("s", 600), 60)
    np.random.seed(0)  # noqa: NPY002  the package draws from the global generator
    theirs = package.shot_noise(np.full((340, 340, 3), 102, np.uint8), 1) / 255  # type: ignore[attr-defined]
    assert ours.mean().item() == pytest.approx(theirs.mean(), abs=2e-3)
    assert ours.var().item() == pytest.approx(theirs.var(), rel=0.03)


@pytest.mark.parametrize(("severity", "amount"), [(1, 0.1), (3, 0.3), (5, 0.5)])
def test_package_brightness(package: object, pixels: torch.Tensor, severity: int, amount: float) -> None:
    got = digital.brightness(pixels, draws("b"), amount)
    for image in range(4):
        compare(got[image], package.brightness(as_picture(pixels[image]), severity), 1e-3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("severity", "factor"), [(1, 0.4), (5, 0.05)])
def test_package_contrast(package: object, pixels: torch.Tensor, severity: int, factor: float) -> None:
    got = digital.contrast(pixels, draws("c"), factor)
    for image in range(4):
        compare(got[image], package.contrast(as_picture(pixels[image]), severity), 1e-3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("severity", "radius", "sigma"), [(1, 3, 0.1), (2, 4, 0.5), (3, 6, 0.5)])
def test_package_defocus_blur(package: object, pixels: torch.Tensor, severity: int, radius: int, sigma: float) -> None:
    """Up to a radius of 8; beyond it the package's kernel is cut by its own frame and no longer sums to 1."""
    got = blurs.defocus_blur(pixels, draws("d"), radius, sigma)
    for image in range(2):
        compare(got[image], package.defocus_blur(as_picture(pixels[image]), severity), 0.05)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("severity", "radius", "sigma"), [(1, 10, 3), (2, 15, 5)])
def test_package_motion_blur(
    package: object, pixels: torch.Tensor, severity: int, radius: int, sigma: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cos, sin = draws("m").direction((), -45, 45)
    got = blurs.motion_blur(pixels, draws("m"), radius, sigma)
    for image in range(4):
        angle = math.degrees(math.atan2(float(sin[image]), float(cos[image])))
        monkeypatch.setattr(np.random, "uniform", Replay([angle]))
        theirs = package.motion_blur(as_picture(pixels[image]), severity)  # type: ignore[attr-defined]
        # Taps below 1e-6 are cut here, and shifts of half a pixel may round either way.
        assert np.mean(np.abs(last(got[image]) * 255 - theirs) > 0.1) < 0.02


def test_package_fog(package: object, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    got = weather.fog(pixels, draws("f"), 1.5, 2)
    stream, values, step, wibble = draws("f"), [], SIDE, 100.0
    while step >= 2:
        cells = SIDE // step
        values += [stream.uniform((cells, cells), -wibble, wibble).double().numpy() for _ in range(3)]
        step, wibble = step // 2, wibble / 2
    for image in range(4):
        monkeypatch.setattr(np.random, "uniform", Replay([value[image] for value in values]))
        compare(got[image], package.fog(as_picture(pixels[image]), 1), 0.01)  # type: ignore[attr-defined]


def test_package_zoom_blur_differs_by_its_whole_pixel_crop(package: object, pixels: torch.Tensor) -> None:
    """Its crop is cut to whole pixels and its result to the top left corner, so it drifts: same blur, other centre."""
    factors = tuple(round(1 + 0.01 * i, 2) for i in range(11))
    got = blurs.zoom_blur(pixels, draws("z"), factors)
    for image in range(4):
        theirs = package.zoom_blur(as_picture(pixels[image]), 1) / 255  # type: ignore[attr-defined]
        ours, clean = last(got[image]), last(pixels[image])
        assert np.abs(ours - theirs).mean() < np.abs(clean - theirs).mean()
        assert np.abs(ours[8:-8, 8:-8] - theirs[8:-8, 8:-8]).mean() < 0.04


@pytest.mark.parametrize(("severity", "share"), [(1, 0.6), (3, 0.4), (5, 0.25)])
def test_package_pixelate(package: object, pixels: torch.Tensor, severity: int, share: float) -> None:
    image_module = pytest.importorskip("PIL.Image")
    got = digital.pixelate(pixels, draws("p"), share)
    picture = image_module.fromarray(as_picture(pixels[0]))
    compare(got[0], np.asarray(package.pixelate(picture, severity)), 1.01)  # type: ignore[attr-defined]


def test_snow_formula(pixels: torch.Tensor) -> None:
    """The published formula with the layer kept in floats; at zoom 1 nothing is resampled."""
    constants = KINDS["snow"].levels[1]
    mean, deviation, zoom, threshold, radius, sigma, share = constants
    assert zoom == 1
    got = weather.snow(pixels, draws("n"), *constants)
    stream = draws("n")
    n = stream.normal((1, SIDE, SIDE)).double().numpy()
    cos, sin = (part.double().numpy() for part in stream.direction((), -135, -45))
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for image in range(4):
        flakes = n[image, 0] * deviation + mean
        flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
        layer = np.zeros_like(flakes)
        for i, weight in enumerate(weights):
            rows = np.clip(np.arange(SIDE) + math.ceil(i * sin[image] - 0.5), 0, SIDE - 1)
            columns = np.clip(np.arange(SIDE) + math.ceil(i * cos[image] - 0.5), 0, SIDE - 1)
            layer += weight * flakes[rows][:, columns]
        x = last(pixels[image])
        grey = x @ np.array([0.299, 0.587, 0.114])
        x = share * x + (1 - share) * np.maximum(x, grey[..., None] * 1.5 + 0.5)
        expected = np.clip(x + (layer + np.rot90(layer, 2))[..., None], 0, 1)
        np.testing.assert_allclose(last(got[image]), expected, atol=1e-5)
