"""An existing record's run again: its plan remade, its weights read, its model examined further.

The result of an examination is a new record that supersedes the old one; nothing is edited in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from anytime_bench.errors import UserError
from anytime_bench.methods.contract import AnytimeModel
from anytime_bench.records import store
from anytime_bench.records.protocol import PROTOCOLS
from anytime_bench.records.record import PROTOCOL_VERSION, Record, TrainingEntry
from anytime_bench.records.scoring import derive_again
from anytime_bench.runs.display import Display
from anytime_bench.runs.plan import Plan, ResolvedMethod, build_model, make_plan, noise_choice, resolve
from anytime_bench.runs.stages import noise_stage
from anytime_bench.tasks.loading import load_task
from anytime_bench.tasks.task import Task, TaskCard
from anytime_bench.training import checkpoints
from anytime_bench.training.config import Settings
from anytime_bench.training.recipes import installed_recipes, recipe_for


def plan_of(
    record: Record, path: Path, *, data_root: Path | None = None, device: str = "auto", out: Path | None = None,
    task: Task | None = None,
) -> Plan:  # fmt: skip
    """The plan that made ``record``, remade from what the record says. Other data than the record's are an error.

    ``out`` is where the plan may write; the default is the store in which the record lies. ``task`` None is read
    from its own files.
    """
    if record.training is None or record.status != "ok":
        raise UserError(f"record '{path}' has status {record.status}: there are no trained weights to examine.")
    task = task or load_task(record.task.name, data_root)
    if task.card.sha256 != record.task.sha256:
        raise UserError(
            f"record '{path}' was made on other data: its task has SHA-256 {record.task.sha256[:16]}..., "
            f"the one read now {task.card.sha256[:16]}...."
        )
    overrides = overrides_of(record)
    return make_plan(
        record.method.name, task, seed=record.training.seed, overrides=overrides, device=device,
        out=out or path.parents[3], resume=True, recipe=recipe_of(record, record.training, overrides),
        data_root=data_root, command=record.command,
    )  # fmt: skip


def task_without_data(record: Record) -> Task:
    """What a model is built from: the card of the record's task. Its classes are numbered and its splits empty."""
    stated = record.task
    card = TaskCard(
        name=stated.name, title=stated.title, classes=tuple(map(str, range(stated.classes))), shape=stated.shape,
        sizes=stated.sizes, mean=(0.5,) * stated.shape[0], std=(0.5,) * stated.shape[0], version=stated.version,
        sha256=stated.sha256,
    )  # fmt: skip
    return Task(card, {})


def overrides_of(record: Record) -> Settings:
    """Options and evaluation of the record, as overrides."""
    sections = {"options": record.method.options, "evaluation": record.evaluation}
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def recipe_of(record: Record, training: TrainingEntry, overrides: Mapping[str, Any]) -> Settings:
    """The recipe that ``record`` was made with, from what it holds: no recipe file is needed any more.

    A method that starts from another's weights has that method's recipe as an exception. Records that do not hold it,
    or the reference's options, take them from the installed recipe of the same name.
    """
    recipe: Settings = {**training.recipe, "name": training.recipe_name}
    installed: Settings = {}
    if training.recipe_name in installed_recipes():
        installed = recipe_for(record.task.name, training.recipe_name)
    assert record.reference is not None  # as every record with results has one
    name, options = record.reference.method, record.reference.options
    if options is None:
        options = resolve(name, installed).options
    recipe["reference"] = {"method": name, "options": options}
    source = resolve(record.method.name, recipe, overrides).trained_by.weights_source
    if source is not None:
        by_name = resolve(source.name, installed, source.overrides).trained_by.config.recipe()
        recipe["methods"] = {source.name: training.source_recipe or by_name}
    return recipe


def weights_of(plan: Plan, record: Record) -> AnytimeModel:
    """The model with the record's own weights, refused if their hash is not the one in the record."""
    path = plan.folder / "weights.safetensors"
    if record.training is None:
        raise UserError(f"record {record.record_id[:12]} has status {record.status} and no trained weights.")
    checkpoints.verify_weights(path, record.training.weights_sha256, f"record {record.record_id[:12]}")
    finished = checkpoints.load_weights(path.parent)
    if finished is None:
        raise UserError(f"'{path}' is damaged: run {record.command!r} again first.")
    return _filled(plan, plan.resolved, finished[0]).eval()


def _filled(plan: Plan, resolved: ResolvedMethod, weights: Mapping[str, Tensor]) -> AnytimeModel:
    """The model with trained ``weights``, handed on from their source as in the run itself."""
    model = build_model(resolved, plan.task, plan.seed, plan.device)
    if resolved.weights_source is not None and resolved.method.weights_from:
        resolved.method.adopt(model, _filled(plan, resolved.weights_source, weights).state_dict())
    else:
        model.load_state_dict(weights)
    return model


def each_record(paths: Sequence[Path], work: Callable[[Path], Record], display: Display) -> Iterator[Record]:
    """What ``work`` makes of one record after the other. Of several, superseded ones are left out with a warning."""
    done = 0
    for path in paths:
        try:
            made = work(path)
        except store.Superseded as error:
            if len(paths) == 1:
                raise
            display.warn(str(error))
        else:
            done += 1
            yield made
    if not done:
        raise UserError(f"all of the {len(paths)} records are superseded. Give those that supersede them.")


def refuse_other_charges(record: Record, path: Path) -> None:
    """``UserError`` where noisy frames shown now would be charged otherwise than the record's protocol charges them."""
    theirs, ours = PROTOCOLS.get(record.protocol_version), PROTOCOLS[PROTOCOL_VERSION]
    if theirs is None or theirs.anew != ours.anew:
        charged = f", which charges a policy that starts anew {theirs.anew} for every frame" if theirs else ""
        raise UserError(
            f"record '{path}' was made by protocol {record.protocol_version}{charged}; frames shown now are charged "
            f"{ours.anew} and would not compare. Make it anew, from the same weights where they are still there: "
            f"{record.command}"
        )


def noise_on_record(
    path: Path, kinds: str, *, data_root: Path | None = None, device: str = "auto", command: str = "", display: Display
) -> Record:
    """Examine the record's weights under noise; returns the new, stored record."""
    if noise_choice(kinds) == ((), False):
        raise UserError("--kinds none leaves nothing to do. Give paper, common, all or names of kinds.")
    record = store.load(path)
    store.refuse_superseded(path, record)
    refuse_other_charges(record, path)
    arrays = {name: a for name, a in store.load_arrays(path, record).items() if not name.startswith("noise_")}
    plan = plan_of(record, path, data_root=data_root, device=device)
    arrays |= noise_stage(plan, weights_of(plan, record), kinds, display)
    evaluation = {**record.evaluation, "noise": kinds}
    derived = derive_again(record, arrays)
    made = store.save_successor(plan.out, record, derived, arrays, command=command, evaluation=evaluation)
    display.say(f"record  {made}")
    return store.load(made)
