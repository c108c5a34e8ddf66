"""One run: plan -> train -> predict -> time -> corrupt -> score -> record. Every stage can be resumed.

``execute`` carries a plan out and returns the path of its record; ``run`` is the Python entry to the whole. A run
that diverges or whose method raises ends as a record with status ``failed`` and its reason.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from anytime_bench.errors import UserError, describe
from anytime_bench.methods.contract import AnytimeModel, Method
from anytime_bench.methods.plugins import snake_case
from anytime_bench.records import store
from anytime_bench.records.figures import speed_accuracy
from anytime_bench.records.noise_figures import accuracy_over_ticks
from anytime_bench.records.record import MethodEntry, Record, TaskEntry, TrainingEntry, finite
from anytime_bench.records.scoring import derive
from anytime_bench.registry import methods
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import Plan, Row, build_model, make_plan, weights_folder
from anytime_bench.runs.prepared import prepared_path, read_prepared, write_prepared
from anytime_bench.runs.stages import Arrays, noise_stage, predict_stage, timing_stage
from anytime_bench.tasks.loading import load_task
from anytime_bench.tasks.task import Task
from anytime_bench.trace.answers import TraceError
from anytime_bench.training import checkpoints
from anytime_bench.training import ddp as distributed
from anytime_bench.training import loop as training
from anytime_bench.training.data import DeviceSplit

#: How far ``execute`` goes: only the weights; traces and noise too, kept for later; or all of it, with a record.
Until = Literal["trained", "prepared", "record"]


def trained_model(plan: Plan, row: Row, display: Display) -> tuple[AnytimeModel, checkpoints.TrainingReport]:
    """The row's model with trained weights: trained now, resumed, or lent by another row's training."""
    model = build_model(row, plan.task, plan.seed, plan.device)
    own = row is plan.row
    if row.lender is not None:
        lent, report = trained_model(plan, row.lender, display)
        weights = {name: tensor.detach().clone() for name, tensor in lent.state_dict().items()}
        try:
            row.method.adopt(model, weights)
        except (RuntimeError, KeyError, ValueError) as error:
            raise UserError(
                f"method '{row.name}' cannot take over the weights of '{row.lender.name}': {error}"
            ) from error
        if row.method.weights_from:
            return model, report
    folder = weights_folder(plan, row)
    # Another row's finished weights are shared; one's own are trained anew unless --resume says otherwise.
    finished = checkpoints.load_weights(folder) if plan.resume or not own else None
    if finished is not None:
        model.load_state_dict(finished[0])
        return model, finished[1]
    if not plan.resume and own:
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    train, val = (DeviceSplit.place(plan.task.splits[key], plan.task.card, plan.device) for key in ("train", "val"))
    with display.training(row.name, row.config.training.epochs) as on_step:
        report = training.train(
            row.method, model, train, val, row.config, seed=plan.seed, folder=folder,
            resume=plan.resume or not own, on_step=on_step, warn=display.warn,
        )  # fmt: skip
    return model, report


def skeleton(plan: Plan, status: str, reason: str = "") -> dict[str, Any]:
    """The fields every record has, whatever became of the run."""
    card = plan.task.card
    origin = {key: str(value) for key, value in dataclasses.asdict(plan.row.origin).items() if value and key != "name"}
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status": status,
        "reason": reason,
        "suite_version": suite_version(),
        "command": plan.command,
        "device": plan.device_name,
        "method": MethodEntry(
            name=plan.row.name,
            origin=origin,
            options=plan.row.options,
            card=finite(dataclasses.asdict(plan.row.method.card)) if hasattr(plan.row.method, "card") else {},
            weights_from=plan.row.method.weights_from,
            starts_from=plan.row.method.starts_from,
        ),
        "task": TaskEntry(
            name=card.name, title=card.title, version=card.version, classes=card.num_classes, shape=card.shape,
            sizes=dict(card.sizes), sha256=card.sha256,
        ),
        "environment": finite(plan.environment),
    }  # fmt: skip


def training_entry(plan: Plan, report: checkpoints.TrainingReport) -> TrainingEntry:
    config = plan.row.lender.config if plan.row.method.weights_from and plan.row.lender else plan.row.config
    return TrainingEntry(
        seed=plan.seed, epochs=report.epochs, recipe_name=config.recipe_name,
        recipe=finite(config.recipe()), recipe_sha256=config.recipe_sha256(),
        weights_sha256=report.weights_sha256, seconds=report.seconds,
        final_loss=report.losses[-1] if report.losses else None, final_losses=report.losses[-5:],
    )  # fmt: skip


def suite_version() -> str:
    try:
        return version("anytime_bench")
    except PackageNotFoundError:
        return "0+unknown"


@dataclass
class Measured:
    """What the stages after training produced, before it is scored."""

    arrays: Arrays
    timing_meta: dict[str, Any] | None = None


def untimed_stages(plan: Plan, model: AnytimeModel, weights_sha256: str, display: Display, keep: bool) -> Arrays:
    """Traces and noise, which no clock takes part in: found in the run's folder, or made now and kept if asked."""
    arrays = read_prepared(plan, weights_sha256) if plan.resume else None
    if arrays is None:
        arrays = predict_stage(plan, model, display)
        arrays |= noise_stage(plan, model, plan.row.config.evaluation.noise, display)
        if keep:
            write_prepared(plan, arrays, weights_sha256)
    return arrays


def reference_entry(plan: Plan) -> dict[str, Any]:
    """Full cost of the reference model per axis: the unit of every horizon."""
    costs = plan.reference_costs
    return {"method": plan.reference.name, "ticks": float(costs.ticks[-1]), "macs": int(costs.macs_prefix[-1])}


def build_record(plan: Plan, report: checkpoints.TrainingReport, measured: Measured) -> Record:
    """Score what was measured and put the record together, unsealed."""
    reference = reference_entry(plan)
    derived = derive(
        measured.arrays, ticks=plan.costs.ticks, macs=plan.costs.macs, macs_prefix=plan.costs.macs_prefix,
        reference=reference, timing_meta=measured.timing_meta, resamples=plan.row.config.evaluation.resamples,
    )  # fmt: skip
    full = derived["timing"].get("reference_full")
    device = derived["timing"].get("device_time")
    reference["latency"] = full["p50"] if full else None
    reference["device_time"] = device["reference_full"]["p50"] if device else None
    fields = skeleton(plan, "ok")
    fields.update(derived)
    fields.update(
        training=training_entry(plan, report),
        parameters=plan.costs.parameters,
        costs=finite(plan.costs.to_dict()),
        evaluation=finite(dataclasses.asdict(plan.row.config.evaluation)),
        reference=reference,
        # Completed by the store, which is where the trace is written.
        artifacts={"trace": {"sha256": "", "bytes": 0}},
    )
    return Record.model_validate(fields)


def execute(plan: Plan, display: Display, until: Until = "record") -> Path | None:
    """Carry out a plan and return the record's path; a diverged or crashed training gives a failed record.

    ``until`` stops earlier, without a record and with None; a later call with ``plan.resume`` goes on from there.
    """
    if plan.skip:
        distributed.leave()
        return store.save(plan.out, Record.model_validate(skeleton(plan, "skipped", plan.skip)), {})
    try:
        model, report = trained_model(plan, plan.row, display)
        distributed.leave()
        if until == "trained":
            return None
        measured = Measured(untimed_stages(plan, model, report.weights_sha256, display, keep=until == "prepared"))
        if until == "prepared":
            return None
        timed, measured.timing_meta = timing_stage(plan, model, display)
        measured.arrays |= timed
        record = build_record(plan, report, measured)
    except UserError:
        raise
    except (training.Diverged, TraceError) as error:
        distributed.leave()
        return store.save(plan.out, Record.model_validate(skeleton(plan, "failed", str(error))), {})
    except Exception as error:
        if distributed.rank() > 0:
            raise
        reason = f"{describe(error)}"
        display.trace(error)
        return store.save(plan.out, Record.model_validate(skeleton(plan, "failed", reason)), {})
    path = store.save(plan.out, record, measured.arrays)
    with checkpoints.storage_errors(path.parent):
        speed_accuracy(store.load(path), measured.arrays, path.with_suffix(".png"))
        if record.robustness:
            accuracy_over_ticks(record.robustness, path.with_suffix(".noise.png"), title=plan.row.name)
    prepared_path(plan).unlink(missing_ok=True)
    return path


def run(
    method: str | type[Method],
    task: str | Task = "digits",
    *,
    seed: int = 0,
    overrides: Iterable[str] = (),
    device: str = "auto",
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    recipe: str | None = None,
    resume: bool = False,
    command: str = "",
    display: Display | None = None,
) -> Record:
    """Train, measure and score one method on one task; returns the stored record, whose ``path`` says where it is.

    ``method`` is a registered name or a ``Method`` class, ``task`` a name or a ``Task``. Raises ``UserError`` for
    bad input, before anything is trained; a training that diverges returns a record with status ``failed``.
    """
    display = display or Display(quiet=not sys.stderr.isatty())
    device = distributed.start(device)
    display.quiet |= distributed.rank() > 0
    if not isinstance(method, str):
        name = getattr(method, "name", None) or snake_case(method.__name__)
        methods.add(name, method)
        method = name
    loaded = load_task(task, data_root) if isinstance(task, str) else task
    overrides = list(overrides)
    plan = make_plan(
        method, loaded, seed=seed, overrides=overrides, device=device, out=out, resume=resume, recipe_file=recipe,
        data_root=data_root,
        command=command or f"anytime_bench.run({method!r}, {loaded.card.name!r}, seed={seed}, overrides={overrides!r})",
    )  # fmt: skip
    if distributed.processes() > 1:
        plan.environment["training_processes"] = distributed.processes()
    display.plan(plan)
    path = execute(plan, display)
    assert path is not None
    record = store.load(path)
    display.result(record, path, next_command(record, path))
    return record


def next_command(record: Record, path: Path) -> str:
    """What a user most likely wants to type now."""
    if record.status == "failed":
        return f"anytime-bench run --method {record.method.name} --task {record.task.name} training.lr=0.01"
    return f"anytime-bench report {path}"
