"""The table of forgeries: each kind, how it is made with all scores and hashes recomputed, and what catches it.

``verify`` reads records alone, ``--rebuild`` builds the model, ``--retrain`` trains the run again; ``nobody`` names the
reason why a file cannot give it away. ``docs/trust.md`` shows this table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support import generated_records as generated
from support.forger import Change, Evidence, all_of, answer_right, every_exit, set_to

from anytime_bench.files import canonical_json
from anytime_bench.records import store

VERIFY, REBUILD, RETRAIN, NOBODY = "verify", "verify --rebuild", "verify --retrain", "nobody"


@dataclass(frozen=True)
class Forgery:
    """``make`` returns the records that are judged, the forged one among them; ``words`` stand in the fault."""

    kind: str
    caught_by: str
    make: Callable[[Evidence], list[Path]]
    words: str = ""
    why: str = ""


def one(
    kind: str, caught_by: str, change: Change | None = None, arrays: Change | None = None, *, words: str = "",
    why: str = "", **options: Any,
) -> Forgery:  # fmt: skip
    """A forged record that stands alone."""
    return Forgery(kind, caught_by, lambda e: [e.forged(change, arrays, **options)], words, why)


def stated(kind: str, place: str, value: Any, **options: Any) -> Forgery:
    """A number or text of a record that its raw data do not give, or that another claim belies."""
    # As verify writes it; batch sizes are keys and not places in a list.
    named = re.sub(r"(?<!batches)\.(\d+)", r"[\1]", place)
    return one(kind, VERIFY, scores=False, last=set_to(place, value), words=options.pop("words", named), **options)


def _flatter_times(factor: float) -> Change:
    def change(arrays: dict[str, Any]) -> None:
        for name in arrays:
            if name.startswith("timing_") and name.endswith(("run_through", "prefix")):
                arrays[name] = arrays[name] * np.float32(factor)

    return change


def _one_sample(arrays: dict[str, Any]) -> None:
    arrays["timing_batch1_latency_run_through"][0, 0, 0] *= np.float32(1.0001)


def _waits(arrays: dict[str, Any]) -> None:
    arrays["timing_batch1_queue_run_through"] = 0.1 * arrays["timing_batch1_latency_run_through"]


def _fewer_images(arrays: dict[str, Any]) -> None:
    for name in [name for name in arrays if name.startswith("test_") and name != "test_num_classes"]:
        arrays[name] = arrays[name][..., :400]


def _sharpened(arrays: dict[str, Any]) -> None:
    arrays["test_true_log_probability"] = (arrays["test_true_log_probability"] / 2).astype(np.float16)


def _noise_right(arrays: dict[str, Any]) -> None:
    arrays["noise_correct"] = np.full_like(arrays["noise_correct"], 255)


def _one_epoch(content: dict[str, Any]) -> None:
    training = content["training"]
    training["recipe"]["training"]["epochs"] = training["epochs"] = 1
    training["final_losses"] = training["final_losses"][:1]
    training["final_loss"] = training["final_losses"][0]
    _rehash(content)


def _rehash(content: dict[str, Any]) -> None:
    recipe = canonical_json(content["training"]["recipe"])
    content["training"]["recipe_sha256"] = hashlib.sha256(recipe.encode()).hexdigest()


def _copy_with(change: Change, arrays: Change | None = None, base: str = "timed") -> Callable[[Evidence], list[Path]]:
    return lambda e: [
        e.forged(base=base, scores=False, root="store"), e.forged(change, arrays, base=base, root="store"),
    ]  # fmt: skip


def _superseding(**change: Any) -> Callable[[Evidence], list[Path]]:
    """A made-up row, and another record that claims to replace it."""

    def make(e: Evidence) -> list[Path]:
        mine = generated.save(e.folder / "store", "quick")
        record, arrays = generated.make_record(
            change.get("method", "quick"), seed=change.get("seed", 0), change={"supersedes": store.load(mine).record_id}
        )
        if change.get("failed"):
            record, arrays = generated.failed(record, reason="it was in the way"), {}
        return [mine, store.save(e.folder / "store", record, arrays)]

    return make


def _misplaced(e: Evidence) -> list[Path]:
    path = e.forged(scores=False)
    folder = path.parent.with_name("better_name")
    path.parent.rename(folder)
    return [folder / path.name]


def _swapped(e: Evidence) -> list[Path]:
    path = e.forged(scores=False)
    path.with_suffix(".npz").write_bytes(e.other_seed.with_suffix(".npz").read_bytes())
    return [path]


def _elsewhere(content: dict[str, Any]) -> None:
    content["environment"]["cpu"]["model"] = "another"


_LATENCY = "timing.batches.1.clocks.latency"
_LABELS = all_of(set_to("test_labels", lambda labels: np.roll(labels, 1)), answer_right(slice(None)))

FORGERIES = (
    # What the raw data give.
    stated("an accuracy raised", "exits.2.accuracy.value", 0.987),
    stated("an area under the curve raised", "scores.macs.auc_1.value", lambda value: value + 1e-9),
    stated("an interval narrowed", "scores.macs.auc_1.low", lambda low: low + 0.01),
    stated("a calibration error of 0", "exits.2.scores.ece", 0.0),
    stated("a score that does not exist", "exits.2.scores.luck", 1.0),
    stated("no overthinking", "images.wasted.value", 0.0),
    stated("a point of a stopping curve raised", "stopping.curves.confidence.accuracy.3", 0.999),
    stated("an accuracy at a budget raised", "stopping.budgets.confidence.macs.100.value", 0.999,
           words="stopping.budgets"),
    stated("an accuracy under noise raised", "robustness.rows.0.final_accuracy.value", 0.99),
    stated("a time of an exit shortened", f"{_LATENCY}.run_through.0.p50", 1e-6, base="timed"),
    stated("a ratio to the reference lowered", f"{_LATENCY}.ratio_to_reference.0.value", 0.01, base="timed"),
    stated("an area on the clock raised", "timed_scores.latency.auc_2.value", 0.99, base="timed"),
    stated("a slower reference", "reference.costs.latency", 1.0, base="timed"),
    stated("a disturbance explained away", "timing.batches.1.reasons", ["none"], base="timed"),
    one("a busy neighbour in the watch's readings, and no reason", VERIFY,
        set_to("timing.meta.watch", {"1": {"foreign_busy_cores": 1.9, "cores": 2}}), base="timed",
        words="other processes kept 1.90 of 2 cores busy"),
    one("a wait for a core in the watch's readings, and no reason", VERIFY,
        set_to("timing.meta.watch", {"1": {"queue_share": 0.5}}), base="timed", words="without a core 50%"),
    one("a wait for a core that the samples hold, and the watch is said not to have seen", VERIFY,
        set_to("timing.meta.watch", {"1": {"queue_share": 0.0}}), _waits, base="timed", words="by its samples"),
    stated("a shorter span", "span.span_macs.0", 1, base="timed", words="span"),
    one("answers replaced, scores unchanged", VERIFY, None, answer_right(slice(0, 1)), scores=False,
        words="exits[0].accuracy"),
    Forgery("the trace of another seed", VERIFY, _swapped, "altered"),
    one("an array that no record has", VERIFY, None, set_to("bonus", np.ones(3)), words="bonus"),
    one("times withheld", VERIFY, base="timed", last=lambda c: [c.pop("timing"), c.pop("timed_scores")],
        words="states no times"),
    # What the task is.
    one("labels moved to where the answers are right", VERIFY, None, _LABELS, words="labels"),
    one("hard images left out", VERIFY, set_to("task.sizes.test", 400), _fewer_images, words="task.sizes"),
    one("the data of another task", VERIFY, set_to("task.name", "fashion_mnist"), words="task.sha256"),
    stated("other data under the task's name", "task.sha256", "a" * 64),
    stated("another version of the task", "task.version", "2"),
    one("more classes, a lower chance", VERIFY, set_to("task.classes", 20), words="classes"),
    # What the record says of itself.
    stated("made in the future", "created", "2999-01-01T00:00:00Z", words="future"),
    stated("made at no time", "created", "yesterday", words="created"),
    stated("another recipe under its hash", "training.recipe.training.lr", 1e-7, words="recipe_sha256"),
    stated("fewer epochs than the recipe's", "training.epochs", 1),
    stated("a final loss of 0", "training.final_loss", 0.0),
    stated("more losses than epochs", "training.final_losses", [0.3, 0.2, 0.1, 0.05], words="final_losses"),
    stated("less than no time of training", "training.seconds", -1.0),
    one("fewer resamples", VERIFY, set_to("evaluation.resamples", 50), words="resamples"),
    stated("a trace that lies elsewhere", "artifacts.trace.path", "/etc/passwd", words="beside the record"),
    stated("a further file", "artifacts.weights", {"path": "", "sha256": "a" * 64, "bytes": 1}, words="weights"),
    stated("a trace of another size", "artifacts.trace.bytes", 1, words="bytes"),
    stated("an unknown protocol", "protocol_version", "9", words="protocol 9"),
    stated("another device class", "environment.device_class", "nvidia-h100", words="environment says"),
    stated("nobody's method", "method.origin", {}),
    stated("another reference than the recipe's", "command", "anytime-bench run -m small", words="reference.method"),
    stated("costs that do not grow", "exits.2.costs.ticks", 2.0, words="costs.ticks"),
    one("an answer alone that costs more", VERIFY, set_to("exits.1.prefix_costs.macs", 10**9), words="prefix_costs"),
    stated("a model without parameters", "parameters", 0),
    Forgery("a method's record in another's folder", VERIFY, _misplaced, "belongs into"),
    # What lies between records.
    stated("a correction of a record that is not there", "supersedes", "a" * 64),
    Forgery("another row's record superseded", VERIFY, _superseding(method="rival"), "does not lie beside it"),
    Forgery("another seed superseded", VERIFY, _superseding(seed=1), "another row"),
    Forgery("superseded by a failure", VERIFY, _superseding(failed=True), "only results replace"),
    Forgery("a copy under another seed", VERIFY, _copy_with(set_to("training.seed", 7)), "duplicate"),
    Forgery("a copy of an earlier date", VERIFY, _copy_with(set_to("created", "2000-01-01T00:00:00Z")), "duplicate"),
    Forgery("a copy with one sample of a clock altered, under another seed", VERIFY,
            _copy_with(set_to("training.seed", 7), _one_sample), "the very answers"),
    Forgery("a seed run twice, the better one published", VERIFY,
            _copy_with(lambda content: None, answer_right(slice(0, 1)), "trained"), "A seed is run once"),
    # What the model is.
    one("MACs halved", REBUILD, all_of(every_exit("costs.macs", 0.5), every_exit("prefix_costs.macs", 0.5)),
        words="macs of exit 0"),
    one("an answer alone made cheaper", REBUILD, set_to("exits.2.prefix_costs.macs", lambda macs: macs - 1),
        words="macs of each exit alone"),
    one("ticks halved", REBUILD, every_exit("costs.ticks", 0.5), words="ticks of exit 0"),
    one("one parameter", REBUILD, set_to("parameters", 1), words="parameters is 1"),
    one("a reference of twice the MACs", REBUILD, set_to("reference.costs.macs", lambda macs: 2 * macs),
        words="reference.costs.macs"),
    one("a reference of twice the ticks", REBUILD, set_to("reference.costs.ticks", 6.0), words="reference.costs.ticks"),
    one("an execution that the model does not offer", REBUILD, set_to("macs_by_execution.fast", [1, 2, 3]),
        words="macs_by_execution.fast"),
    one("another plugin's code", REBUILD, set_to("method.origin.sha256", "a" * 64), words="other code"),
    one("a wider network's options", REBUILD, set_to("method.options.width", 16), words="parameters"),
    one("weights said to be another's", REBUILD, set_to("method.weights_from", "small"), words="weights_from"),
    one("deviations from the paper hidden", REBUILD, set_to("method.card.deviations", []), words="deviations"),
    # What the training gives.
    one("every answer right", RETRAIN, None, answer_right(slice(None)), words="test_predictions"),
    one("early exits as good as the last", RETRAIN, None, answer_right(slice(0, 2)), words="exit 0, 1"),
    one("one more image right", RETRAIN, None, answer_right(slice(2, 3), 1), words="exit 2"),
    one("validation answers, on which thresholds are fitted", RETRAIN, None, answer_right(slice(None), 9, "val"),
        words="val_predictions"),
    one("truer probabilities", RETRAIN, None, _sharpened, words="true_log_probability"),
    one("right under noise", RETRAIN, None, _noise_right, words="noise_correct"),
    one("another seed's training", RETRAIN, set_to("training.seed", 7), words="weights_sha256"),
    one("one epoch instead of five", RETRAIN, _one_epoch, words="weights_sha256"),
    one("another learning rate", RETRAIN, all_of(set_to("training.recipe.training.lr", 1e-7), _rehash),
        words="weights_sha256"),
    one("an option that only training reads", RETRAIN, set_to("method.options.scale", 2.0), words="weights_sha256"),
    one("other weights", RETRAIN, set_to("training.weights_sha256", "a" * 64), words="weights_sha256"),
    one("lower losses", RETRAIN, set_to("training.final_losses.0", 1e-3), words="final_losses"),
    one("another precision", RETRAIN, set_to("training.precision", "fp8"), words="precision"),
    # What no file can show.
    one("times of the method halved, in every sample", NOBODY, None, _flatter_times(0.5), base="timed",
        why="a clock leaves no trace; verify --retime on like hardware tells"),
    one("a busy neighbour left out of the watch's readings", NOBODY,
        set_to("timing.meta.watch", {"1": {"foreign_busy_cores": 0.0, "cores": 2}}), base="timed",
        why="the watch's readings are its author's word; verify --retime tells"),
    one("another processor's name", NOBODY, set_to("environment.cpu.model", "Fast 9000"),
        why="the machine is known from its own words alone"),
    one("a shorter training", NOBODY, set_to("training.seconds", 0.1), why="seconds of a clock that is gone"),
    one("an earlier date", NOBODY, set_to("created", "2020-01-01T00:00:00Z"), why="no date decides anything"),
    one("another command", NOBODY, set_to("command", "anytime-bench run -m small reference=small --json"),
        why="options and recipe decide, which are compared"),
    one("another seed, said to be trained on another processor", NOBODY,
        all_of(set_to("training.seed", 0), _elsewhere), base="other_seed",
        why="elsewhere a training is another draw; accuracies must agree, and do"),
)  # fmt: skip
