"""Evaluation under noise: identities that any correct harness satisfies, on small models written here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anytime_bench.corruptions import KINDS, corrupt, register_corruption
from anytime_bench.corruptions import cifar10c as official
from anytime_bench.errors import UserError
from anytime_bench.harness.noise import NoiseResult, NoiseSettings, count_macs, evaluate_noise
from anytime_bench.harness.policies import PassCosts
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.scores.results import Estimate, NoiseBlock
from anytime_bench.scores.robustness import fair_comparison, noise_block
from anytime_bench.tasks.task import TaskCard
from anytime_bench.trace.answers import TraceError
from anytime_bench.trace.noise import NoiseRun, pack, unpack

TASK = TaskCard("toy", "Toy", tuple("abcd"), (1, 8, 8), {"test": 64}, (0.5,), (0.25,))


@pytest.fixture(autouse=True)
def _identities() -> Iterator[None]:
    """Two corruptions that do nothing, registered as a plugin would, for one test."""
    with KINDS.temporary():
        register_corruption("nothing", lambda images, draws: images, space="normalised")
        register_corruption("nothing_in_pixels", lambda pixels, draws, *_: pixels, levels=((1,), (2,), (3,)))
        yield


class Serial(AnytimeModel):
    """Three exits of a small random net, one block each."""

    num_exits, ticks = 3, (1, 2, 3)

    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Conv2d(depth if k == 0 else 4, 4, 3, padding=1) for k in range(3)])
        self.head = nn.Linear(4, 10 if depth == 3 else 4)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        x = images
        for block in self.blocks:
            x = block(x).relu()
            yield self.head(x.mean((2, 3)))


class Watching(Serial):
    """The same net, answering at each tick from the mean of the frames seen so far."""

    def watch(self, frames: Tensor) -> Iterator[Tensor]:
        for k in range(self.num_exits):
            yield self.answer(frames[: k + 1].mean(0), k)


class Blind(AnytimeModel):
    num_exits, ticks = 2, (1, 2)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        for _ in range(2):
            yield torch.eye(4)[0].expand(len(images), 4)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (64, 1, 8, 8), generator=generator).float() / 255
    return (pixels - 0.5) / 0.25, torch.arange(64) % 4


def evaluated(model: AnytimeModel, data: tuple[Tensor, Tensor], **options: object) -> NoiseResult:
    costs, progress = options.pop("costs", None), options.pop("progress", None)
    settings = NoiseSettings(**{"kinds": ["occlusion", "perlin"], "batch_size": 24, **options})  # type: ignore[arg-type]
    return evaluate_noise(model, *data, TASK, settings, costs, progress=progress)  # type: ignore[arg-type]


def by_name(result: NoiseResult) -> dict[tuple[str, int, str, str], NoiseRun]:
    return {(run.kind, run.severity, run.mode, run.policy): run for run in result.runs}


def block_of(result: NoiseResult) -> NoiseBlock:
    return noise_block(result.arrays())


@pytest.mark.parametrize("model", [Serial(), Watching()])
def test_identity_reproduces_the_clean_scores_exactly(model: AnytimeModel, data: tuple[Tensor, Tensor]) -> None:
    noise = block_of(evaluated(model, data, kinds=["nothing"]))
    for row in noise.rows:
        clean = noise.clean[row.policy]
        count = len(clean.accuracy)
        assert row.accuracy[:count] == clean.accuracy
        assert set(row.accuracy[count:]) <= {clean.accuracy[-1]}
        assert row.final_accuracy == clean.final_accuracy
        assert row.kept is not None
        assert row.kept.value == 1
    exits = torch.stack([(logits.argmax(-1) == data[1]).double().mean() for logits in model(data[0])])
    assert noise.clean["onset"].accuracy == exits.tolist()


def test_identity_in_pixels_reproduces_the_clean_accuracy(data: tuple[Tensor, Tensor]) -> None:
    noise = block_of(evaluated(Serial(), data, kinds=["nothing_in_pixels"]))
    for row in noise.rows:
        assert row.final_accuracy.value == noise.clean[row.policy].final_accuracy.value


def test_a_blind_model_keeps_chance_everywhere(data: tuple[Tensor, Tensor]) -> None:
    costs = PassCosts((1, 2), (1, 2))
    noise = block_of(evaluated(Blind(), data, kinds=["occlusion", "fog"], num_frames=6, costs=costs))
    assert len(noise.rows) > 10
    for scores in [*noise.rows, *noise.clean.values()]:
        assert set(scores.accuracy) == {0.25}
    assert {row.kept.value for row in noise.rows if row.kept} == {1}


@pytest.mark.parametrize("model", [Serial(), Watching()])
def test_an_infinite_period_is_persistent(model: AnytimeModel, data: tuple[Tensor, Tensor]) -> None:
    held, forever = evaluated(model, data, periods=[]), evaluated(model, data, periods=[math.inf])
    assert block_of(held) == block_of(forever)


def test_answers_are_those_of_the_model_on_the_frames(data: tuple[Tensor, Tensor]) -> None:
    """Every policy stated directly, without schedules or caches."""
    images, labels = data
    model = Watching()
    runs = by_name(evaluated(model, data, kinds=["rotation"], periods=[1], seed=9))
    frames = torch.stack([corrupt(images, "rotation", seed=9, indices=range(64), frame=f) for f in range(3)])
    with torch.inference_mode():
        exits = torch.stack([model(frame) for frame in frames]).double().softmax(-1)  # (F, E, N, C)
        steps = torch.stack(list(model.watch(frames))).double().softmax(-1)
        mixed = torch.stack(list(model.watch(torch.stack([images, images, frames[2]]))))
    expected = {
        "onset": [exits[0, k] for k in range(3)],
        "restart": [*exits[0], exits[1, 2], exits[2, 2]],
        "restart_mean": [*exits[0], exits[:2, 2].mean(0), exits[:, 2].mean(0)],
        "pipelined_mean": [*exits[0], exits[:2, 2].mean(0), exits[:, 2].mean(0)],
        "watch": list(steps),
        "watch_mean": [steps[: k + 1].mean(0) for k in range(3)],
    }
    for policy, outputs in expected.items():
        correct = torch.stack([output.argmax(-1) == labels for output in outputs]).numpy()
        np.testing.assert_array_equal(runs["rotation", 0, "transient_1", policy].correct, correct)
    longer = by_name(evaluated(model, data, kinds=["rotation"], periods=[], num_frames=5, seed=9))
    burst = longer["rotation", 0, "burst_2_3", "watch"].correct
    np.testing.assert_array_equal(burst, (mixed.argmax(-1) == labels).numpy())


def test_batch_size_and_other_kinds_do_not_matter(data: tuple[Tensor, Tensor]) -> None:
    together = by_name(evaluated(Watching(), data))
    alone = by_name(evaluated(Watching(), data, kinds=["perlin"], batch_size=7, periods=[2]))
    for key, run in alone.items():
        np.testing.assert_array_equal(run.correct, together[key].correct)


def test_the_summary_is_a_pure_function_of_the_arrays(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    result = evaluated(Watching(), data, kinds=["occlusion", "fog"])
    np.savez_compressed(tmp_path / "noise.npz", **result.arrays())
    with np.load(tmp_path / "noise.npz", allow_pickle=False) as stored:
        again = noise_block(dict(stored))
    assert again == block_of(result)
    assert NoiseBlock.model_validate_json(again.model_dump_json()) == again
    for before, after in zip(result.runs, unpack(result.arrays()), strict=True):
        np.testing.assert_array_equal(before.correct, after.correct)
    row = next(row for row in again.rows if row.kind == "fog" and row.mode == "persistent")
    severities = [
        run.final.mean() for run in result.runs if (run.kind, run.mode, run.policy) == ("fog", row.mode, row.policy)
    ]
    assert len(severities) == 5
    assert row.final_accuracy.value == pytest.approx(np.mean(severities))


def test_a_damaged_array_is_named(data: tuple[Tensor, Tensor]) -> None:
    arrays = evaluated(Serial(), data, kinds=["occlusion"]).arrays()
    with pytest.raises(TraceError, match="noise_policy: missing"):
        unpack({name: value for name, value in arrays.items() if name != "noise_policy"})
    with pytest.raises(TraceError, match=r"noise_correct: expected shape"):
        unpack({**arrays, "noise_correct": arrays["noise_correct"][:, :-1]})


def test_macs_are_counted_by_hand(data: tuple[Tensor, Tensor]) -> None:
    """Convolutions of 9 taps on 64 pixels (1 -> 4, then 4 -> 4 channels) and a head of 4 x 4 after each."""
    per_exit = [9 * 64 * 4 + 16, 9 * 64 * 16 + 16, 9 * 64 * 16 + 16]
    assert count_macs(Serial().stream(data[0][:1]), 3) == np.cumsum(per_exit).tolist()
    runs = by_name(evaluated(Watching(), data, kinds=["occlusion"]))
    # This watch runs its net from the start at each step, with every head on the way.
    assert (
        runs["occlusion", 0, "transient_1", "watch"].costs["macs"].tolist() == np.cumsum(np.cumsum(per_exit)).tolist()
    )


def test_progress_reaches_the_total(data: tuple[Tensor, Tensor]) -> None:
    seen: list[tuple[int, int]] = []
    evaluated(Serial(), data, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (64 * 3, 64 * 3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_policies_that_watch_are_for_models_that_do(data: tuple[Tensor, Tensor]) -> None:
    watching, serial = ({run.policy for run in evaluated(each(), data).runs} for each in (Watching, Serial))
    assert watching - serial == {"watch", "watch_mean"}


def test_an_unknown_kind_is_refused(data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UserError, match="unknown corruption 'fogg'"):
        evaluated(Serial(), data, kinds=["fogg"])


def test_official_files_are_evaluated_under_persistent_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "IMAGES", 30)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    rng = np.random.default_rng(0)
    stored, labels = rng.integers(0, 256, (150, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 30)
    np.save(folder / "frost.npy", stored)
    np.save(folder / "labels.npy", np.tile(labels, 5))
    task = TaskCard("cifar10", "", tuple("0123456789"), (3, 32, 32), {}, (0.5,) * 3, (0.25,) * 3)
    model, clean = Serial(depth=3), torch.randn(30, 3, 32, 32)
    files = official.OfficialFiles(tmp_path)
    settings = NoiseSettings(batch_size=8)
    result = evaluate_noise(model, clean, torch.from_numpy(labels), task, settings, official=files)
    run = by_name(result)["official/frost", 4, "persistent", "onset"]
    images = (torch.from_numpy(stored[90:120]).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        expected = (model(images).argmax(-1) == torch.from_numpy(labels)).numpy()
    np.testing.assert_array_equal(run.correct, expected)
    with pytest.raises(UserError, match="its labels are not those of the images given"):
        evaluate_noise(model, clean, torch.from_numpy((labels + 1) % 10), task, NoiseSettings(), official=files)


# ----------------------------------------------------------------------------------------------------- scores


def run(correct: list[list[int]], ticks: list[float], mode: str, policy: str = "watch", kind: str = "fog") -> NoiseRun:
    costs = {"ticks": np.array(ticks, dtype=float), "macs": np.array(ticks, dtype=float)}
    return NoiseRun(kind, 0, mode, policy, np.array(correct, dtype=bool), costs)


def kept_share(noisy: np.ndarray, clean: np.ndarray) -> Estimate | None:
    costs = {"ticks": np.ones(1), "macs": np.ones(1)}
    runs = [NoiseRun(mode, 0, mode, "watch", right[None], costs) for mode, right in (("clean", clean), ("held", noisy))]
    return noise_block(pack(runs, 10)).rows[0].kept


def test_kept_share() -> None:
    clean, noisy = np.array([True] * 80 + [False] * 20), np.array([True] * 60 + [False] * 40)
    kept = kept_share(noisy, clean)
    assert kept is not None
    assert kept.value == pytest.approx(0.75)
    assert kept.low < 0.75 < kept.high
    assert kept_share(noisy, np.zeros(100, dtype=bool)) is None


def test_fair_comparison_finds_a_planted_winner_and_a_tie() -> None:
    rng = np.random.default_rng(0)
    better, worse = rng.random(400) < 0.9, rng.random(400) < 0.6
    ticks = [1.0, 2.0, 3.0]
    cascade = [
        run([worse, worse, better], ticks, "transient_1"),
        run([worse, worse, worse], ticks, "transient_1", kind="snow"),
    ]
    serial = [
        run([worse, worse, worse, better], [1, 2, 3, 5], "transient_1", "pipelined_mean"),
        run([worse, worse, worse, worse], [1, 2, 3, 5], "transient_1", "pipelined_mean", "snow"),
    ]
    rows = fair_comparison(pack(cascade, 10), pack(serial, 10))
    verdicts = {(row.kind, row.moment): row.difference.verdict for row in rows}
    assert verdicts["fog", "same_tick"] == "better"
    assert verdicts["fog", "all_frames"] == "equivalent"
    assert verdicts["snow", "same_tick"] == "equivalent"
    assert verdicts["all", "same_tick"] == "better"
    with pytest.raises(TraceError, match="no kind was evaluated in mode 'transient_9'"):
        fair_comparison(pack(cascade, 10), pack(serial, 10), mode="transient_9")
