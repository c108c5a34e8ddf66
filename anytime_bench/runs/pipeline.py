"""One run: plan -> train -> predict -> time -> corrupt -> score -> record. Every stage can be resumed.

``execute`` carries a plan out and returns the path of its record; ``run`` is the Python entry to the whole. A run
that diverges or whose method raises ends as a record with status ``failed`` and its reason.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from anytime_bench.errors import UserError, describe, location, message
from anytime_bench.harness.deadline_summary import DeadlineMeta
from anytime_bench.harness.deadlines import DeadlineSettings
from anytime_bench.harness.span_summary import SpanMeta
from anytime_bench.harness.timing_block import TimingMeta
from anytime_bench.harness.timing_processes import is_timing_process
from anytime_bench.harness.torch_settings import restored_settings
from anytime_bench.methods.contract import AnytimeModel, Method
from anytime_bench.methods.plugins import snake_case
from anytime_bench.records import store
from anytime_bench.records.figures import speed_accuracy
from anytime_bench.records.noise_figures import accuracy_over_ticks
from anytime_bench.records.record import MethodEntry, Record, Reference, TaskEntry, TrainingEntry, finite
from anytime_bench.records.scoring import derive, from_plugins, undefined
from anytime_bench.records.stamp import now, suite_version
from anytime_bench.registry import methods
from anytime_bench.runs.display import Display, shown
from anytime_bench.runs.guard import guarded, is_meant
from anytime_bench.runs.plan import Plan, ResolvedMethod, build_model, check_arguments, make_plan
from anytime_bench.runs.stages import (
    Arrays,
    deadline_stage,
    learning_stage,
    prepared_path,
    span_stage,
    timing_processes,
    timing_stage,
    untimed_stages,
)
from anytime_bench.runs.sweep.existing import identity_of, stored_records, traces_alone
from anytime_bench.runs.sweep.jobs import Until
from anytime_bench.runs.sweep.planning import identity
from anytime_bench.tasks.loading import load_task
from anytime_bench.tasks.task import Task
from anytime_bench.trace.answers import TraceError
from anytime_bench.training import checkpoints
from anytime_bench.training import ddp as distributed
from anytime_bench.training import loop as training
from anytime_bench.training.config import Overrides
from anytime_bench.training.data import DeviceSplit


def run(
    method: str | type[Method],
    task: str | Task = "digits",
    *,
    seed: int = 0,
    overrides: Overrides = (),
    device: str = "auto",
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    recipe: str | None = None,
    resume: bool = False,
    deadlines: DeadlineSettings | None = None,
    command: str = "",
    display: Display | None = None,
) -> Record:
    """Train, measure and score one method on one task; returns the stored record, whose ``path`` says where it is.

    ``method`` is a registered name or a ``Method`` class, ``task`` a name or a ``Task``, ``overrides`` a list such as
    ``["epochs=5"]`` or a dictionary. With ``deadlines`` the trained model is interrupted at them too. With ``resume`` a
    run that has stored its record already returns that one. Raises ``UserError`` for bad input, before anything is
    trained; a training that diverges returns a record with status ``failed``.
    """
    if is_timing_process():  # it runs the script again for the classes that stand in it
        raise UserError('the script calls anytime_bench.run outside of: if __name__ == "__main__"')
    check_arguments(seed, overrides)
    out = Path(out).absolute()
    display = display or Display(quiet=not sys.stderr.isatty())
    device = distributed.start(device)
    display.quiet |= distributed.rank() > 0
    if not isinstance(method, str):
        name = getattr(method, "name", None) or snake_case(method.__name__)
        methods.add(name, method)
        method = name
    with guarded():
        loaded = load_task(task, data_root) if isinstance(task, str) else task
        overrides = overrides if isinstance(overrides, dict) else list(overrides)
        call = f"anytime_bench.run({method!r}, {loaded.card.name!r}, seed={seed}, overrides={overrides!r})"
        plan = make_plan(
            method, loaded, seed=seed, overrides=overrides, device=device, out=out, resume=resume, recipe=recipe,
            data_root=data_root, command=command or call,
        )  # fmt: skip
    plan.deadlines = deadlines
    if distributed.processes() > 1:
        plan.environment["training_processes"] = distributed.processes()
    display.plan(plan)
    path = stored_record(plan, display) if resume else None
    if path is not None:
        display.say("this run has stored its record already; nothing is done again")
        distributed.leave()
        complete(plan, path)
    else:
        alone = traces_alone(plan.folder.parents[1])
        path = execute(plan, display)
        # Whoever was about to store their records has had the time of a run.
        for trace in alone & traces_alone(plan.folder.parents[1]):
            trace.unlink(missing_ok=True)
    assert path is not None
    record = store.load(path)
    display.result(record, path, next_command(record, path))
    return record


def stored_record(plan: Plan, display: Display) -> Path | None:
    """The newest record in the plan's store of this very run, made of the very weights that lie in its folder."""
    if plan.skip or (finished := checkpoints.load_weights(plan.folder)) is None:
        return None
    wanted = identity(plan.resolved, plan.reference, plan.task, plan.seed, plan.device_name)
    entries = stored_records(plan.out, plan.task.card.name, plan.device_name, plan.resolved.name, display.warn)
    for entry in reversed(entries):
        record = entry.record
        if identity_of(record) != wanted or (plan.deadlines is not None and record.deadlines is None):
            continue
        if record.training is not None and record.training.weights_sha256 == finished[1].weights_sha256:
            return entry.path
    return None


def execute(plan: Plan, display: Display, until: Until = "record") -> Path | None:
    """Carry out a plan and return the record's path; a diverged or crashed training gives a failed record.

    ``until`` stops earlier, without a record and with None: only the weights; or traces and noise too, kept for later.
    A later call with ``plan.resume`` goes on from there.
    """
    if plan.skip:
        return without_result(plan, "skipped", plan.skip)
    try:
        with guarded():
            result = _work(plan, display, until)
    except UserError:
        raise
    except training.Diverged as error:
        # No weights, but a seed of its row: boards count it as guesses.
        epochs = plan.resolved.trained_by.config.training.epochs
        nothing = checkpoints.TrainingReport(weights_sha256="", epochs=epochs, seconds=0.0)
        return without_result(plan, "failed", message(error), training_entry(plan, nothing))
    except TraceError as error:
        return without_result(plan, "failed", message(error))
    except BaseException as error:
        # Whatever a method does, a call of sys.exit included, is a failed run of that method.
        if is_meant(error) or distributed.rank() > 0:
            raise
        display.trace(error)
        return without_result(plan, "failed", describe(error))
    if result is None:
        return None
    record, arrays = result
    path = store.save(plan.out, record, arrays)
    complete(plan, path)
    return path


def complete(plan: Plan, path: Path) -> None:
    """What follows a stored record: its figures beside it; the arrays that waited for its timing go."""
    record = store.load(path)
    with checkpoints.storage_errors(path.parent):
        if not path.with_suffix(".png").exists():
            speed_accuracy(record, store.load_arrays(path, record), path.with_suffix(".png"))
        if record.robustness and not path.with_suffix(".noise.png").exists():
            accuracy_over_ticks(record.robustness, path.with_suffix(".noise.png"), title=record.method.name)
    prepared_path(plan).unlink(missing_ok=True)


def _work(plan: Plan, display: Display, until: Until) -> tuple[Record, Arrays] | None:
    """All stages up to ``until``; the unsealed record and its arrays where that is the record."""
    with restored_settings(f"method '{plan.resolved.name}'"):
        model, report = trained_model(plan, plan.resolved, display)
    distributed.leave()
    if until == "trained":
        return None
    with nullcontext() if until == "prepared" else timing_processes(plan) as started:
        with restored_settings(f"method '{plan.resolved.name}'"):
            arrays = untimed_stages(plan, model, report.weights_sha256, display, keep=until == "prepared")
        if started is None:
            return None
        arrays |= learning_stage(plan, arrays, display)
        timed, timing_meta = timing_stage(plan, model, display, started)
    operators, span_meta = span_stage(plan, model, display)
    arrays |= timed | operators
    deadline_meta = None
    if plan.deadlines:
        draws, deadline_meta = deadline_stage(plan, model, plan.deadlines, display)
        arrays |= draws
    record = build_record(plan, report, arrays, timing_meta, span_meta, deadline_meta)
    for name in undefined(record):
        display.warn(f"score '{name}' is no finite number at any exit: it stands nowhere in the record.")
    return record, arrays


def without_result(plan: Plan, status: str, reason: str, training: TrainingEntry | None = None) -> Path:
    """Store a record that says why there is no result; with ``training``, that it diverged."""
    distributed.leave()
    fields = {**common_fields(plan, status, reason), "training": training}
    return store.save(plan.out, Record.model_validate(fields), {})


def trained_model(
    plan: Plan, resolved: ResolvedMethod, display: Display
) -> tuple[AnytimeModel, checkpoints.TrainingReport]:
    """The model with trained weights: trained now, resumed, or taken over from another method's training."""
    model = build_model(resolved, plan.task, plan.seed, plan.device)
    own = resolved is plan.resolved
    source = resolved.weights_source
    if source is not None:
        trained, report = trained_model(plan, source, display)
        weights = {name: tensor.detach().clone() for name, tensor in trained.state_dict().items()}
        try:
            resolved.method.adopt(model, weights)
        except (RuntimeError, KeyError, ValueError) as error:
            raise UserError(
                f"method '{resolved.name}' cannot take over the weights of '{source.name}': {message(error)}"
            ) from error
        if resolved.method.weights_from:
            return model, report
    folder = plan.folder_of(resolved)
    # Another method's finished weights are shared; one's own are trained anew unless --resume says otherwise.
    finished = checkpoints.load_weights(folder) if plan.resume or not own else None
    if finished is not None:
        model.load_state_dict(finished[0])
        return model, finished[1]
    if not plan.resume and own:
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    train, val = (DeviceSplit.place(plan.task.splits[key], plan.task.card, plan.device) for key in ("train", "val"))
    with display.training(resolved.name, resolved.config.training.epochs) as on_step:
        report = training.train(
            resolved.method, model, train, val, resolved.config, seed=plan.seed, folder=folder,
            resume=plan.resume or not own, on_step=on_step, warn=display.warn,
        )  # fmt: skip
    return model, report


def build_record(
    plan: Plan,
    report: checkpoints.TrainingReport,
    arrays: Arrays,
    timing_meta: TimingMeta | None,
    span_meta: SpanMeta | None,
    deadline_meta: DeadlineMeta | None = None,
) -> Record:
    """Score what was measured and put the record together, unsealed."""
    evaluation = plan.resolved.config.evaluation
    derived = derive(
        arrays, costs={"ticks": plan.costs.ticks, "macs": plan.costs.macs},
        prefix_costs={"macs": plan.costs.macs_prefix}, reference=reference_entry(plan), timing_meta=timing_meta,
        span_meta=span_meta, deadline_meta=deadline_meta, resamples=evaluation.resamples,
    )  # fmt: skip
    fields = {**common_fields(plan, "ok"), **dict(derived)}
    fields.update(
        training=training_entry(plan, report),
        parameters=plan.costs.parameters,
        macs_by_execution={name: list(macs) for name, macs in plan.costs.macs_by_execution.items()},
        evaluation=finite(dataclasses.asdict(evaluation)),
        added=from_plugins(),
        # Completed by the store, which is where the trace is written.
        artifacts={"trace": {"sha256": "", "bytes": 0}},
    )
    return Record.model_validate(fields)


def common_fields(plan: Plan, status: str, reason: str = "") -> dict[str, Any]:
    """The fields every record has, whatever became of the run."""
    card, resolved = plan.task.card, plan.resolved
    origin = {key: str(value) for key, value in dataclasses.asdict(resolved.origin).items() if value and key != "name"}
    return {
        "created": now(),
        "status": status,
        "reason": reason,
        "suite_version": suite_version(),
        "command": plan.command,
        "device": plan.device_name,
        "method": MethodEntry(
            name=resolved.name,
            origin=origin,
            options=resolved.options,
            card=finite(dataclasses.asdict(resolved.method.card)) if hasattr(resolved.method, "card") else {},
            weights_from=resolved.method.weights_from,
            starts_from=resolved.method.starts_from,
        ),
        "task": TaskEntry(
            name=card.name, title=card.title, version=card.version, classes=card.num_classes, shape=card.shape,
            sizes=dict(card.sizes), sha256=card.sha256,
        ),
        "environment": finite(plan.environment),
    }  # fmt: skip


def training_entry(plan: Plan, report: checkpoints.TrainingReport) -> TrainingEntry:
    """How the weights came about: for weights taken over, by their source's recipe."""
    trained = plan.resolved.trained_by
    config, source = trained.config, trained.weights_source
    return TrainingEntry(
        seed=plan.seed, epochs=report.epochs, recipe_name=config.recipe_name,
        recipe=finite(config.recipe()), recipe_sha256=config.recipe_sha256(),
        source_recipe=finite(source.trained_by.config.recipe()) if source is not None else None,
        weights_sha256=report.weights_sha256, seconds=report.seconds, precision=report.precision or None,
        final_loss=report.losses[-1] if report.losses else None, final_losses=report.losses[-5:],
    )  # fmt: skip


def reference_entry(plan: Plan) -> Reference:
    """The reference model and its full cost per counted axis: the unit of every horizon."""
    costs, reference = plan.reference_costs, plan.reference
    full = {"ticks": float(costs.ticks[-1]), "macs": int(costs.macs_prefix[-1])}
    return Reference(method=reference.name, options=reference.options, costs=full)


def next_command(record: Record, path: Path) -> str:
    """What a user most likely wants to type now: after a failure the run's own command, corrected."""
    if record.status != "failed":
        return f"anytime-bench report {shlex.quote(str(shown(path)))}"
    if record.training is not None:
        recipe: Any = record.training.recipe
        return at_lower_rate(record.command, recipe["training"]["lr"])
    place = location(record.reason)
    what = f"{shown(Path(place[0]))}:{place[1]}" if place else "what it names"
    return f"correct {what}, then: {again(record.command)}"


def again(command: str) -> str:
    """``command`` going on from the weights that it trained."""
    if not command.startswith("anytime-bench "):
        return f"{command.removesuffix(')')}, resume=True)"
    return command if "--resume" in shlex.split(command) else f"{command} --resume"


def at_lower_rate(command: str, rate: float) -> str:
    """``command`` with a tenth of the learning rate ``rate``, all else as it was."""
    lower = f"training.lr={rate / 10:.3g}"
    if not command.startswith("anytime-bench "):
        return f"override {lower} in: {command}"
    words = [word for word in shlex.split(command) if not word.startswith(("lr=", "training.lr="))]
    return shlex.join([*words, lower])
