"""What holds for every corruption: determinism, shapes, severities, errors, the registry and the official files."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_bench.corruptions import (
    KINDS,
    conditions,
    corrupt,
    named,
    register_corruption,
)
from anytime_bench.corruptions import cifar10c as official
from anytime_bench.corruptions.apply import snap, to_normalised, to_pixels
from anytime_bench.corruptions.draws import Draws, mix
from anytime_bench.errors import UserError

ALL = conditions(named("all"), [5])
NAMES = [name for name, _ in ALL]


def pixels(count: int, depth: int, side: int) -> torch.Tensor:
    """Smooth random pictures with some grain, on the 8-bit grid."""
    generator = torch.Generator().manual_seed(count * 1000 + side)
    coarse = torch.rand(count, depth, max(2, side // 4), max(2, side // 4), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return snap(0.05 + 0.9 * smooth + 0.04 * torch.randn(count, depth, side, side, generator=generator))


def noisy(images: torch.Tensor, kind: str, severity: int | None, first: int = 0, frame: int = 0) -> torch.Tensor:
    return corrupt(images, kind, severity=severity, seed=5, indices=range(first, first + len(images)), frame=frame)


# ------------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize(("kind", "severity"), ALL)
def test_same_bits_for_any_batch_size_and_thread_count(kind: str, severity: int | None) -> None:
    images = pixels(256, 3, 16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = noisy(images, kind, severity, frame=3)
        assert torch.equal(whole, noisy(images, kind, severity, frame=3)), "a second run differs"
        sevens = torch.cat([noisy(images[i : i + 7], kind, severity, i, 3) for i in range(0, 70, 7)])
        ones = torch.cat([noisy(images[i : i + 1], kind, severity, i, 3) for i in range(20)])
        torch.set_num_threads(2)
        two_threads = noisy(images, kind, severity, frame=3)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(whole[:70], sevens)
    assert torch.equal(whole[:20], ones)
    assert torch.equal(whole, two_threads)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(30, 1, 16)
    whole = {condition: noisy(images, *condition) for condition in ALL}
    monkeypatch.setattr("anytime_bench.corruptions.apply.CHUNK_VALUES", 7 * 256)
    for condition, expected in whole.items():
        assert torch.equal(noisy(images, *condition), expected), condition


@pytest.mark.parametrize(("kind", "severity"), ALL)
def test_draws_follow_the_image_number_the_frame_and_the_seed(kind: str, severity: int | None) -> None:
    images = pixels(1, 1, 28).expand(6, -1, -1, -1).contiguous()
    order = torch.tensor([5, 3, 0, 1, 4, 2])
    straight = corrupt(images, kind, severity=severity, seed=5, indices=range(6))
    shuffled = corrupt(images[order], kind, severity=severity, seed=5, indices=order)
    assert torch.equal(straight[order], shuffled)
    per_frame = corrupt(images, kind, severity=severity, seed=5, indices=[2] * 6, frame=torch.arange(6))
    assert torch.equal(per_frame[4:5], corrupt(images[:1], kind, severity=severity, seed=5, indices=[2], frame=4))
    random = KINDS[kind].operator not in {KINDS[name].operator for name in FIXED}
    for other in (per_frame, corrupt(images, kind, severity=severity, seed=6, indices=range(6))):
        assert torch.equal(straight, other) != random


#: Kinds that draw nothing.
FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("kind", "severity"), ALL)
def test_a_gpu_draws_the_same_images(kind: str, severity: int | None) -> None:
    images = pixels(32, 3, 32)
    # The device may contract a product and a sum; the draws themselves, and so places and masks, are the same.
    on_device = noisy(images.cuda(), kind, severity).cpu()
    assert (on_device - noisy(images, kind, severity)).abs().gt(1e-5).float().mean() < 1e-3


@given(seed=st.integers(0, 2**63 - 1), first=st.integers(0, 2**40), frame=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_any_seed_image_and_frame_give_draws_in_range(seed: int, first: int, frame: int) -> None:
    index = torch.arange(first, first + 3)
    stream = Draws(seed, "gaussian_noise", index, torch.full((3,), frame))
    u, n, i = stream.uniform((50,)), stream.normal((51,)), stream.integers(7, (9,))
    assert u.min() >= 0
    assert u.max() < 1
    assert torch.isfinite(n).all()
    assert set(i.flatten().tolist()) <= set(range(7))
    assert len({tuple(row) for row in u.tolist()}) == 3


def test_mix_is_splitmix64() -> None:
    """First outputs of SplitMix64 from state 0 (Vigna's reference implementation)."""
    golden = 0x9E3779B97F4A7C15
    state = torch.tensor([((k * golden) & (2**64 - 1)) - (2**64 if (k * golden) & (2**63) else 0) for k in (1, 2, 3)])
    words = [int(word) & (2**64 - 1) for word in mix(state)]
    assert words == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_draws_are_uniform_and_normal_and_independent() -> None:
    stream = Draws(0, "x", torch.arange(200), torch.zeros(200, dtype=torch.int64))
    u, n = stream.uniform((1000,)).double(), stream.normal((1000,)).double()
    # Bounds are five standard errors at 200,000 draws.
    assert abs(u.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / 2e5)
    assert abs(u.var().item() - 1 / 12) < 5 * math.sqrt(1 / 180 / 2e5)
    assert abs(n.mean().item()) < 5 / math.sqrt(2e5)
    assert abs(n.var().item() - 1) < 5 * math.sqrt(2 / 2e5)
    assert abs((n**4).mean().item() - 3) < 5 * math.sqrt(96 / 2e5)
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:]), (n[:, ::2], n[:, 1::2])):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()
        assert abs(correlation) < 5 / math.sqrt(a.numel())


# ------------------------------------------------------------------------------------------- shapes and severities


@pytest.mark.parametrize(("kind", "severity"), ALL)
@pytest.mark.parametrize(("depth", "height", "width"), [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 64, 48), (3, 224, 224)])
def test_grey_and_colour_of_any_size(kind: str, severity: int | None, depth: int, height: int, width: int) -> None:
    images = pixels(2, depth, max(height, width))[:, :, :height, :width]
    before = images.clone()
    got = noisy(images, kind, severity)
    assert got.shape == images.shape
    assert got.dtype == torch.float32
    assert torch.equal(images, before), "the input was written to"
    assert torch.isfinite(got).all()
    if KINDS[kind].space == "unit":
        assert got.min() >= 0
        assert got.max() <= 1
    if kind != "resolution":  # which draws a factor of 1 for a third of the images
        assert not torch.equal(got, images)


def photographs(side: int) -> torch.Tensor:
    data = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn's sample photographs")
    photo = torch.from_numpy(data.load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    cell = {8: 32, 32: 64, 224: 224}[side]
    rows = photo[:, :, : 427 // cell * cell, : 640 // cell * cell].unfold(2, cell, cell).unfold(3, cell, cell)
    cells = rows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, cell, cell)
    return snap(torch.nn.functional.avg_pool2d(cells, cell // side))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(max(float((a - b).double().pow(2).mean()), 1e-15))


#: By PSNR the published constants do not order these: elastic_transform moves its corners most at severity 1, and
#: glass_blur's second blur, wider at severity 3, hides part of the exchange.
UNORDERED = ("elastic_transform", "glass_blur")


@pytest.mark.parametrize("kind", [name for name in KINDS.family("common") if name not in UNORDERED])
@pytest.mark.parametrize("side", [8, 32, 224])
def test_severity_lowers_the_psnr(kind: str, side: int) -> None:
    if kind == "snow" and side == 8:
        pytest.skip("on 8 pixels the flakes of snow's severities 2 to 5 are enlarged beyond the image")
    images = photographs(side)[:60]
    values = [psnr(images, noisy(images, kind, severity)) for severity in range(1, 6)]
    assert all(after <= before for before, after in itertools.pairwise(values)), values
    assert values[4] < values[0]


@pytest.mark.parametrize("kind", UNORDERED)
def test_the_two_exceptions_still_do_harm_at_every_severity(kind: str) -> None:
    images = photographs(32)[:60]
    assert all(psnr(images, noisy(images, kind, severity)) < 40 for severity in range(1, 6))


def test_severities_share_their_draws() -> None:
    images = torch.full((3, 1, 16, 16), 128 / 255)
    weak, strong = (noisy(images, "gaussian_noise", severity) - images for severity in (1, 5))
    torch.testing.assert_close(weak / 0.04, strong / 0.10, atol=1e-4, rtol=0)


def test_normalised_images_come_back_normalised() -> None:
    images = pixels(3, 3, 32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    normalised = to_normalised(images, mean, std)
    assert torch.equal(snap(to_pixels(normalised, mean, std)), images), "the way to 8 bits and back is exact"
    got = corrupt(normalised, "fog", severity=3, seed=1, indices=range(3), mean=mean, std=std)
    expected = to_normalised(corrupt(images, "fog", severity=3, seed=1, indices=range(3)), mean, std)
    assert torch.equal(got, expected)


# ----------------------------------------------------------------------------------------------------- errors


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown corruption 'gausian_noise'\. Did you mean gaussian_noise"):
        corrupt(torch.zeros(1, 1, 8, 8), "gausian_noise", seed=0, indices=[0])
    with pytest.raises(UserError, match="unknown corruption 'focuss'"):
        named("focuss")


def test_frost_says_why_it_is_missing() -> None:
    with pytest.raises(UserError, match=r"'frost' is left out: it blends in photographs"):
        corrupt(torch.zeros(1, 3, 32, 32), "frost", severity=1, seed=0, indices=[0])


@pytest.mark.parametrize("severity", [0, 6, -1, None, 2.5, True])
def test_severity_out_of_range(severity: object) -> None:
    with pytest.raises(UserError, match=r"severity of 'fog': expected an integer from 1 to 5"):
        corrupt(torch.zeros(1, 1, 8, 8), "fog", severity=severity, seed=0, indices=[0])  # type: ignore[arg-type]


def test_paper_kinds_have_no_severity() -> None:
    with pytest.raises(UserError, match="'focus' has no severities, got severity 3"):
        corrupt(torch.zeros(1, 1, 8, 8), "focus", severity=3, seed=0, indices=[0])


@pytest.mark.parametrize(
    ("images", "indices", "message"),
    [
        (torch.zeros(2, 8, 8), [0, 1], r"images: expected \(batch, 1 or 3 channels"),
        (torch.zeros(2, 2, 8, 8), [0, 1], r"images: expected \(batch, 1 or 3 channels"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), [0, 1], "expected float32, got torch.uint8"),
        (torch.zeros(2, 1, 8, 8), [0], r"indices: expected one number per image, shape \(2,\), got \(1,\)"),
    ],
)
def test_inputs_of_the_wrong_shape(images: torch.Tensor, indices: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        corrupt(images, "occlusion", seed=0, indices=indices)


# --------------------------------------------------------------------------------------------------- registry


def test_listing_the_kinds_does_not_import_torch() -> None:
    code = "import sys; from anytime_bench.corruptions import KINDS; print(len(list(KINDS)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, imported = done.stdout.split()
    assert int(count) >= 20
    assert imported == "False"


def test_the_catalogue_holds_six_and_fourteen() -> None:
    assert len(KINDS.family("paper")) >= 6
    assert len([name for name in KINDS.family("common") if len(KINDS[name].levels) == 5]) == 14
    assert "frost" not in KINDS


def test_a_plugin_adds_a_corruption_and_cannot_take_a_name() -> None:
    families = KINDS.family("paper"), KINDS.family("common")
    with KINDS.temporary():
        register_corruption("negative", lambda x, draws, share: 1 - share * x, levels=((0.5,), (1.0,)))
        assert KINDS["negative"].severities == (1, 2)
        assert "negative" in KINDS
        assert (KINDS.family("paper"), KINDS.family("common")) == families, "it joins no published set"
        with pytest.raises(UserError, match="corruption 'fog' is taken by the suite"):
            register_corruption("fog", lambda x, draws: x)
    assert "negative" not in KINDS


def test_named_choices() -> None:
    assert named("none") == ()
    assert named("paper") == KINDS.family("paper")
    assert named("fog, focus") == ("fog", "focus")
    assert set(named("all")) == set(KINDS)


# --------------------------------------------------------------------------------------------- official files


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in with 20 images for the 10,000."""
    monkeypatch.setattr(official, "IMAGES", 20)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "frost.npy", rng.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(rng.integers(0, 10, 20), 5))
    return tmp_path


def test_official_files_give_severities_in_order(files: Path) -> None:
    found = official.OfficialFiles(files)
    raw = np.load(files / "CIFAR-10-C" / "frost.npy")
    assert found.kinds == ("frost",)
    assert found.labels.shape == (20,)
    for severity in range(1, 6):
        expected = raw[(severity - 1) * 20 + 4 : (severity - 1) * 20 + 9].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(found.images("frost", severity, 4, 9), expected)


def test_official_files_that_are_missing_or_misshapen(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CIFAR-10-C files"):
        official.OfficialFiles(tmp_path / "elsewhere")
    found = official.OfficialFiles(files)
    with pytest.raises(UserError, match="severity of 'frost': expected an integer from 1 to 5, got 6"):
        found.images("frost", 6)
    with pytest.raises(UserError, match=r"no CIFAR-10-C file for 'frots'.*Did you mean frost"):
        found.images("frots", 1)
    np.save(files / "CIFAR-10-C" / "frost.npy", np.zeros((100, 3, 32, 32), np.uint8))
    with pytest.raises(UserError, match=r"expected shape \(100, 32, 32, 3\) of uint8, got \(100, 3, 32, 32\) of uint8"):
        found.images("frost", 1)
    (files / "CIFAR-10-C" / "frost.npy").write_bytes(b"not an array")
    with pytest.raises(UserError, match=r"not a readable \.npy file"):
        found.images("frost", 1)
    np.save(files / "CIFAR-10-C" / "labels.npy", np.arange(100) % 10 + np.arange(100) // 95)
    with pytest.raises(UserError, match="expected the same 10,000 labels"):
        _ = official.OfficialFiles(files).labels
