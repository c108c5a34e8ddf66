"""The verb ``analyse``: what it finds by itself, what it says when something is missing, and its numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from scipy import stats
from support import generated_records as generated
from typer.testing import CliRunner

from anytime_bench.analysis import learned_stopping, readings
from anytime_bench.analysis.answers import load_answers
from anytime_bench.analysis.references import find_references
from anytime_bench.analysis.results import SeedRange
from anytime_bench.analysis.tables import show
from anytime_bench.cli.analyse import analyse
from anytime_bench.errors import UserError
from anytime_bench.records import store
from anytime_bench.scores.stopping_budgets import learn_rules
from anytime_bench.trace.answers import Trace

app = typer.Typer()
app.command()(analyse)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two seeds of a method and three reference nets; difficulty belongs to the image."""
    folder = tmp_path_factory.mktemp("store")
    for seed in (0, 1, 2):
        generated.save(folder, "plain", seed=seed, skill=0.6)
    for seed in (0, 1):
        generated.save(folder, "quick", seed=seed)
    return folder


@pytest.fixture(scope="module")
def quick(root):
    return load_answers([root / "made_up" / "generated-cpu" / "quick"])


@pytest.fixture(scope="module")
def everything(root):
    return readings.read_records([root / "made_up" / "generated-cpu" / "quick"])


def outcome(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


# --- typicality


def test_references_are_the_reference_nets_of_other_seeds(quick):
    for one, expected in zip(quick, ([1, 2], [0, 2]), strict=True):
        references = find_references(one)
        assert [record.training.seed for _, record in references] == expected
        assert {record.method.name for _, record in references} == {"plain"}


def test_a_whole_store_as_reference_gives_its_reference_nets(root, quick):
    assert find_references(quick[0], [root]) == find_references(quick[0])


def test_of_one_seed_the_latest_reference_counts(tmp_path):
    generated.save(tmp_path, "plain", seed=1, skill=0.2, created="2026-01-01T00:00:00Z")
    late = generated.save(tmp_path, "plain", seed=1, skill=0.8, created="2026-02-01T00:00:00Z")
    one = load_answers([generated.save(tmp_path, "quick", seed=0)])[0]
    assert [path for path, _ in find_references(one)] == [late.resolve()]


def test_typicality_is_scipys_correlation_with_the_other_seeds_last_answers(root, everything):
    for reading in everything:
        others = [
            Trace.from_arrays(store.load_arrays(path, record), "test")
            for path, record in find_references(reading.answers)
        ]
        truth = np.mean([np.exp(other.true_log_probability[-1].astype(float)) for other in others], axis=0)
        sure = reading.answers.test.confidence >= 0.9
        exits = np.where(sure.any(axis=0), sure.argmax(axis=0), len(sure) - 1)
        rho = reading.typicality.spearman
        assert rho.value == pytest.approx(stats.spearmanr(truth, exits).statistic, abs=1e-12)
        assert rho.low < rho.value < rho.high < 0
        quarter = np.argsort(truth, kind="stable")[-100:]
        assert reading.typicality.response_time.typical_quarter == pytest.approx(
            reading.answers.cost[exits[quarter]].mean()
        )


def test_without_references_the_command_that_makes_one_is_shown(tmp_path):
    path = generated.save(tmp_path, "quick", seed=0)
    one = load_answers([path])[0]
    reason = readings.read_typicality(one, find_references(one))
    command = f"anytime-bench run --method plain --task made_up --seed 1 --out {tmp_path.resolve()}"
    assert reason.endswith("\n  " + command)
    # The record such a command writes is found.
    generated.save(tmp_path, "plain", seed=1)
    assert len(find_references(one)) == 1


def test_references_of_the_same_seed_or_of_other_images_are_refused(tmp_path, quick):
    same = generated.save(tmp_path, "plain", seed=0)
    other = generated.save(tmp_path, "plain", seed=1, task="fashion_mnist")
    with pytest.raises(UserError, match="none of the 2 records is of another seed than 0"):
        find_references(quick[0], [same, other])


# --- learned stopping


def test_both_rules_spend_the_same_and_the_gru_is_the_one_of_the_scores(everything):
    for reading in everything:
        one = reading.answers
        expected = learned_stopping.learned_stopping(one.test, one.val, one.cost, 1.0)
        for budget, gap in reading.stopping.equal_cost.items():
            by_scores = expected.gru.at_budget[budget]
            assert (gap is None) == (by_scores is None)
            if gap is None:
                continue
            assert gap.cost["gru"] == by_scores.cost
            assert gap.cost["confidence"] == pytest.approx(gap.cost["gru"], abs=1e-12)
            assert gap.gru == by_scores.accuracy
            assert gap.value == pytest.approx(gap.gru - gap.confidence, abs=1e-12)
            assert gap.low <= gap.value <= gap.high


def test_a_rule_does_not_differ_from_itself(quick, monkeypatch):
    """With the confidence in the GRU's place both rules are one, at every budget and for every image."""
    monkeypatch.setattr(
        learned_stopping,
        "stop_probabilities",
        lambda weights, answers: answers.confidence,
    )
    result = readings.read_stopping(quick[0])
    for budget, pair in result.expected.items():
        assert result.equal_cost[budget].verdict == "equivalent"
        assert result.equal_cost[budget].value == 0
        np.testing.assert_allclose(pair["gru"], pair["confidence"], atol=1e-9)


def test_a_record_that_stored_its_gru_is_read_without_learning_again(tmp_path, monkeypatch):
    record, arrays = generated.make_record("quick")
    plain = load_answers([store.save(tmp_path / "plain", record, arrays)])[0]
    learned = learn_rules(plain.val, plain.cost)
    both = load_answers([store.save(tmp_path / "learned", record, {**arrays, **learned})])[0]
    expected = readings.read_stopping(plain)
    monkeypatch.setattr(learned_stopping, "cached_arrays", lambda *_: pytest.fail("learned again"))
    assert readings.read_stopping(both) == expected


def test_a_single_exit_is_said_and_not_an_error(tmp_path):
    traces = (generated.make_trace(0.5, 1, 100, 0), generated.make_trace(0.5, 1, 60, 0, split="val"))
    path = generated.save(tmp_path, "quick", traces=traces)
    reading = readings.read_records([path])[0]
    assert "a single exit leaves nothing to decide" in reading.stopping


# --- several seeds


def test_means_over_seeds(everything):
    (mean,) = readings.seed_means(everything)
    assert mean.seeds == [0, 1]
    values = [each.typicality.spearman.value for each in everything]
    assert mean.typicality == SeedRange(np.mean(values), min(values), max(values))
    for budget, gap in mean.stopping.items():
        each = [reading.stopping.equal_cost[budget].value for reading in everything]
        assert gap.value == pytest.approx(np.mean(each), abs=1e-12)
        assert gap.low < gap.value < gap.high
    assert readings.seed_means(everything[:1]) == []


# --- out-of-distribution images


def test_conversion_keeps_what_it_can_and_averages_what_it_cannot():
    from anytime_bench.analysis.ood_images import as_images_of

    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    assert np.array_equal(as_images_of(grey, (1, 8, 8)), grey)
    colour = as_images_of(grey, (3, 8, 8))
    assert np.array_equal(colour, np.repeat(grey, 3, axis=1))
    # Grey as colour and back is the same grey: the luma weights add up to 1.
    assert np.array_equal(as_images_of(colour, (1, 8, 8)), grey)
    pure = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    pure[:, 1] = 255
    assert (as_images_of(pure, (1, 4, 4)) == round(0.587 * 255)).all()
    # Antialiased: a fine chequerboard becomes grey, where plain sampling would keep black or white.
    board = 255 * (np.indices((32, 32)).sum(axis=0) % 2).astype(np.uint8)[None, None]
    small = as_images_of(board, (1, 4, 4)).astype(int)
    assert abs(small[..., 1:-1, 1:-1] - 127.5).max() < 3
    with pytest.raises(UserError, match="4 channels and the model reads 3"):
        as_images_of(np.zeros((1, 4, 8, 8), dtype=np.uint8), (3, 8, 8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, plugin_file):
    """A record with weights, made in seconds, and a folder of other images: flat grey with noise, in colour."""
    from PIL import Image

    from anytime_bench.methods.plugins import load_plugin
    from anytime_bench.runs.display import Display
    from anytime_bench.runs.pipeline import run

    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(3)
    for label in ("a", "b"):
        (folder / "away" / label).mkdir(parents=True)
        for index in range(40):
            pixels = rng.integers(90, 160, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "away" / label / f"{index}.png")
    name = load_plugin(str(plugin_file))["method"][0]
    overrides = ["epochs=1", "timing_rounds=0"]
    quiet = Display(quiet=True)
    record = run(name, "digits", overrides=overrides, out=folder / "runs", device="cpu", display=quiet)
    return folder, record.path


def test_own_images_shown_as_if_out_of_distribution_give_the_records_own_trace(trained):
    """The weights that are found are the record's: shown its own test images, they answer as the record says."""
    from anytime_bench.analysis.ood_images import OODImages

    record = store.load(trained[1])
    shown = OODImages("digits", device="cpu").trace(trained[1], record)
    own = Trace.from_arrays(store.load_arrays(trained[1], record), "test")
    np.testing.assert_array_equal(shown.predictions, own.predictions)
    np.testing.assert_array_equal(shown.confidence, own.confidence)


def test_ood_auroc_of_a_trained_record(trained, plugin_file):
    away = f"image_folder:{trained[0] / 'away'}"
    done = outcome(trained[1], "--ood", away, "--json", "--plugin", plugin_file, "--device", "cpu")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["records"][0]["ood"]
    assert result["images"] == 20
    for score in ("last_exit", "mean_confidence", "trace_density"):
        assert 0 <= result[score]["value"] <= 1
        assert result[score]["low"] <= result[score]["value"] <= result[score]["high"]


def test_ood_refuses_the_records_own_images_and_missing_weights(trained, tmp_path):
    with pytest.raises(UserError, match="these are the images the records are about"):
        readings.read_records([trained[1]], ood="digits")
    record = store.load(trained[1])
    arrays = store.load_arrays(trained[1], record)
    copy = store.save(tmp_path, record, arrays)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="do not exist; train again with run"):
        readings.read_records([copy], ood=f"image_folder:{trained[0] / 'away'}", device="cpu")
    assert sorted(tmp_path.rglob("*")) == before


# --- the command


def test_tables_fit_100_columns_and_each_block_says_what_it_means(everything, capsys):
    show(everything, readings.seed_means(everything), "macs")
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert sum(line.startswith("Meaning: ") for line in lines) == 2
    assert "Meaning: typical images are answered earlier." in lines


def test_json_is_complete_and_the_picture_is_drawn(root, tmp_path):
    picture = tmp_path / "read.png"
    done = outcome(root / "made_up" / "generated-cpu" / "quick", "--json", "--axis", "ticks", "--out", picture)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [(each["method"], each["seed"]) for each in told["records"]] == [("quick", 0), ("quick", 1)]
    assert told["axis"] == "ticks"
    assert set(told["means"][0]) == {"method", "task", "seeds", "typicality", "stopping"}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--axis", "latency"], "expected ticks or macs"), (["--out", "a.pdf"], "ends in .png or .svg")],
)
def test_bad_options_are_told(root, options, told):
    done = outcome(root, *options)
    assert isinstance(done.exception, UserError)
    assert told in str(done.exception)
