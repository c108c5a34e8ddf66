"""All scores of a run: JSON-ready, reproducible to the bit, refusing bad traces with the field named."""

import numpy as np
import pytest
from scipy import special

from anytime_bench.files import canonical_json
from anytime_bench.records.record import ExitEntry
from anytime_bench.scores import compare, curve
from anytime_bench.scores import run_scores as summary
from anytime_bench.scores.intervals import percentiles, resampled_means
from anytime_bench.trace.answers import MANY, Trace, TraceError

EXITS, CLASSES = 4, 10
COSTS = {"ticks": [1, 2, 3, 4], "macs": [10, 25, 60, 100], "latency": [0.01, 0.03, 0.025, 0.04]}
HORIZONS = {"ticks": 4.0, "macs": 80.0, "latency": 0.03}
RELATIVE = [macs / 80 for macs in COSTS["macs"]]


def logits_and_labels(seed, images=400, classes=CLASSES, labels_seed=0):
    labels = np.random.default_rng(labels_seed).integers(0, classes, images)
    rng = np.random.default_rng(seed)
    signal = np.linspace(0.5, 2.5, EXITS)[:, None, None] * np.eye(classes)[labels]
    return 2 * (signal + rng.standard_normal((EXITS, images, classes))), labels


def trace_of(seed, **kwargs):
    return Trace.from_logits(*logits_and_labels(seed, **kwargs))


def everything(test, val):
    stopping = summary.stopping_scores(test, val, {"macs": RELATIVE}, rules=["confidence"])
    return {
        "exits": [(accuracy.model_dump(), scores) for accuracy, scores in summary.exit_scores(test, RELATIVE)],
        "axes": {
            axis: {name: estimate.model_dump() for name, estimate in areas.items()}
            for axis, areas in summary.score_axes(test, COSTS, HORIZONS).items()
        },
        "images": {name: estimate.model_dump() for name, estimate in summary.image_scores(test, RELATIVE).items()},
        "stopping": stopping.model_dump(mode="json"),
    }


@pytest.fixture(scope="module")
def runs():
    return trace_of(1), trace_of(2, labels_seed=9)


def test_all_scores_are_json_and_repeat_to_the_bit_after_storage(runs, tmp_path):
    test, val = runs
    first = canonical_json(everything(test, val))
    np.savez(tmp_path / "run.npz", **test.to_arrays("test"), **val.to_arrays("val"))
    with np.load(tmp_path / "run.npz", allow_pickle=False) as arrays:
        again = everything(Trace.from_arrays(arrays, "test"), Trace.from_arrays(arrays, "val"))
    assert canonical_json(again) == first


def test_exit_scores_fit_the_record(runs):
    for k, (accuracy, scores) in enumerate(summary.exit_scores(runs[0], RELATIVE)):
        entry = ExitEntry(k=k, costs={"ticks": k + 1, "macs": k}, prefix_costs={}, accuracy=accuracy, scores=scores)
        assert entry.accuracy.value == pytest.approx(runs[0].accuracy[k], abs=1e-10)
        assert entry.accuracy.low < entry.accuracy.value < entry.accuracy.high


def test_top5_is_left_out_where_it_says_nothing():
    assert not any("top5" in scores for _, scores in summary.exit_scores(trace_of(1, classes=5), RELATIVE))
    trace = trace_of(1)
    logits, labels = logits_and_labels(1)
    top5 = (np.argsort(-logits, axis=2)[..., :5] == labels[None, :, None]).any(axis=2).mean(axis=1)
    np.testing.assert_allclose([scores["top5"] for _, scores in summary.exit_scores(trace, RELATIVE)], top5, atol=1e-10)


def test_perfect_answers_leave_auroc_undefined():
    labels = np.arange(CLASSES)
    _, scores = summary.exit_scores(Trace.from_logits(9.0 * np.eye(CLASSES)[None], labels), [1.0])[0]
    assert "auroc" not in scores
    assert scores["augrc"] == 0


def test_areas_are_those_of_the_curve_and_their_intervals_those_of_the_images(runs):
    test, _ = runs
    axes = summary.score_axes(test, COSTS, HORIZONS)
    for axis in ("ticks", "macs"):
        for name, multiple, log in summary.AREAS:
            score = axes[axis][name]
            horizon = multiple * HORIZONS[axis]
            value = float(curve.auc(COSTS[axis], test.accuracy, horizon, 0.1, log=log))
            assert score.value == pytest.approx(value, abs=1e-9)
            images = curve.auc(COSTS[axis], test.correct, horizon, 0.1, log=log)
            ends = percentiles(resampled_means(images[None])[:, 0])
            assert (score.low, score.high) == pytest.approx(ends, abs=1e-9)


def test_measured_times_are_settled_and_counted_costs_refused(runs):
    test, _ = runs
    assert "auc_1" in summary.score_axes(test, {"latency": COSTS["latency"]}, HORIZONS)["latency"]
    with pytest.raises(TraceError, match=r"cost\[macs\]: costs must increase"):
        summary.score_axes(test, {"macs": [10, 25, 20, 100]}, HORIZONS)


def test_budgets_are_kept_and_bracketed(runs):
    test, val = runs
    stopping = summary.stopping_scores(test, val, {"macs": RELATIVE}, rules=["confidence", "oracle"])
    assert set(stopping.budgets) == {"confidence", "oracle"}
    for point in stopping.budgets["confidence"]["macs"].values():
        assert point is None or point.low <= point.value <= point.high
    assert stopping.oracle.accuracy.value >= test.accuracy.max()
    assert stopping.oracle.gap > 0


def test_a_budget_below_the_first_exit_has_no_accuracy(runs):
    test, val = runs
    points = summary.stopping_scores(test, val, {"macs": [0.3, 0.4, 0.5, 1.0]}).budgets["confidence"]["macs"]
    assert points["25"] is None
    assert points["50"] is not None


def test_a_single_exit_can_be_scored():
    logits, labels = logits_and_labels(1)
    single = Trace.from_logits(logits[-1:], labels)
    assert len(summary.exit_scores(single, [1.0])) == 1
    assert summary.score_axes(single, {"macs": [50]}, {"macs": 50.0})["macs"]["auc_1"].value == pytest.approx(0.1)
    assert summary.image_scores(single, [1.0])["flips"].value == 0
    assert summary.stopping_scores(single, single, {"macs": [1.0]}).curves["patience"].cost == [1.0] * 3


@pytest.mark.parametrize("repeats", [1, 8])
def test_a_stored_trace_is_the_one_that_was_scored_and_close_to_the_logits(repeats):
    """Also in the fewer bits of a large split."""
    parts = [logits_and_labels(seed) for seed in range(repeats)]
    logits = np.concatenate([part[0] for part in parts], axis=1)
    labels = np.concatenate([part[1] for part in parts])
    assert (len(labels) > MANY) == (repeats > 1)
    trace = Trace.from_logits(logits, labels)
    back = Trace.from_arrays(trace.to_arrays("test"), "test")
    for name in Trace.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(trace, name))
    probability = special.softmax(logits, axis=2)
    coarse = 4 if repeats > 1 else 1
    np.testing.assert_allclose(trace.confidence, probability.max(axis=2), atol=5e-4 * coarse)
    np.testing.assert_allclose(trace.squared_norm, (probability**2).sum(axis=2), atol=2.5e-3 * coarse)
    assert abs(trace.squared_norm.mean(dtype=float) - (probability**2).sum(axis=2).mean()) < 2e-4
    log_truth = special.log_softmax(logits, axis=2)[:, np.arange(len(labels)), labels]
    np.testing.assert_allclose(
        trace.true_log_probability, log_truth, rtol=1.2 * 2.0 ** (-8 if repeats > 1 else -11), atol=1e-7
    )
    assert abs(trace.true_log_probability.mean(dtype=float) - log_truth.mean()) < 2e-4


BROKEN = {
    "NaN logits": (lambda a: a["logits"].__setitem__((1, 3, 2), np.nan), "logits: exit 1 holds NaN"),
    "label out of range": (lambda a: a["labels"].__setitem__(0, CLASSES), r"labels: expected 0\.\.9, got"),
    "unequal sample counts": (lambda a: a.update(labels=a["labels"][:-1]), "labels: expected shape"),
    "no images": (lambda a: a.update(labels=a["labels"][:0], logits=a["logits"][:, :0]), "labels: the split is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_logits_are_refused_with_the_field_named(name):
    logits, labels = logits_and_labels(1)
    arrays = {"logits": logits, "labels": labels}
    breaking, message = BROKEN[name]
    breaking(arrays)
    with pytest.raises(TraceError, match=message):
        Trace.from_logits(arrays["logits"], arrays["labels"])


STORED = {
    "val_confidence": (lambda v: np.where(np.arange(len(v.T)) == 3, np.nan, v), "val_confidence: holds NaN"),
    "val_true_log_probability": (lambda v: -v + np.float16(1), "val_true_log_probability: expected"),
    "val_labels": (lambda v: v + np.uint8(200), "val_labels: expected 0"),
    "val_spread": (lambda v: v[:, :-1], "val_spread: expected shape"),
    "val_predictions": (lambda v: v[:, :-1], "val_predictions: expected"),
    "val_true_rank": (lambda v: v * 0 + 1, "val_true_rank: disagrees"),
}


@pytest.mark.parametrize("field", STORED)
def test_bad_stored_traces_are_refused_with_the_field_named(runs, field):
    arrays = runs[1].to_arrays("val")
    breaking, message = STORED[field]
    arrays[field] = breaking(arrays[field])
    with pytest.raises(TraceError, match=message):
        Trace.from_arrays(arrays, "val")


def test_an_empty_validation_split_is_refused(runs):
    arrays = runs[1].to_arrays("val")
    empty = {name: value[..., :0] if value.ndim else value for name, value in arrays.items()}
    empty["val_squared_norm"] = empty["val_spread"]
    with pytest.raises(TraceError, match="val_labels: expected a non-empty vector"):
        Trace.from_arrays(empty, "val")
    unchecked = Trace(CLASSES, *(empty[f"val_{name}"] for name in list(Trace.__dataclass_fields__)[1:7]))
    with pytest.raises(TraceError, match="val_labels: the validation split is empty"):
        summary.stopping_scores(runs[0], unchecked, {"macs": RELATIVE})


def test_splits_and_costs_that_do_not_belong_together_are_refused(runs):
    test, val = runs
    with pytest.raises(TraceError, match="val_predictions: expected 4 exits and 10 classes"):
        summary.stopping_scores(test, trace_of(1, classes=7), {"macs": RELATIVE})
    with pytest.raises(TraceError, match=r"cost\[macs\]: expected one number for each of 4 exits"):
        summary.stopping_scores(test, val, {"macs": [1, 2]})
    with pytest.raises(TraceError, match=r"cost\[ticks\]: expected one number for each of 4 exits"):
        summary.score_axes(test, {"ticks": [1, 2]}, HORIZONS)
    with pytest.raises(TraceError, match=r"horizon\[macs\]: missing"):
        summary.score_axes(test, {"macs": COSTS["macs"]}, {})


def matrices(seeds, shift=0.0):
    traces = []
    for seed in seeds:
        logits, labels = logits_and_labels(seed)
        traces.append(Trace.from_logits(logits + shift * np.eye(CLASSES)[labels], labels))
    return compare.score_matrices(traces, [COSTS] * len(traces), [HORIZONS] * len(traces))


def test_compare_tells_better_from_worse_and_itself_from_nothing():
    weak, strong = matrices([1, 2, 3]), matrices([4, 5], shift=1.5)
    verdicts = {row.score: row.difference.verdict for row in compare.compare(strong, weak)}
    # For NLL less is better, and the verdict says so.
    assert {verdicts[name] for name in ("accuracy", "nll", "auc_1[ticks]", "auc_2[macs]", "alc_1[latency]")} == {
        "better"
    }
    back = {row.score: row.difference.verdict for row in compare.compare(weak, strong)}
    assert back["accuracy"] == back["nll"] == back["auc_1[ticks]"] == "worse"
    assert {row.difference.verdict for row in compare.compare(weak, weak, margins={"accuracy": 0.1})} <= {
        "equivalent",
        "undecided",
    }
    alone = matrices([1])
    assert {row.difference.verdict for row in compare.compare(alone, alone)} == {"equivalent"}


def test_compare_refuses_runs_on_different_images():
    with pytest.raises(TraceError, match="labels: differ from image"):
        compare.score_matrices([trace_of(1), trace_of(1, labels_seed=3)], [COSTS] * 2, [HORIZONS] * 2)
    with pytest.raises(TraceError, match="labels: unequal sample counts"):
        compare.score_matrices([trace_of(1), trace_of(1, images=10)], [COSTS] * 2, [HORIZONS] * 2)
    with pytest.raises(TraceError, match="unequal sample counts"):
        compare.compare({"accuracy": np.ones((1, 3))}, {"accuracy": np.ones((1, 4))})
