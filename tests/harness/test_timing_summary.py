"""From samples to numbers: a pure function that anyone can redo from the stored file, without torch."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anytime_bench.harness.intervals_of_rounds import median_interval
from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.timing_summary import A_A_ENDS, reference_drift, summarise

META = TimingMeta(
    batch_sizes=[1],
    stopped_because={"1": "a test"},
    stop={"latency": {"run_through": "real", "prefix": "real"}},
    clocks={"latency": "perf_counter"},
    seed=5,
)


def samples(rounds=40, exits=3, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.gamma(50, 1e-4, (rounds, 5)).astype(np.float32)
    steps = rng.gamma(50, 1e-4, (rounds, 5, exits)).cumsum(2).astype(np.float32)
    return {
        "batch1_latency_reference": reference,
        "batch1_latency_run_through": steps,
        "batch1_latency_prefix": steps * np.float32(0.9),
    }


def test_the_stored_file_gives_the_same_numbers():
    original = samples()
    stored = io.BytesIO()
    np.savez(stored, **original)
    stored.seek(0)
    assert summarise(dict(np.load(stored)), META) == summarise(original, META)


def test_numbers_are_those_of_the_definitions():
    data = samples()
    summary = summarise(data, META)
    run, reference = data["batch1_latency_run_through"].astype(float), data["batch1_latency_reference"].astype(float)
    assert summary.latency.run_through[1].p90 == pytest.approx(np.percentile(run[..., 1], 90))
    ratio = np.median(np.median(run[..., 2], 1) / np.median(reference, 1))
    assert summary.latency.ratio_to_reference[2].value == pytest.approx(ratio)
    assert summary.latency.prefix_ratio_to_reference[2].value == pytest.approx(0.9 * ratio)


def test_what_was_noticed_stands_once():
    """Copies of it beside the numbers made up an eighth of a record."""
    stored = summarise(samples(), META.model_copy(update={"notes": ["one note"]})).model_dump(mode="json")
    assert stored.pop("notes") == ["one note"]
    assert stored["meta"].pop("notes") == ["one note"]
    assert set(stored) == {"meta", "batches", "dispatch"}


def test_a_missing_array_is_named():
    data = samples()
    del data["batch1_latency_run_through"]
    with pytest.raises(ValueError, match="batch1_latency_run_through: missing"):
        summarise(data, META)


def test_few_rounds_and_drift_are_not_comparable():
    assert summarise(samples(40), META).comparable
    assert "only 12 rounds" in summarise(samples(12), META).headline.reasons[0]
    data = samples()
    data["batch1_latency_reference"] *= np.linspace(1, 1.5, 40, dtype=np.float32)[:, None]
    assert "drifted" in summarise(data, META).headline.reasons[0]


def test_drift_is_the_change_between_the_outer_thirds():
    assert reference_drift(np.array([1.0, 1, 1, 5, 5, 5, 1.2, 1.2, 1.2])) == pytest.approx(0.2)


@given(arrays(np.float64, (30, 2), elements=st.floats(0.1, 10)), st.floats(0.5, 4))
def test_intervals_contain_the_median_and_scale_with_it(values, factor):
    for row, scaled in zip(median_interval(values, 0, 100), median_interval(values * factor, 0, 100), strict=True):
        assert row.low <= row.value <= row.high
        for key, value in row:
            assert getattr(scaled, key) == pytest.approx(value * factor)


def test_interval_covers_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(0, 0.1, (40, 400)))  # 400 experiments of 40 rounds, true median 1
    covered = np.mean([row.low <= 1 <= row.high for row in median_interval(values, 0)])
    assert 0.88 < covered <= 1.0


def test_neighbouring_rounds_that_move_together_widen_the_interval():
    rng = np.random.default_rng(2)
    alone = rng.normal(1, 0.1, (120, 50))
    together = np.repeat(rng.normal(1, 0.1, (30, 50)), 4, axis=0)

    def width(values):
        return np.mean([row.high - row.low for row in median_interval(values, 0)])

    assert width(together) > 1.5 * width(alone)


def test_no_torch_is_needed():
    code = "import sys, anytime_bench.harness.timing_summary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def with_twin(ratio=1.0, noise=0.01, rounds=60):
    """A reference and its twin, ``ratio`` apart in every round whichever takes which part."""
    data, rng = samples(rounds), np.random.default_rng(3)
    scatter = np.exp(rng.normal(0, noise, (rounds, 1)))
    return data | {"batch1_latency_twin": (data["batch1_latency_reference"] * ratio * scatter).astype(np.float32)}


def test_an_a_a_that_does_not_contain_1_or_is_wide_makes_a_block_not_comparable():
    good = summarise(with_twin(), META)
    assert good.comparable
    assert good.latency.a_a.low < 1 < good.latency.a_a.high
    off = summarise(with_twin(1.02), META)
    assert not off.comparable
    assert off.headline.reasons[0].startswith("two copies of the reference differ in latency: their ratio is 1.02")
    wide = summarise(with_twin(noise=0.2), META)
    assert not wide.comparable
    assert "cannot be told equal to 3%" in wide.headline.reasons[0]
    assert summarise(samples(), META).latency.a_a is None


def test_an_a_a_is_blind_to_what_changes_places_with_the_copies():
    data = with_twin(noise=0.0)
    data["batch1_latency_twin"][0::2] *= np.float32(1.05)
    data["batch1_latency_twin"][1::2] /= np.float32(1.05)
    assert summarise(data, META).latency.a_a.value == pytest.approx(1, abs=1e-6)


def test_copies_that_are_equal_are_found_so_in_99_blocks_of_100():
    rng = np.random.default_rng(5)
    alike = 0
    for _ in range(200):
        pairs = np.exp(rng.normal(0, 0.02, (50, 1)))
        (row,) = median_interval(pairs, 0, 400, ends=A_A_ENDS)
        alike += row.low <= 1 <= row.high
    assert alike >= 192  # fewer happen to a 99 % interval in one run of a hundred; these are seeded


def processes(*parts):
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    counts = [len(part["batch1_latency_reference"]) for part in parts]
    return joined | {"batch1_process": np.repeat(np.arange(len(parts)), counts)}


def test_processes_are_averaged_and_each_is_told():
    slow = {
        name: array * np.float32(1.2) if "reference" not in name else array
        for name, array in samples(20, seed=2).items()
    }
    joined = summarise(processes(samples(40), slow), META)
    alone = [summarise(part, META).latency.ratio_to_reference[2] for part in (samples(40), slow)]
    assert joined.latency.ratio_to_reference[2].value == pytest.approx(np.mean([each.value for each in alone]))
    assert [each.ratio_to_reference[2].value for each in joined.latency.processes] == pytest.approx(
        [each.value for each in alone]
    )
    assert joined.headline.rounds == 60


def test_an_interval_over_processes_narrows_with_their_number_and_sees_no_gap_between_them():
    rng = np.random.default_rng(6)
    values, process = np.exp(rng.normal(0, 0.1, (120, 1))), np.repeat(np.arange(4), 30)
    values[process == 1] *= 1.5

    def width(*arguments):
        (row,) = median_interval(*arguments)
        return row.high - row.low

    together = width(values, 0, 1000, process)
    assert together == pytest.approx(width(values[:30], 0) / 2, rel=0.4)
    assert together < 0.5 * width(values, 0)


def test_drift_is_looked_for_within_processes_only():
    slow = {name: array * np.float32(1.5) for name, array in samples(40, seed=2).items()}
    assert summarise(processes(samples(40), slow), META).comparable


def test_rounds_of_no_process_are_refused():
    with pytest.raises(ValueError, match="batch1_process: expected shape"):
        summarise(samples(40) | {"batch1_process": np.zeros(39)}, META)
