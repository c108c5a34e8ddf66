"""From samples to numbers: a pure function that anyone can redo from the stored file, without torch."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.timing_summary import median_interval, reference_drift, summarise

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
    assert set(stored) == {"meta", "batches"}


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
