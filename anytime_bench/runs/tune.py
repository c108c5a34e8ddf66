"""Choosing a learning rate with the same small budget for every row, on the validation split alone.

Each candidate rate is a multiple of the recipe's and trains for a share of its epochs, with one seed. The best is the
one with the highest accuracy on the validation split, as a mean over exits: an anytime network is judged at any of
them. Nothing here reads a test image. A candidate that diverges is reported and cannot win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from anytime_bench.errors import UserError, message
from anytime_bench.files import write_atomically
from anytime_bench.harness.predict import predict
from anytime_bench.runs.display import Display
from anytime_bench.runs.pipeline import trained_model
from anytime_bench.runs.plan import make_plan, parsed_overrides
from anytime_bench.tasks.task import Task
from anytime_bench.training.config import Settings
from anytime_bench.training.data import DeviceSplit
from anytime_bench.training.loop import Diverged
from anytime_bench.training.recipes import recipe_for

FACTORS = (1 / 3, 1.0, 3.0)
EPOCH_SHARE = 1 / 3


@dataclass(frozen=True)
class Candidate:
    """One rate and what it reached: accuracy per exit on the validation split, or why there is none."""

    lr: float
    accuracy: tuple[float, ...] = ()
    diverged: str = ""

    @property
    def score(self) -> float:
        """Mean over exits of the validation accuracy; minus infinity after a divergence."""
        return sum(self.accuracy) / len(self.accuracy) if self.accuracy else -math.inf


@dataclass(frozen=True)
class Tuning:
    """All candidates of one method on one task, in order of their rates."""

    method: str
    task: str
    epochs: int
    seed: int
    images: int
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The candidate with the highest score, the smaller rate where two are equal."""
        return max(self.candidates, key=lambda candidate: (candidate.score, -candidate.lr))

    def why(self) -> str:
        """The sentence a recipe carries: every rate with its figure."""
        figures = ", ".join(
            f"{candidate.lr:.3g}: {100 * candidate.score:.1f} %" if candidate.accuracy else f"{candidate.lr:.3g}: NaN"
            for candidate in self.candidates
        )
        return (
            f"tune: mean over exits on {self.images} validation images after {self.epochs} epochs, seed {self.seed}: "
            f"{figures}"
        )


def tune(
    method: str,
    task: Task,
    *,
    overrides: Sequence[str] = (),
    factors: Sequence[float] = FACTORS,
    epoch_share: float = EPOCH_SHARE,
    seed: int = 0,
    device: str = "auto",
    out: Path = Path("runs"),
    recipe: str | None = None,
    data_root: Path | None = None,
    display: Display | None = None,
) -> Tuning:
    """Train ``method`` once per factor on the recipe's learning rate; trainings that exist under ``out`` are reused.

    Raises ``UserError`` for a method that trains nothing of its own, and where every rate diverges.
    """
    display = display or Display(quiet=True)
    plain = make_plan(method, task, overrides=overrides, device=device, out=out, recipe=recipe, data_root=data_root)
    if plain.skip or plain.resolved.method.weights_from:
        reason = plain.skip or f"it takes over the weights of {plain.resolved.method.weights_from}"
        raise UserError(f"method '{method}' cannot be tuned on '{task.card.name}': {reason}.")
    settings = plain.resolved.config.training
    epochs = max(1, math.ceil(settings.epochs * epoch_share))
    candidates = []
    val: DeviceSplit | None = None
    for lr in sorted(float(f"{factor * settings.lr:.2g}") for factor in factors):
        values: Settings = {
            **parsed_overrides(overrides),
            "training.lr": lr,
            "training.epochs": epochs,
            "training.warmup": min(settings.warmup, epochs / 2),
        }
        plan = make_plan(
            method, task, seed=seed, overrides=values, device=device, out=out / "tune", resume=True, recipe=recipe,
            data_root=data_root,
        )  # fmt: skip
        try:
            model, _ = trained_model(plan, plan.resolved, display)
        except Diverged as error:
            candidates.append(Candidate(lr, diverged=message(error)))
            continue
        val = val or DeviceSplit.place(task.splits["val"], task.card, plan.device)
        logits = predict(model, val, plan.resolved.config.evaluation.prediction_batch)
        right = logits.argmax(axis=2) == val.labels.cpu().numpy()
        candidates.append(Candidate(lr, tuple(float(share) for share in right.mean(axis=1))))
    result = Tuning(method, task.card.name, epochs, seed, len(task.splits["val"]), tuple(candidates))
    if not result.best.accuracy:
        raise UserError(f"method '{method}' diverged at every rate: {candidates[0].diverged}. Try smaller --factors.")
    return result


def write_recipe(tuning: Tuning, path: Path, base: str | None, device: str) -> None:
    """Write the recipe that was tuned: the chosen rate is this method's exception, its figures the reason."""
    recipe = recipe_for(tuning.task, str(path) if path.is_file() else base, device)
    recipe = {key: value for key, value in recipe.items() if key != "name"}
    methods = dict(recipe.get("methods") or {})
    exception = dict(methods.get(tuning.method) or {})
    exception["training"] = {**(exception.get("training") or {}), "lr": tuning.best.lr}
    earlier = str(exception.get("why") or "").split("tune:")[0].strip(" ;")
    exception["why"] = f"{earlier}; {tuning.why()}" if earlier else tuning.why()
    recipe["methods"] = {**methods, tuning.method: exception}
    write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(recipe)).encode())
