"""Single stages on an existing record: its weights are found again, checked against it, and examined further.

The result is a new record that supersedes the old one; nothing is edited in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.records import store
from anytime_bench.records.record import Record
from anytime_bench.records.scoring import derive
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import Plan, Row, build_model, make_plan, weights_folder
from anytime_bench.runs.stages import noise_choice, noise_stage
from anytime_bench.tasks.loading import load_task
from anytime_bench.training import checkpoints
from anytime_bench.training.recipes import installed_recipes


def plan_of(
    record: Record, path: Path, *, data_root: Path | None = None, device: str = "auto", out: Path | None = None
) -> Plan:
    """The plan that made ``record``, remade from what the record says. Differences in data or origin are errors.

    ``out`` is where the plan may write; the default is the store in which the record lies.
    """
    if record.training is None or record.status != "ok":
        raise UserError(f"record '{path}' has status {record.status}: there are no trained weights to examine.")
    task = load_task(record.task.name, data_root)
    if task.card.sha256 != record.task.sha256:
        raise UserError(
            f"record '{path}' was made on other data: its task has SHA-256 {record.task.sha256[:16]}..., "
            f"the one read now {task.card.sha256[:16]}...."
        )
    sections = {**record.training.recipe, "options": record.method.options, "evaluation": record.evaluation}
    overrides = [f"{name}.{key}={_yaml(value)}" for name, section in sections.items() for key, value in section.items()]
    # A recipe file of the user's own may be gone; all its values stand in the record and were turned into overrides.
    recipe = record.training.recipe_name if record.training.recipe_name in installed_recipes() else None
    return make_plan(
        record.method.name, task, seed=record.training.seed, overrides=overrides, device=device,
        out=out or path.parents[3],
        resume=True, recipe_file=recipe, data_root=data_root, command=record.command,
    )  # fmt: skip


def weights_of(plan: Plan, record: Record) -> AnytimeModel:
    """The model with the record's own weights, refused if their hash is not the one in the record."""
    path = weights_folder(plan, plan.row) / "weights.safetensors"
    if record.training is None:
        raise UserError(f"record {record.record_id[:12]} has status {record.status} and no trained weights.")
    checkpoints.verify_weights(path, record.training.weights_sha256, f"record {record.record_id[:12]}")
    finished = checkpoints.load_weights(path.parent)
    if finished is None:
        raise UserError(f"'{path}' is damaged: run {record.command!r} again first.")
    return _filled(plan, plan.row, finished[0]).eval()


def _filled(plan: Plan, row: Row, weights: Mapping[str, Tensor]) -> AnytimeModel:
    """``row``'s model with trained ``weights``, handed on from lender to borrower as in the run itself."""
    model = build_model(row, plan.task, plan.seed, plan.device)
    if row.lender is not None and row.method.weights_from:
        row.method.adopt(model, _filled(plan, row.lender, weights).state_dict())
    else:
        model.load_state_dict(weights)
    return model


def noise_on_record(
    path: Path, kinds: str, *, data_root: Path | None = None, device: str = "auto", command: str = "", display: Display
) -> Record:
    """Examine the record's weights under noise; returns the new, stored record."""
    if noise_choice(kinds) == ((), False):
        raise UserError("--kinds none leaves nothing to do. Give paper, common, all or names of kinds.")
    record = store.load(path)
    arrays = {name: a for name, a in store.load_arrays(path, record).items() if not name.startswith("noise_")}
    plan = plan_of(record, path, data_root=data_root, device=device)
    arrays |= noise_stage(plan, weights_of(plan, record), kinds, display)
    derived = derive(
        arrays, ticks=[e.ticks for e in record.exits], macs=[e.macs for e in record.exits],
        macs_prefix=[e.macs_prefix for e in record.exits], reference=record.reference,
        timing_meta=record.timing.get("meta"), resamples=record.evaluation["resamples"],
    )  # fmt: skip
    fields = {
        **record.model_dump(mode="json"), **derived, "supersedes": record.record_id, "command": command,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "evaluation": {**record.evaluation, "noise": kinds},
    }  # fmt: skip
    made = store.save(plan.out, Record.model_validate(fields), arrays)
    display.say(f"record  {made}")
    return store.load(made)


def _yaml(value: object) -> str:
    """A value as an override on the command line spells it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
